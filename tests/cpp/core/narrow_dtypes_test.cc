// Every byte of every lookup table against the format's definition, computed in another way: with
// ldexp from the fields. Entries in half precision are decoded in the same way.

#include "core/narrow_dtypes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace tensor_bridge {
namespace {

struct Format {
  int exponent_bits;
  int mantissa_bits;
  int bias;
};

// The value of a float with these fields, in a format without infinity and NaN.
double decode(unsigned bits, Format format) {
  const unsigned mantissa = bits & ((1u << format.mantissa_bits) - 1);
  const unsigned exponent = bits >> format.mantissa_bits & ((1u << format.exponent_bits) - 1);
  const bool negative = (bits >> (format.mantissa_bits + format.exponent_bits) & 1) != 0;
  const double significand =
      exponent == 0 ? mantissa : mantissa + std::ldexp(1, format.mantissa_bits);
  const int scale = static_cast<int>(exponent == 0 ? 1 : exponent) - format.bias;
  const double magnitude = std::ldexp(significand, scale - format.mantissa_bits);
  return negative ? -magnitude : magnitude;
}

double decodeHalf(uint16_t bits) {
  if ((bits & 0x7c00) == 0x7c00) {
    return (bits & 0x3ff) != 0 ? std::numeric_limits<double>::quiet_NaN()
                               : std::copysign(HUGE_VAL, bits >> 15 ? -1.0 : 1.0);
  }
  return decode(bits, {5, 10, 15});
}

template <typename Element>
const Element* table(Dtype dtype) {
  return static_cast<const Element*>(lookupTable(dtype));
}

// Two's complement, bit by bit: the highest bit counts negatively.
int twosComplement(int byte, int bits) {
  int value = (byte >> (bits - 1) & 1) != 0 ? -(1 << (bits - 1)) : 0;
  for (int bit = 0; bit < bits - 1; ++bit) value += (byte >> bit & 1) << bit;
  return value;
}

TEST(Lookup, Int4IsSignExtendedFromTheLowNibble) {
  for (int byte = 0; byte < 256; ++byte) {
    EXPECT_EQ(table<int8_t>(Dtype::kInt4)[byte], twosComplement(byte, 4)) << byte;
  }
  EXPECT_EQ(table<int8_t>(Dtype::kInt4)[0x0f], -1);
  EXPECT_EQ(table<int8_t>(Dtype::kInt4)[0x08], -8);
  EXPECT_EQ(table<int8_t>(Dtype::kInt4)[0x07], 7);
}

TEST(Lookup, Int2IsSignExtendedFromTheLowTwoBits) {
  for (int byte = 0; byte < 256; ++byte) {
    EXPECT_EQ(table<int8_t>(Dtype::kInt2)[byte], twosComplement(byte, 2)) << byte;
  }
  EXPECT_EQ(table<int8_t>(Dtype::kInt2)[0x03], -1);
  EXPECT_EQ(table<int8_t>(Dtype::kInt2)[0x02], -2);
}

TEST(Lookup, Float8E4M3B11FnuzIsExactInHalfPrecision) {
  for (unsigned byte = 0; byte < 256; ++byte) {
    const double got = decodeHalf(table<uint16_t>(Dtype::kFloat8E4M3B11FNUZ)[byte]);
    if (byte == 0x80) {
      EXPECT_TRUE(std::isnan(got)) << "0x80 is the one NaN";
    } else {
      EXPECT_EQ(got, decode(byte, {4, 3, 11})) << byte;
      EXPECT_EQ(std::signbit(got), byte > 0x80) << byte << ": there is no negative zero";
    }
  }
  const uint16_t* half = table<uint16_t>(Dtype::kFloat8E4M3B11FNUZ);
  EXPECT_EQ(decodeHalf(half[0x7f]), 30.0) << "the largest";
  EXPECT_EQ(decodeHalf(half[0x01]), std::ldexp(1, -13)) << "the smallest";
  EXPECT_EQ(decodeHalf(half[0x58]), 1.0);
}

TEST(Lookup, Float4E2M1IsExactAndIgnoresTheHighNibble) {
  for (unsigned byte = 0; byte < 256; ++byte) {
    const float got = table<float>(Dtype::kFloat4E2M1FN)[byte];
    EXPECT_EQ(got, decode(byte & 15, {2, 1, 1})) << byte;
    EXPECT_EQ(std::signbit(got), (byte & 8) != 0) << byte << ": it has a negative zero";
  }
  EXPECT_EQ(table<float>(Dtype::kFloat4E2M1FN)[0x07], 6.0f);
  EXPECT_EQ(table<float>(Dtype::kFloat4E2M1FN)[0x0a], -1.0f);
  EXPECT_EQ(table<float>(Dtype::kFloat4E2M1FN)[0x01], 0.5f);
}

}  // namespace
}  // namespace tensor_bridge
