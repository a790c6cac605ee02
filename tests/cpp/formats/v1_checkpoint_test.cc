// Files of the first format made byte by byte: what they say of their tensors, where values lie,
// and what is refused.

#include "formats/v1_checkpoint.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "support/expect_error.h"
#include "support/tables.h"

namespace tensor_bridge {
namespace {

using namespace testing;  // NOLINT: what checkpoints are made of

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
  refused(record("", bytes(1, bytes(2, number(2, 2)))), {"readers of version 1", "for 2"});
  refused(description(tensor("w", {2}, kFloat, "")), {"expected slices", "got 0"});
  refused(description(tensor("w", {}, kFloat, bytes(4, "") + bytes(4, ""))), {"got 2"});
  refused(description(tensor("w", {2}, -1, kWhole)), {"a dtype"});
  refused(description(tensor("w", {2, 2}, kFloat, kWhole)), {"2 extents", "got 1"});
  refused(description(tensor("w", {2}, kFloat, kWhole) + tensor("w", {2}, kFloat, kWhole)),
          {"once", "twice"});
}

TEST(V1Checkpoint, ValuesAreFoundWhereTheyLie) {
  const std::string records = description(tensor("w", {2}, kFloat, kWhole)) +
                              record("k", values(floats({1, 2}))) +
                              record("m", values(bytes(7, varint(5) + varint(300))));
  const std::vector<uint8_t> file = exactly(indexOf(records));
  const V1Slice plain(file.data(), file.size(), "k", kFloat, 2);
  ASSERT_EQ(plain.extent().size, 8);
  float found[2];
  std::memcpy(found, file.data() + plain.extent().offset, 8);
  EXPECT_EQ(found[1], 2.0f);
  const V1Slice coded(file.data(), file.size(), "m", kInt32, 2);
  EXPECT_EQ(coded.extent().offset, -1);
  EXPECT_EQ(coded.message().next() - file.data(), coded.place().offset);
  EXPECT_EQ(coded.place().size, 5);
}

TEST(V1Checkpoint, PackedValuesAreNowhereInTheFile) {
  const std::vector<uint8_t> file =
      exactly(packedTable(description("") + record("k", values(floats({1, 2})))));
  const V1Slice slice(file.data(), file.size(), "k", kFloat, 2);
  EXPECT_EQ(slice.extent().offset, -1);
  EXPECT_EQ(slice.place().offset, -1);
  const std::string message(reinterpret_cast<const char*>(slice.message().next()),
                            slice.message().left());
  EXPECT_EQ(message, floats({1, 2}));
}

// TensorFlow's reader takes no other number of values either, though a TensorProto elsewhere may
// leave out repeated ones.
TEST(V1Checkpoint, SlicesAreChecked) {
  const std::string records =
      description("") + record("k", values(floats({1, 2}))) + record("l", bytes(2, "")) +
      record("m", values(bytes(4, "12345678"))) + record("n", values(bytes(7, "\x80")));
  for (const std::string& table : {indexOf(records), packedTable(records)}) {
    const std::vector<uint8_t> file = exactly(table);
    const auto refused = [&](const std::string& key, int32_t dtype, int64_t count,
                             const std::vector<std::string>& parts) {
      expectError(ErrorCode::kCheckpoint, parts, [&] {
        try {
          V1Slice(file.data(), file.size(), key, dtype, count);
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
}  // namespace tensor_bridge
