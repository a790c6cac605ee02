// Index files made byte by byte: the contents of correct files, and the error for each wrong
// length, offset, shape and shard.

#include "formats/bundle.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "formats/wire.h"
#include "support/expect_error.h"
#include "support/tables.h"

namespace tensor_bridge::testing {
namespace {

std::string entry(uint64_t dtype, const std::vector<uint64_t>& shape, uint64_t shard,
                  uint64_t offset, uint64_t size) {
  return number(1, dtype) + bytes(2, shapeOf(shape)) + number(3, shard) + number(4, offset) +
         number(5, size) + varint(6 << 3 | 5) + fixed32(0x12345678);
}

const std::string kHeader = number(1, 1);

BundleIndex read(const std::string& file) {
  // In a block of exactly this size, so that AddressSanitizer sees reads beyond it.
  const std::vector<uint8_t> exact(file.begin(), file.end());
  return readBundleIndex(exact.data(), exact.size());
}

void expectDamaged(const std::string& file, const std::vector<std::string>& parts,
                   const std::string& entry_name = "") {
  expectError(ErrorCode::kCheckpoint, parts, [&] {
    try {
      read(file);
    } catch (const FormatError& e) {
      EXPECT_EQ(e.entry(), entry_name);
      EXPECT_GE(e.offset(), 0);
      EXPECT_LE(e.offset(), static_cast<int64_t>(file.size()));
      throw;
    }
  });
}

void expectDamagedEntry(const std::string& value, const std::vector<std::string>& parts) {
  expectDamaged(indexOf(record("", kHeader) + record("w", value)), parts, "w");
}

TEST(Bundle, EntriesAreRead) {
  const BundleIndex index =
      read(indexOf(record("", number(1, 2)) + record("layer/a", entry(1, {2, 3}, 1, 64, 24)) +
                   record("layer/b", entry(9, {}, 0, 0, 8), 6) +
                   record("layer/c", entry(1, {0, 5}, 0, 8, 0), 6)));
  EXPECT_EQ(index.num_shards, 2);
  ASSERT_EQ(index.entries.size(), 3u);
  const BundleEntry& a = index.entries[0];
  EXPECT_EQ(a.key, "layer/a");
  EXPECT_EQ(a.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(a.dtype, 1);
  EXPECT_EQ(a.shard, 1);
  EXPECT_EQ(a.offset, 64);
  EXPECT_EQ(a.size, 24);
  EXPECT_EQ(a.crc32c, 0x12345678u);
  EXPECT_EQ(index.entries[1].key, "layer/b");
  EXPECT_TRUE(index.entries[1].shape.empty());
  EXPECT_EQ(index.entries[2].key, "layer/c");
  ASSERT_EQ(index.blocks.size(), 3u);
  EXPECT_EQ(index.blocks[0].crc32c, 0xabcdef01u);
}

TEST(Bundle, SlicesAreRead) {
  const std::string slice = bytes(1, number(1, 1) + number(2, 3)) + bytes(1, "");
  const BundleIndex index =
      read(indexOf(record("", kHeader) + record("w", entry(1, {4, 2}, 0, 0, 0) + bytes(7, slice))));
  EXPECT_EQ(index.entries[0].slices, (std::vector<int64_t>{1, 3, 0, -1}));
}

TEST(Bundle, UnknownDtypesAreLeftToTheirUse) {
  EXPECT_EQ(
      read(indexOf(record("", kHeader) + record("w", entry(99, {2}, 0, 0, 7)))).entries[0].dtype,
      99);
}

TEST(Bundle, WrongFilesAreRefused) {
  expectDamaged("", {"48 bytes or more", "got 0"});
  expectDamaged(std::string(47, 'x'), {"48 bytes or more"});
  expectDamaged(std::string(100, 'x'), {"magic number"});
  expectDamaged(footer(handle(0, 0) + handle(0, 0)), {"block inside"});
  expectDamaged(footer(std::string(40, '\xff')), {"offset and size"});
}

TEST(Bundle, BlocksOutsideTheFileAreRefused) {
  for (const std::string& place : {handle(1 << 20, 4), handle(0, 1 << 20), handle(UINT64_MAX, 1),
                                   handle(1, UINT64_MAX), handle(UINT64_MAX, UINT64_MAX)}) {
    expectDamaged(indexOf(record("", kHeader), record("~", place)), {"block inside"});
  }
}

TEST(Bundle, BlocksThatOverlapAreRefused) {
  const std::string place = handle(0, block(record("", kHeader)).size() - 5);
  expectDamaged(indexOf(record("", kHeader), record("a", place) + record("b", place)),
                {"one behind the other"});
}

TEST(Bundle, PackedBlocksAreRead) {
  std::string records = record("", number(1, 2));
  for (const char* key : {"a", "b", "c"}) records += record(key, entry(1, {2, 3}, 1, 64, 24));
  const std::string data = stored(packed(contents(records)), 1);
  const BundleIndex index = read(tableOf(data, record("~", handle(0, data.size() - 5))));
  EXPECT_EQ(index.num_shards, 2);
  ASSERT_EQ(index.entries.size(), 3u);
  EXPECT_EQ(index.entries[2].key, "c");
  EXPECT_EQ(index.entries[2].shape, (std::vector<int64_t>{2, 3}));
  // Checksums are those of the stored bytes.
  ASSERT_EQ(index.blocks.size(), 3u);
  EXPECT_EQ(index.blocks[2].offset, 0);
  EXPECT_EQ(index.blocks[2].size, static_cast<int64_t>(data.size()) - 4);
}

TEST(Bundle, AnErrorInAPackedBlockNamesBlockAndEntry) {
  const std::string wrong = record("", kHeader) + record("w", entry(1, {2, 3}, 0, 0, 23));
  const std::string first = block("");
  const std::string data = stored(packed(contents(wrong)), 1);
  const std::string file =
      tableOf(first + data, record("", handle(0, first.size() - 5)) +
                                record("~", handle(first.size(), data.size() - 5)));
  try {
    read(file);
    ADD_FAILURE() << "expected a FormatError";
  } catch (const FormatError& e) {
    EXPECT_EQ(e.entry(), "w");
    EXPECT_EQ(e.offset(), static_cast<int64_t>(first.size()));
  }
}

TEST(Bundle, BlocksPackedOtherwiseAreRefused) {
  std::string file = indexOf(record("", kHeader));
  file[block(record("", kHeader)).size() - 5] = 2;
  expectDamaged(file, {"by Snappy", "compression 2"});
}

TEST(Bundle, RecordsThatDoNotFitAreRefused) {
  expectDamaged(indexOf(varint(1) + varint(1) + varint(0) + "x"), {"record"});
  expectDamaged(indexOf(varint(0) + varint(100) + varint(0)), {"record"});
  expectDamaged(indexOf(varint(0) + varint(0) + varint(1 << 30)), {"record"});
  expectDamaged(indexOf(std::string(20, '\xff')), {"record"});
}

TEST(Bundle, KeysCannotGrowWithoutBound) {
  std::string records = record("", kHeader);
  std::string key(2000, 'k');
  records += record(key, entry(1, {}, 0, 0, 4));
  for (int i = 0; i < 4000; ++i) {
    key += "k";
    records += record(key, "", key.size() - 1);
  }
  expectDamaged(indexOf(records), {"keys of at most"}, std::string());
}

TEST(Bundle, HeadersAreChecked) {
  expectDamaged(indexOf(record("w", entry(1, {}, 0, 0, 4))), {"header as the first"});
  expectDamaged(indexOf(record("", "")), {"1 to 99999 data files", "got 0"});
  expectDamaged(indexOf(record("", number(1, UINT64_MAX))), {"1 to 99999 data files"});
  expectDamaged(indexOf(record("", "\xff")), {"protobuf"});
}

TEST(Bundle, WhatOnlyOtherReadersReadIsNotDamaged) {
  const auto refused = [](const std::string& header, const std::vector<std::string>& parts) {
    expectError(ErrorCode::kUnsupportedFile, parts, [&] { read(indexOf(record("", header))); });
  };
  refused(number(1, 1) + number(2, 1), {"little-endian"});
  refused(number(1, 1) + bytes(3, number(2, 2)), {"readers of version 1", "for 2"});
}

TEST(Bundle, WhatAnOlderReaderMayReadIsRead) {
  // Written by version 7, for readers of 1 and later.
  const std::string versions = number(1, 7) + number(2, 1);
  const BundleIndex index = read(indexOf(record("", number(1, 1) + bytes(3, versions))));
  EXPECT_EQ(index.num_shards, 1);
}

TEST(Bundle, KeysMustAscend) {
  const std::string value = entry(1, {}, 0, 0, 4);
  expectDamaged(indexOf(record("", kHeader) + record("b", value) + record("a", value)),
                {"ascending"}, "a");
  expectDamaged(indexOf(record("", kHeader) + record("b", value) + record("b", value)),
                {"ascending"}, "b");
}

TEST(Bundle, EntriesAreChecked) {
  expectDamagedEntry(entry(1, {}, 1, 0, 4), {"one of 1 data files", "number 1"});
  expectDamagedEntry(entry(1, {}, UINT64_MAX, 0, 4), {"one of 1 data files"});
  expectDamagedEntry(entry(1, {}, 0, UINT64_MAX, 4), {"place in a data file"});
  expectDamagedEntry(entry(1, {}, 0, INT64_MAX, 4), {"place in a data file"});
  expectDamagedEntry(entry(UINT64_MAX, {}, 0, 0, 4), {"a dtype"});
  expectDamagedEntry(entry(1, {2, 3}, 0, 0, 23), {"24 bytes", "6 elements of float32", "got 23"});
  expectDamagedEntry(entry(1, {UINT64_MAX}, 0, 0, 4), {"dimensions", "-1"});
  expectDamagedEntry(entry(1, {INT64_MAX, 3}, 0, 0, 4), {"memory can hold"});
  expectDamagedEntry(entry(1, {1u << 31, 1u << 31}, 0, 0, 0), {"memory can hold"});
  expectDamagedEntry(entry(1, std::vector<uint64_t>(300, 1), 0, 0, 4), {"254 dimensions"});
  expectDamagedEntry(number(1, 1) + bytes(2, number(3, 1)), {"shape", "unknown rank"});
  expectDamagedEntry("\x0a", {"protobuf"});
  expectDamagedEntry("\x0b", {"protobuf"});
  expectDamagedEntry(std::string("\x00\x00", 2), {"protobuf"});
}

TEST(Bundle, SlicesAreChecked) {
  const auto sliced = [](const std::string& slice) {
    return entry(1, {4}, 0, 0, 0) + bytes(7, slice);
  };
  expectDamagedEntry(sliced(bytes(1, number(1, 5))), {"inside the shape"});
  expectDamagedEntry(sliced(bytes(1, number(1, 2) + number(2, 3))), {"inside the shape"});
  expectDamagedEntry(sliced(bytes(1, number(1, 1))), {"inside the shape"});
  expectDamagedEntry(sliced(bytes(1, "") + bytes(1, "")), {"inside the shape"});
  expectDamagedEntry(sliced(""), {"1 extents", "got 0"});
  expectDamagedEntry(entry(1, {}, 0, 0, 0) + bytes(7, ""), {"no slices of a scalar"});
}

// Every prefix, and files with changed bytes, give an error or an index. AddressSanitizer would
// find reads outside of the bytes here.
TEST(Bundle, DamageIsNeverFollowed) {
  const std::string slice = bytes(1, number(1, 1) + number(2, 3)) + bytes(1, "");
  const std::string good =
      indexOf(record("", kHeader) + record("layer/a", entry(1, {2, 3}, 0, 64, 24)) +
              record("layer/b", entry(7, {3}, 0, 0, 8), 6) +
              record("layer/w", entry(1, {4, 2}, 0, 0, 0) + bytes(7, slice), 6));
  ASSERT_EQ(read(good).entries.size(), 3u);
  int refused = 0;
  const auto attempt = [&](const std::string& file) {
    try {
      read(file);
    } catch (const FormatError&) {
      ++refused;
    }
  };
  for (size_t size = 0; size < good.size(); ++size) attempt(good.substr(0, size));
  EXPECT_EQ(refused, static_cast<int>(good.size()));
  for (size_t at = 0; at < good.size(); ++at) {
    for (int byte = 0; byte < 256; ++byte) {
      std::string changed = good;
      changed[at] = static_cast<char>(byte);
      attempt(changed);
    }
  }
  std::mt19937 random(7);
  for (int i = 0; i < 20000; ++i) {
    std::string changed = good;
    for (int n = 0; n < 4; ++n) changed[random() % changed.size()] = static_cast<char>(random());
    attempt(changed);
  }
  EXPECT_GT(refused, 20000);
}

std::pair<int64_t, std::vector<int64_t>> readStrings(const std::string& data, int64_t count) {
  const std::vector<uint8_t> exact(data.begin(), data.end());
  std::vector<int64_t> offsets(static_cast<size_t>(count) + 1);
  const int64_t begin = readBundleStrings(exact.data(), exact.size(), count, offsets.data());
  return {begin, offsets};
}

TEST(BundleStrings, AreFound) {
  EXPECT_EQ(readStrings(varint(2) + varint(0) + varint(1) + "crc!" + "abc", 3),
            (std::pair<int64_t, std::vector<int64_t>>{7, {0, 2, 2, 3}}));
  EXPECT_EQ(readStrings("crc!", 0), (std::pair<int64_t, std::vector<int64_t>>{4, {0}}));
}

TEST(BundleStrings, LengthsThatDoNotFitAreRefused) {
  for (const auto& [data, count] : std::vector<std::pair<std::string, int64_t>>{
           {"", 1},
           {varint(100) + "crc!abc", 1},
           {varint(2) + "crc!abc", 1},
           {varint(4) + "crc!abc", 1},
           {varint(3) + "crc", 1},
           {varint(UINT64_MAX) + "crc!abc", 1},
           {varint(7) + varint(UINT64_MAX - 3) + "crc!abc", 2},
           {std::string(12, '\xff'), 1},
           {"", 0}}) {
    expectError(ErrorCode::kCheckpoint, {"expected"},
                [&, &d = data, &c = count] { readStrings(d, c); });
  }
}

TEST(WireReader, VarintsHaveTenBytesAtMost) {
  const auto read_one = [](const std::string& data, uint64_t* out) {
    const std::vector<uint8_t> exact(data.begin(), data.end());
    WireReader reader(exact.data(), exact.size());
    return reader.varint(out);
  };
  uint64_t value = 0;
  EXPECT_TRUE(read_one(varint(UINT64_MAX), &value));
  EXPECT_EQ(value, UINT64_MAX);
  EXPECT_FALSE(read_one(std::string(9, '\xff') + "\x02", &value));
  EXPECT_FALSE(read_one(std::string(10, '\xff') + "\x01", &value));
  EXPECT_FALSE(read_one("\x80", &value));
}

}  // namespace
}  // namespace tensor_bridge::testing
