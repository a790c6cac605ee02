// Files of the first format made byte by byte: their tensors, the places of values, and what is
// refused.

#include "formats/v1_checkpoint.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "support/expect_error.h"
#include "support/tables.h"

namespace tensor_bridge::testing {
namespace {

constexpr int32_t kFloat = 1;
constexpr int32_t kInt32 = 3;
constexpr int32_t kString = 7;
constexpr int32_t kInt8 = 6;

std::string tensor(const std::string& name, const std::vector<uint64_t>& shape, int32_t dtype,
                   const std::string& slices) {
  return bytes(1, bytes(1, name) + bytes(2, shapeOf(shape)) +
                      number(3, static_cast<uint64_t>(dtype)) + slices);
}

// The record "" of these tensors.
std::string description(const std::string& tensors) {
  return record("", bytes(1, tensors + bytes(2, number(1, 1))));
}

std::string values(const std::string& proto) { return bytes(2, bytes(1, "w") + bytes(3, proto)); }

std::string floats(const std::vector<float>& values) {
  std::string out(values.size() * 4, '\0');
  if (!values.empty()) std::memcpy(out.data(), values.data(), out.size());
  return bytes(5, out);
}

const std::string kWhole = bytes(4, bytes(1, ""));

std::vector<uint8_t> exactly(const std::string& file) { return {file.begin(), file.end()}; }

V1Index read(const std::string& records) {
  const std::vector<uint8_t> file = exactly(indexOf(records));
  return readV1Index(file.data(), file.size());
}

std::string packedTable(const std::string& records) {
  const std::string data = stored(packed(contents(records)), 1);
  return tableOf(data, record("~", handle(0, data.size() - 5)));
}

TEST(V1Checkpoint, TensorsAreRead) {
  const std::string half = bytes(4, bytes(1, number(1, 2) + number(2, 2)) + bytes(1, ""));
  const V1Index index = read(description(
      tensor("w", {4, 3}, kFloat, bytes(4, bytes(1, number(2, 2)) + bytes(1, "")) + half) +
      tensor("s", {}, kString, bytes(4, ""))));
  ASSERT_EQ(index.tensors.size(), 2u);
  EXPECT_EQ(index.tensors[0].name, "w");
  EXPECT_EQ(index.tensors[0].shape, (std::vector<int64_t>{4, 3}));
  EXPECT_EQ(index.tensors[0].slices, (std::vector<int64_t>{0, 2, 0, -1, 2, 2, 0, -1}));
  EXPECT_EQ(index.tensors[0].num_slices, 2);
  EXPECT_EQ(index.tensors[1].dtype, kString);
  EXPECT_EQ(index.tensors[1].num_slices, 1);
  EXPECT_EQ(index.blocks.size(), 3u);
}

TEST(V1Checkpoint, WrongDescriptionsAreRefused) {
  const auto refused = [](const std::string& records, const std::vector<std::string>& parts) {
    expectError(ErrorCode::kCheckpoint, parts, [&] { read(records); });
  };
  refused("", {"as the first record"});
  refused(record("a", ""), {"as the first record"});
  refused(record("", ""), {"a description of the tensors"});
  refused(record("", "\xff"), {"protobuf"});
  refused(description(tensor("w", {2}, kFloat, "")), {"expected slices", "got 0"});
  refused(description(tensor("w", {}, kFloat, bytes(4, "") + bytes(4, ""))), {"got 2"});
  refused(description(tensor("w", {2}, -1, kWhole)), {"a dtype"});
  refused(description(tensor("w", {2, 2}, kFloat, kWhole)), {"2 extents", "got 1"});
  refused(description(tensor("w", {2}, kFloat, kWhole) + tensor("w", {2}, kFloat, kWhole)),
          {"once", "twice"});
}

TEST(V1Checkpoint, WhatOnlyOtherReadersReadIsNotDamaged) {
  expectError(ErrorCode::kUnsupportedFile, {"readers of version 1", "for 2"},
              [] { read(record("", bytes(1, bytes(2, number(2, 2))))); });
}

TEST(V1Checkpoint, ValuesAreFoundWhereTheyLie) {
  const std::string records = description(tensor("w", {2}, kFloat, kWhole)) +
                              record("k", values(floats({1, 2}))) +
                              record("m", values(bytes(7, varint(5) + varint(300))));
  const std::vector<uint8_t> file = exactly(indexOf(records));
  V1Records all;
  const V1Slice plain(&all, file.data(), file.size(), "k", kFloat, 2);
  ASSERT_EQ(plain.extent().size, 8);
  float found[2];
  std::memcpy(found, file.data() + plain.extent().offset, 8);
  EXPECT_EQ(found[1], 2.0f);
  const V1Slice coded(&all, file.data(), file.size(), "m", kInt32, 2);
  EXPECT_EQ(coded.extent().offset, -1);
  EXPECT_EQ(coded.message().next() - file.data(), coded.place().offset);
  EXPECT_EQ(coded.place().size, 5);
}

TEST(V1Checkpoint, PackedValuesAreNowhereInTheFile) {
  const std::vector<uint8_t> file =
      exactly(packedTable(description("") + record("k", values(floats({1, 2})))));
  V1Records all;
  const uint8_t* kept = nullptr;
  // More look-ups than unpackings, with one slice or several at a time.
  std::vector<V1Slice> slices;
  for (int i = 0; i < 20; ++i) {
    if (i == 10) slices.clear();
    slices.emplace_back(&all, file.data(), file.size(), "k", kFloat, 2);
    const V1Slice& slice = slices.back();
    EXPECT_EQ(slice.extent().offset, -1);
    EXPECT_EQ(slice.place().offset, -1);
    const uint8_t* begin = slice.message().next();
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(begin), slice.message().left()),
              floats({1, 2}));
    if (i == 10) kept = begin;
    if (i >= 10) {
      EXPECT_EQ(begin, kept);
    }
  }
  EXPECT_NE(slices.front().message().next(), nullptr);
}

// Two packed blocks, which are looked up in turn, and a third block that is not packed.
TEST(V1Checkpoint, RecordsAreFoundByTheirKeys) {
  const std::string one = stored(packed(contents(description("") + record("b", "1"))), 1);
  const std::string two = stored(packed(contents(record("c", "22") + record("cd", "", 1))), 1);
  const std::string three = block(record("e", "333"));
  const std::vector<uint8_t> file = exactly(tableOf(
      one + two + three, record("b", handle(0, one.size() - 5)) +
                             record("d", handle(one.size(), two.size() - 5)) +
                             record("f", handle(one.size() + two.size(), three.size() - 5))));
  V1Records all;
  for (int i = 0; i < 20; ++i) {
    for (const auto& [key, value] : std::vector<std::pair<std::string, std::string>>{
             {"b", "1"}, {"c", "22"}, {"cd", ""}, {"e", "333"}}) {
      const V1Records::Record record = all.find(file.data(), file.size(), key);
      EXPECT_EQ(
          std::string(reinterpret_cast<const char*>(record.value.next()), record.value.left()),
          value);
      EXPECT_EQ(record.origin.packed_at < 0, key == "e");
    }
    for (const char* key : {"a", "bb", "cc", "d", "f"}) {
      expectError(ErrorCode::kCheckpoint, {"a record of the slice"},
                  [&] { all.find(file.data(), file.size(), key); });
    }
  }
}

TEST(V1Checkpoint, KeysOutOfOrderAreRefused) {
  const std::vector<uint8_t> file =
      exactly(indexOf(description("") + record("b", "1") + record("a", "2")));
  V1Records all;
  for (int i = 0; i < 2; ++i) {
    expectError(ErrorCode::kCheckpoint, {"ascending order"},
                [&] { all.find(file.data(), file.size(), "b"); });
  }
}

// The file is written to between two look-ups.
TEST(V1Checkpoint, AFileThatChangesIsRefused) {
  std::vector<uint8_t> file =
      exactly(packedTable(description("") + record("k", values(floats({1, 2})))));
  V1Records all;
  V1Slice(&all, file.data(), file.size(), "k", kFloat, 2);
  std::vector<uint8_t> changed = file;
  const size_t packing = static_cast<size_t>(readV1Index(file.data(), file.size()).blocks[2].size);
  ASSERT_EQ(changed[packing - 1], 1);
  changed[packing - 1] = 0;
  expectError(ErrorCode::kCheckpoint, {},
              [&] { V1Slice(&all, changed.data(), changed.size(), "k", kFloat, 2); });
}

TEST(V1Checkpoint, KeysOfSlicesCannotGrowWithoutBound) {
  std::string slices;
  for (int i = 0; i < 4000; ++i) slices += bytes(4, bytes(1, number(1, 1) + number(2, 1)));
  const std::string name(4000, 'n');
  expectError(ErrorCode::kCheckpoint, {"slices with keys of at most"}, [&] {
    read(description(bytes(1, bytes(1, name) + bytes(2, shapeOf({4000})) + number(3, 1) + slices)));
  });
}

// TensorFlow's reader also requires this number of values, though a TensorProto elsewhere may leave
// out repeated values.
TEST(V1Checkpoint, SlicesAreChecked) {
  const std::string records =
      description("") + record("k", values(floats({1, 2}))) + record("l", bytes(2, "")) +
      record("m", values(bytes(4, "12345678"))) + record("n", values(bytes(7, "\x80")));
  for (const std::string& table : {indexOf(records), packedTable(records)}) {
    const std::vector<uint8_t> file = exactly(table);
    V1Records all;
    const auto refused = [&](const std::string& key, int32_t dtype, int64_t count,
                             const std::vector<std::string>& parts) {
      expectError(ErrorCode::kCheckpoint, parts, [&] {
        try {
          V1Slice(&all, file.data(), file.size(), key, dtype, count);
        } catch (const FormatError& e) {
          EXPECT_LE(e.offset(), static_cast<int64_t>(file.size()));
          throw;
        }
      });
    };
    refused("j", kFloat, 2, {"a record of the slice"});
    refused("k", kFloat, 1, {"expected 1 values, got 2"});
    refused("k", kFloat, 3, {"expected 3 values, got 2"});
    refused("k", kInt32, 2, {"got 0"});
    refused("k", kString, 2, {"got 0"});
    refused("k", 99, 2, {"dtype of numbers", "99"});
    refused("l", kFloat, 2, {"a slice with values"});
    refused("m", kFloat, 2, {"got 0"});
    refused("n", kInt8, 1, {"got 0"});
  }
}

}  // namespace
}  // namespace tensor_bridge::testing
