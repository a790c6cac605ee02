// Tables of several blocks: the walk over all records, and the way to one.

#include "formats/table.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "support/expect_error.h"
#include "support/tables.h"

namespace tensor_bridge {
namespace {

using namespace testing;  // NOLINT: what tables are made of

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

TEST(Table, OneRecordIsFound) {
  const std::vector<uint8_t> file = exactly(twoBlocks());
  TableReader table(file.data(), file.size());
  for (const auto& [key, value] : std::vector<std::pair<std::string, std::string>>{
           {"bcd", ""}, {"a", "1"}, {"b", "3"}, {"ab", "22"}}) {
    ASSERT_TRUE(table.seek(key)) << key;
    EXPECT_EQ(table.key(), key);
    EXPECT_EQ(textOf(table.value()), value);
  }
  for (const char* key : {"", "aa", "abc", "bc", "bcde", "c", "d"}) EXPECT_FALSE(table.seek(key));
}

TEST(Table, PlacesAreThoseOfTheFile) {
  const std::vector<uint8_t> file = exactly(twoBlocks());
  TableReader table(file.data(), file.size());
  ASSERT_TRUE(table.seek("ab"));
  EXPECT_EQ(table.origin().packed_at, -1);
  EXPECT_EQ(table.origin().offsetOf(table.value().next()), table.value().next() - file.data());
  ASSERT_TRUE(table.seek("b"));
  EXPECT_EQ(table.origin().offsetOf(table.value().next()), table.blocks()[3].offset);
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
    expectError(ErrorCode::kCheckpoint, {part},
                [&] { TableReader(file.data(), file.size()).seek("a"); });
  }
}

}  // namespace
}  // namespace tensor_bridge
