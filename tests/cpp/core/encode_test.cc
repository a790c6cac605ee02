// encode(): values as the bytes that TensorFlow stores, the inverse of the lookup tables.

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "core/narrow_dtypes.h"

namespace tensor_bridge {
namespace {

struct IntegerFormat {
  Dtype dtype;
  int64_t low;
  int64_t high;
  uint8_t mask;
};
constexpr IntegerFormat kIntegers[] = {
    {Dtype::kInt4, -8, 7, 0x0f},
    {Dtype::kUInt4, 0, 15, 0x0f},
    {Dtype::kInt2, -2, 1, 0x03},
    {Dtype::kUInt2, 0, 3, 0x03},
};

TEST(Encode, IntegersKeepTheirLowBitsAndNoOthers) {
  for (const IntegerFormat& format : kIntegers) {
    EXPECT_FALSE(encodesDoubles(format.dtype));
    for (int64_t value = format.low; value <= format.high; ++value) {
      uint8_t byte = 0xff;
      EXPECT_EQ(encode(format.dtype, &value, 1, &byte), -1) << value;
      EXPECT_EQ(byte, static_cast<uint8_t>(value) & format.mask) << value;
    }
  }
}

TEST(Encode, SignedIntegersComeBack) {
  for (Dtype dtype : {Dtype::kInt4, Dtype::kInt2}) {
    const auto* table = static_cast<const int8_t*>(lookupTable(dtype));
    for (int64_t value = -8; value <= 7; ++value) {
      uint8_t byte = 0;
      if (encode(dtype, &value, 1, &byte) == -1) {
        EXPECT_EQ(table[byte], value);
      }
    }
  }
}

TEST(Encode, IntegersOutOfRangeAreNamedByTheirIndex) {
  for (const IntegerFormat& format : kIntegers) {
    for (int64_t bad : {format.low - 1, format.high + 1, std::numeric_limits<int64_t>::max(),
                        std::numeric_limits<int64_t>::min()}) {
      const int64_t values[] = {format.low, format.high, bad, bad};
      uint8_t bytes[4] = {};
      EXPECT_EQ(encode(format.dtype, values, 4, bytes), 2) << bad;
    }
  }
}

TEST(Encode, EveryFloat8ComesBack) {
  EXPECT_TRUE(encodesDoubles(Dtype::kFloat8E4M3B11FNUZ));
  for (int byte = 0; byte < 256; ++byte) {
    // Sign, 4 bits of exponent with bias 11, 3 of mantissa.
    const int exponent = byte >> 3 & 15;
    const int mantissa = byte & 7;
    double value =
        exponent == 0 ? std::ldexp(mantissa, -13) : std::ldexp(8 + mantissa, exponent - 11 - 3);
    if (byte > 0x80) value = -value;
    if (byte == 0x80) value = std::numeric_limits<double>::quiet_NaN();
    uint8_t encoded = 0;
    EXPECT_EQ(encode(Dtype::kFloat8E4M3B11FNUZ, &value, 1, &encoded), -1) << byte;
    EXPECT_EQ(encoded, byte);
  }
}

TEST(Encode, Float8HasOneZero) {
  const double value = -0.0;
  uint8_t byte = 0xff;
  EXPECT_EQ(encode(Dtype::kFloat8E4M3B11FNUZ, &value, 1, &byte), -1);
  EXPECT_EQ(byte, 0);
}

TEST(Encode, EveryFloat4ComesBack) {
  EXPECT_TRUE(encodesDoubles(Dtype::kFloat4E2M1FN));
  const auto* table = static_cast<const float*>(lookupTable(Dtype::kFloat4E2M1FN));
  for (int byte = 0; byte < 16; ++byte) {
    const double value = table[byte];
    uint8_t encoded = 0xff;
    EXPECT_EQ(encode(Dtype::kFloat4E2M1FN, &value, 1, &encoded), -1);
    EXPECT_EQ(encoded, byte);
  }
}

TEST(Encode, FloatsThatAreNotExactAreRefused) {
  const double inf = std::numeric_limits<double>::infinity();
  for (double bad : {0.1, 31.0, 32.0, -31.0, 1.0625, 6e-5, inf, -inf}) {
    uint8_t byte = 0;
    EXPECT_EQ(encode(Dtype::kFloat8E4M3B11FNUZ, &bad, 1, &byte), 0) << bad;
  }
  for (double bad : {0.25, 5.0, 6.5, -7.0, inf, std::nan("")}) {
    uint8_t byte = 0;
    EXPECT_EQ(encode(Dtype::kFloat4E2M1FN, &bad, 1, &byte), 0) << bad;
  }
}

TEST(Encode, NothingIsNoError) { EXPECT_EQ(encode(Dtype::kInt4, nullptr, 0, nullptr), -1); }

TEST(Encode, MessagesNameTheRange) {
  for (Dtype dtype : {Dtype::kInt4, Dtype::kUInt4, Dtype::kInt2, Dtype::kUInt2,
                      Dtype::kFloat4E2M1FN, Dtype::kFloat8E4M3B11FNUZ}) {
    EXPECT_STRNE(valueRange(dtype), "");
  }
}

}  // namespace
}  // namespace tensor_bridge
