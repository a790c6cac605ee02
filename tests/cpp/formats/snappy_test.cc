// Packed bytes made element by element: what they unpack to, and nothing else is accepted.

#include "formats/snappy.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "support/tables.h"

namespace tensor_bridge::testing {
namespace {

// A number of `size` little-endian bytes.
std::string little(uint64_t value, size_t size) {
  std::string out;
  for (size_t i = 0; i < size; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
  return out;
}

// A literal whose length takes `size` bytes; with 0 the length is in the tag.
std::string literal(const std::string& bytes, size_t size) {
  const uint64_t upper = size == 0 ? bytes.size() - 1 : 59 + size;
  return little(upper << 2, 1) + little(bytes.size() - 1, size) + bytes;
}

// A copy whose offset takes `size` bytes: 1 (with three bits of the tag), 2 or 4.
std::string copy(size_t length, size_t offset, size_t size) {
  if (size == 1) {
    return little((offset >> 8) << 5 | (length - 4) << 2 | 1, 1) + little(offset, 1);
  }
  return little((length - 1) << 2 | (size == 2 ? 2 : 3), 1) + little(offset, size);
}

// In blocks of exactly their size, so that AddressSanitizer sees accesses beyond them.
std::optional<std::string> unpack(const std::string& data) {
  const std::vector<uint8_t> exact(data.begin(), data.end());
  size_t length = 0;
  if (!snappyLength(exact.data(), exact.size(), &length)) return std::nullopt;
  EXPECT_LE(length, exact.size() * 64 / 3);
  std::vector<uint8_t> out(length);
  if (!snappyUnpack(exact.data(), exact.size(), out.data(), length)) return std::nullopt;
  return std::string(out.begin(), out.end());
}

TEST(Snappy, EveryElementIsUnpacked) {
  const std::string text = "0123456789abcdefghij";
  EXPECT_EQ(unpack(varint(0)), "");
  for (const size_t size : {0, 1, 2, 3, 4}) {
    EXPECT_EQ(unpack(varint(20) + literal(text, size)), text);
  }
  for (const size_t size : {1, 2, 4}) {
    EXPECT_EQ(unpack(varint(27) + literal(text, 0) + copy(7, 13, size)), text + "789abcd");
    // The copy reads bytes that it has written itself.
    EXPECT_EQ(unpack(varint(29) + literal(text, 0) + copy(9, 2, size)), text + "ijijijiji");
    EXPECT_EQ(unpack(varint(24) + literal(text, 0) + copy(4, 20, size)), text + "0123");
  }
  EXPECT_EQ(unpack(varint(65) + literal("x", 0) + copy(64, 1, 2)), std::string(65, 'x'));
  EXPECT_EQ(unpack(packed(std::string(1000, 'y'))), std::string(1000, 'y'));
}

TEST(Snappy, OffsetsOfElevenAndMoreBitsAreExact) {
  std::string text;
  std::mt19937 random(3);
  for (int i = 0; i < 70000; ++i) text.push_back(static_cast<char>(random()));
  for (const auto& [offset, size] : std::vector<std::pair<size_t, size_t>>{
           {255, 1}, {256, 1}, {2047, 1}, {2048, 2}, {65535, 2}, {65536, 4}, {70000, 4}}) {
    EXPECT_EQ(unpack(varint(text.size() + 8) + literal(text, 4) + copy(8, offset, size)),
              text + text.substr(text.size() - offset, 8));
  }
}

TEST(Snappy, WhatIsNoneIsRefused) {
  const std::string four = literal("wxyz", 0);
  for (const std::string& wrong : std::vector<std::string>{
           "",                                // no length
           std::string(5, '\xff') + "\x01",   // a length of more than 32 bits
           varint(4),                         // nothing behind it
           varint(5) + four,                  // too little
           varint(3) + four,                  // too much
           varint(8) + four + copy(4, 5, 1),  // before the beginning
           varint(8) + four + copy(4, 0, 2),  // of nothing
           varint(4) + copy(4, 1, 1),         // at the beginning
           varint(7) + four + copy(4, 4, 2),  // a copy beyond the length
           varint(8) + four + "\x01",         // half an element
           varint(8) + four + std::string("\x0e\x04", 2),
           varint(8) + four + std::string("\x0f\x04\0\0", 4),
           varint(8) + std::string("\x1cwxyz", 5),
           varint(8) + std::string("\xfc\xff\xff\xff", 4),
           varint(8) + std::string("\xfc\xff\xff\xff\xff", 5) + "wxyz",
       }) {
    EXPECT_EQ(unpack(wrong), std::nullopt) << wrong;
  }
}

TEST(Snappy, LengthsThatCannotBeAreRefusedBeforeTheyAreTaken) {
  size_t length = 0;
  const auto declares = [&](uint64_t size, size_t behind) {
    const std::string data = varint(size) + std::string(behind, '\0');
    return snappyLength(reinterpret_cast<const uint8_t*>(data.data()), data.size(), &length);
  };
  EXPECT_TRUE(declares(64, 3));
  EXPECT_FALSE(declares(65, 3));
  EXPECT_FALSE(declares(UINT32_MAX, 100000));
  EXPECT_FALSE(declares(1, 0));
}

// Random bytes, and good bytes with some of them changed.
TEST(Snappy, DamageIsNeverFollowed) {
  const std::string good = varint(109) + literal("0123456789abcdefghij", 0) + copy(9, 2, 1) +
                           copy(60, 20, 2) + copy(20, 89, 4);
  ASSERT_TRUE(unpack(good).has_value());
  std::mt19937 random(5);
  int refused = 0;
  for (int i = 0; i < 50000; ++i) {
    std::string changed = good;
    for (int n = 0; n < 3; ++n) changed[random() % changed.size()] = static_cast<char>(random());
    refused += unpack(changed).has_value() ? 0 : 1;
  }
  EXPECT_GT(refused, 10000);
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_EQ(unpack(good.substr(0, size)), std::nullopt);
  }
}

}  // namespace
}  // namespace tensor_bridge::testing
