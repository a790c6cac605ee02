// CRC-32C: known values, and the instruction and the table agree.

#include "formats/crc32c.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <vector>

namespace tensor_bridge {
namespace {

TEST(Crc32c, ValuesOfTheStandardAreRight) {
  // RFC 3720, B.4.
  const std::vector<uint8_t> zeros(32, 0);
  const std::vector<uint8_t> ones(32, 0xff);
  std::vector<uint8_t> ascending(32);
  for (size_t i = 0; i < 32; ++i) ascending[i] = static_cast<uint8_t>(i);
  for (const auto function : {crc32c, crc32cByTable}) {
    EXPECT_EQ(function(nullptr, 0, 0), 0U);
    EXPECT_EQ(function(zeros.data(), 32, 0), 0x8a9136aaU);
    EXPECT_EQ(function(ones.data(), 32, 0), 0x62a8ab43U);
    EXPECT_EQ(function(ascending.data(), 32, 0), 0x46dd794eU);
  }
  EXPECT_EQ(maskedCrc32c(0), 0xa282ead8U);
}

TEST(Crc32c, EverySizeAndPlaceIsAsByTable) {
  std::mt19937 random(1);
  std::vector<uint8_t> data(10000);
  for (uint8_t& byte : data) byte = static_cast<uint8_t>(random());
  for (size_t size = 0; size < 9900; size = size < 900 ? size + 1 : size + 97) {
    const size_t begin = random() % 64;
    const uint32_t before = random();
    ASSERT_EQ(crc32c(&data[begin], size, before), crc32cByTable(&data[begin], size, before))
        << size << " bytes from " << begin;
    const size_t cut = size == 0 ? 0 : random() % size;
    ASSERT_EQ(crc32c(&data[begin], size),
              crc32c(&data[begin + cut], size - cut, crc32c(&data[begin], cut)));
  }
}

}  // namespace
}  // namespace tensor_bridge
