// Tables of several blocks: iteration over all records.

#include "formats/table.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "support/expect_error.h"
#include "support/tables.h"

namespace tensor_bridge::testing {
namespace {

std::vector<uint8_t> exactly(const std::string& file) { return {file.begin(), file.end()}; }

std::string textOf(WireReader value) {
  return std::string(reinterpret_cast<const char*>(value.next()), value.left());
}

// Two blocks, the second one packed: a, ab and b, bcd.
std::string twoBlocks() {
  const std::string first = block(record("a", "1") + record("ab", "22", 1));
  const std::string second = stored(packed(contents(record("b", "3") + record("bcd", "", 1))), 1);
  return tableOf(first + second, record("ab", handle(0, first.size() - 5)) +
                                     record("c", handle(first.size(), second.size() - 5)));
}

TEST(Table, RecordsComeInTheirOrder) {
  const std::vector<uint8_t> file = exactly(twoBlocks());
  TableReader table(file.data(), file.size());
  std::string all;
  while (table.next()) all += table.key() + "=" + textOf(table.value()) + " ";
  EXPECT_EQ(all, "a=1 ab=22 b=3 bcd= ");
  EXPECT_FALSE(table.next());
  EXPECT_EQ(table.unpackedBytes(), contents(record("b", "3") + record("bcd", "", 1)).size());
  EXPECT_EQ(table.blocks().size(), 4u);
}

TEST(Table, KeysCannotGrowWithoutBound) {
  std::string key(2000, 'k');
  std::string records = record(key, "");
  for (int i = 0; i < 4000; ++i) {
    key += "k";
    records += record(key, "", key.size() - 1);
  }
  const std::string data = stored(packed(contents(records)), 1);
  for (const std::string& made :
       {indexOf(records), tableOf(data, record("~", handle(0, data.size() - 5)))}) {
    const std::vector<uint8_t> file = exactly(made);
    TableReader table(file.data(), file.size());
    expectError(ErrorCode::kCheckpoint, {"keys of at most"}, [&] {
      while (table.next()) {
      }
    });
  }
}

TEST(Table, PlacesAreThoseOfTheFile) {
  const std::vector<uint8_t> file = exactly(twoBlocks());
  TableReader table(file.data(), file.size());
  ASSERT_TRUE(table.next());
  EXPECT_EQ(table.origin().packed_at, -1);
  EXPECT_EQ(table.origin().offsetOf(table.value().next()), table.value().next() - file.data());
  EXPECT_EQ(table.block().offset, 0u);
  while (table.key() != "b") ASSERT_TRUE(table.next());
  EXPECT_EQ(table.origin().offsetOf(table.value().next()), table.blocks()[3].offset);
  EXPECT_EQ(static_cast<int64_t>(table.block().offset), table.blocks()[3].offset);
}

TEST(Table, WhatSnappyDidNotPackIsRefused) {
  for (const auto& [bytes, part] : std::vector<std::pair<std::string, std::string>>{
           {varint(1 << 30) + "x", "length that they cannot have"},
           {varint(8) + "x", "packed from 8"},
           {packed("xx"), "restart points"}}) {
    const std::string data = stored(bytes, 1);
    const std::vector<uint8_t> file =
        exactly(tableOf(data, record("~", handle(0, data.size() - 5))));
    expectError(ErrorCode::kCheckpoint, {part},
                [&] { TableReader(file.data(), file.size()).next(); });
  }
}

}  // namespace
}  // namespace tensor_bridge::testing
