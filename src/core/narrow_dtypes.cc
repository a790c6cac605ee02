#include "core/narrow_dtypes.h"

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>

namespace tensor_bridge {
namespace {

// TensorFlow stores the low bits only, so the sign bit is repeated upwards. The upper bits of the
// byte are ignored, as TensorFlow's own kernels ignore them.
template <int kBits>
constexpr std::array<int8_t, 256> signExtended() {
  std::array<int8_t, 256> table{};
  for (int byte = 0; byte < 256; ++byte) {
    const int low = byte & ((1 << kBits) - 1);
    table[static_cast<size_t>(byte)] =
        static_cast<int8_t>(low >= (1 << (kBits - 1)) ? low - (1 << kBits) : low);
  }
  return table;
}

// float8_e4m3b11fnuz (ml_dtypes): sign, 4 exponent bits with bias 11, 3 mantissa bits; 0x80 is the
// only NaN, there is no infinity and no -0. In IEEE half precision (bias 15) every value is exact:
// normal exponents -10..4 lie inside -14..15, and the smallest subnormal is 2^-13.
constexpr uint16_t halfFromE4M3B11(unsigned byte) {
  if (byte == 0x80) return 0x7e00;  // quiet NaN
  const unsigned sign = (byte >> 7) << 15;
  const unsigned exponent = (byte >> 3) & 15;
  unsigned mantissa = byte & 7;
  if (exponent != 0) return static_cast<uint16_t>(sign | (exponent + 4) << 10 | mantissa << 7);
  if (mantissa == 0) return 0;
  // Subnormal: mantissa * 2^-13, normalised.
  unsigned shift = 0;
  while ((mantissa & 8) == 0) {
    mantissa <<= 1;
    ++shift;
  }
  return static_cast<uint16_t>(sign | (5 - shift) << 10 | (mantissa & 7) << 7);
}

constexpr std::array<uint16_t, 256> e4m3b11Table() {
  std::array<uint16_t, 256> table{};
  for (unsigned byte = 0; byte < 256; ++byte) table[byte] = halfFromE4M3B11(byte);
  return table;
}

// float4_e2m1fn (OCP Microscaling Formats, section 5.3.3): no NaN, no infinity.
constexpr std::array<float, 256> e2m1Table() {
  constexpr float kMagnitudes[8] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
  std::array<float, 256> table{};
  for (unsigned byte = 0; byte < 256; ++byte) {
    const float magnitude = kMagnitudes[byte & 7];
    table[byte] = (byte & 8) != 0 ? -magnitude : magnitude;
  }
  return table;
}

alignas(64) constexpr auto kInt4 = signExtended<4>();
alignas(64) constexpr auto kInt2 = signExtended<2>();
alignas(64) constexpr auto kE4M3B11 = e4m3b11Table();
alignas(64) constexpr auto kE2M1 = e2m1Table();

}  // namespace

const void* lookupTable(Dtype dtype) noexcept {
  switch (dtype) {
    case Dtype::kInt4:
      return kInt4.data();
    case Dtype::kInt2:
      return kInt2.data();
    case Dtype::kFloat8E4M3B11FNUZ:
      return kE4M3B11.data();
    case Dtype::kFloat4E2M1FN:
      return kE2M1.data();
    default:
      return nullptr;
  }
}

namespace {

struct IntegerRange {
  int64_t low;
  int64_t high;
  uint8_t mask;
};

bool integerRange(Dtype dtype, IntegerRange* range) noexcept {
  switch (dtype) {
    case Dtype::kInt4:
      *range = {-8, 7, 15};
      return true;
    case Dtype::kUInt4:
      *range = {0, 15, 15};
      return true;
    case Dtype::kInt2:
      *range = {-2, 1, 3};
      return true;
    case Dtype::kUInt2:
      *range = {0, 3, 3};
      return true;
    default:
      return false;
  }
}

double halfToDouble(uint16_t half) {
  const int exponent = (half >> 10) & 31;
  const int mantissa = half & 1023;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return (half & 0x8000) != 0 ? -magnitude : magnitude;
}

// The value of a stored byte of a floating dtype, which may be NaN.
double decoded(Dtype dtype, int byte) {
  if (dtype == Dtype::kFloat4E2M1FN) return kE2M1[static_cast<size_t>(byte)];
  if (byte == 0x80) return std::numeric_limits<double>::quiet_NaN();
  return halfToDouble(kE4M3B11[static_cast<size_t>(byte)]);
}

// The byte of a non-negative value, by binary search: magnitudes grow with the byte.
int encodeMagnitude(Dtype dtype, double magnitude, int last) {
  int low = 0;
  int high = last;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (decoded(dtype, middle) < magnitude) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return decoded(dtype, low) == magnitude ? low : -1;
}

int encodeDouble(Dtype dtype, double value) {
  const bool wide = dtype == Dtype::kFloat8E4M3B11FNUZ;
  if (std::isnan(value)) return wide ? 0x80 : -1;
  const int byte = encodeMagnitude(dtype, std::fabs(value), wide ? 127 : 7);
  if (byte < 0 || !std::signbit(value)) return byte;
  // e4m3b11fnuz has one zero; float4 has two.
  if (wide) return byte == 0 ? 0 : byte | 0x80;
  return byte | 8;
}

}  // namespace

bool encodesDoubles(Dtype dtype) noexcept {
  return dtype == Dtype::kFloat8E4M3B11FNUZ || dtype == Dtype::kFloat4E2M1FN;
}

int64_t encode(Dtype dtype, const void* values, int64_t count, uint8_t* bytes) noexcept {
  IntegerRange range;
  if (integerRange(dtype, &range)) {
    const auto* integers = static_cast<const int64_t*>(values);
    for (int64_t i = 0; i < count; ++i) {
      if (integers[i] < range.low || integers[i] > range.high) return i;
      bytes[i] = static_cast<uint8_t>(integers[i]) & range.mask;
    }
    return -1;
  }
  const auto* doubles = static_cast<const double*>(values);
  for (int64_t i = 0; i < count; ++i) {
    const int byte = encodeDouble(dtype, doubles[i]);
    if (byte < 0) return i;
    bytes[i] = static_cast<uint8_t>(byte);
  }
  return -1;
}

const char* valueRange(Dtype dtype) noexcept {
  switch (dtype) {
    case Dtype::kInt4:
      return "integers from -8 to 7";
    case Dtype::kUInt4:
      return "integers from 0 to 15";
    case Dtype::kInt2:
      return "integers from -2 to 1";
    case Dtype::kUInt2:
      return "integers from 0 to 3";
    case Dtype::kFloat4E2M1FN:
      return "0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives";
    case Dtype::kFloat8E4M3B11FNUZ:
      return "values up to 30 with 3 bits of mantissa, and NaN";
    default:
      return "";
  }
}

}  // namespace tensor_bridge
