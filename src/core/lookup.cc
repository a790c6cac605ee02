#include "core/lookup.h"

#include <array>
#include <cstdint>

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

}  // namespace tensor_bridge
