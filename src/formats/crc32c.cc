#include "formats/crc32c.h"

#include <algorithm>
#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#define TB_CRC32C_TARGET __attribute__((target("sse4.2")))
#elif defined(__aarch64__) && defined(__linux__)
#include <arm_acle.h>
#include <sys/auxv.h>
#define TB_CRC32C_TARGET __attribute__((target("+crc")))
#endif

namespace tensor_bridge {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78U;  // Castagnoli's, its bits reversed

uint64_t load64(const uint8_t* data) noexcept {
  uint64_t value = 0;
  std::memcpy(&value, data, sizeof value);
  return value;
}

using Table = std::array<uint32_t, 256>;

// tables[k][byte]: the effect of a byte that is followed by k more bytes.
constexpr std::array<Table, 8> byteTables() {
  std::array<Table, 8> tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    tables[0][byte] = crc;
  }
  for (size_t k = 1; k < 8; ++k) {
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t before = tables[k - 1][byte];
      tables[k][byte] = (before >> 8) ^ tables[0][before & 0xff];
    }
  }
  return tables;
}

constexpr std::array<Table, 8> kTables = byteTables();

uint32_t byTable(uint32_t crc, const uint8_t* data, size_t size) noexcept {
  for (; size >= 8; data += 8, size -= 8) {
    const uint64_t value = load64(data) ^ crc;
    crc = 0;
    for (size_t k = 0; k < 8; ++k) crc ^= kTables[7 - k][(value >> (8 * k)) & 0xff];
  }
  for (; size > 0; ++data, --size) crc = (crc >> 8) ^ kTables[0][(crc ^ *data) & 0xff];
  return crc;
}

#ifdef TB_CRC32C_TARGET

// The checksum after `kZeros` more zero bytes. That is a linear function of the checksum, so one
// table for each of its bytes is enough.
template <size_t kZeros>
class AppendedZeros {
 public:
  AppendedZeros() noexcept {
    const std::array<uint8_t, kZeros> zeros{};
    for (size_t place = 0; place < 4; ++place) {
      for (uint32_t byte = 0; byte < 256; ++byte) {
        tables_[place][byte] = byTable(byte << (8 * place), zeros.data(), kZeros);
      }
    }
  }
  uint32_t operator()(uint32_t crc) const noexcept {
    return tables_[0][crc & 0xff] ^ tables_[1][(crc >> 8) & 0xff] ^ tables_[2][(crc >> 16) & 0xff] ^
           tables_[3][crc >> 24];
  }

 private:
  std::array<Table, 4> tables_;
};

#if defined(__x86_64__)
bool hasInstruction() noexcept { return __builtin_cpu_supports("sse4.2") != 0; }
TB_CRC32C_TARGET inline uint32_t step8(uint32_t crc, uint64_t value) noexcept {
  return static_cast<uint32_t>(_mm_crc32_u64(crc, value));
}
TB_CRC32C_TARGET inline uint32_t step1(uint32_t crc, uint8_t value) noexcept {
  return _mm_crc32_u8(crc, value);
}
#else
bool hasInstruction() noexcept { return (getauxval(AT_HWCAP) & (1UL << 7)) != 0; }  // HWCAP_CRC32
TB_CRC32C_TARGET inline uint32_t step8(uint32_t crc, uint64_t value) noexcept {
  return __crc32cd(crc, value);
}
TB_CRC32C_TARGET inline uint32_t step1(uint32_t crc, uint8_t value) noexcept {
  return __crc32cb(crc, value);
}
#endif

// Three blocks of `kBlock` bytes at once: the instruction takes three cycles, but the processor can
// begin a new one in each cycle.
template <size_t kBlock>
TB_CRC32C_TARGET uint32_t threeBlocks(uint32_t crc, const uint8_t* data) noexcept {
  static const AppendedZeros<kBlock> append;
  uint32_t second = 0;
  uint32_t third = 0;
  for (size_t i = 0; i < kBlock; i += 8) {
    crc = step8(crc, load64(data + i));
    second = step8(second, load64(data + kBlock + i));
    third = step8(third, load64(data + 2 * kBlock + i));
  }
  return append(append(crc) ^ second) ^ third;
}

TB_CRC32C_TARGET uint32_t byInstruction(uint32_t crc, const uint8_t* data, size_t size) noexcept {
  constexpr size_t kLarge = 1024;
  constexpr size_t kSmall = 128;
  for (; size >= 3 * kLarge; data += 3 * kLarge, size -= 3 * kLarge) {
    crc = threeBlocks<kLarge>(crc, data);
  }
  for (; size >= 3 * kSmall; data += 3 * kSmall, size -= 3 * kSmall) {
    crc = threeBlocks<kSmall>(crc, data);
  }
  for (; size >= 8; data += 8, size -= 8) crc = step8(crc, load64(data));
  for (; size > 0; ++data, --size) crc = step1(crc, *data);
  return crc;
}

#endif

}  // namespace

uint32_t crc32cByTable(const uint8_t* data, size_t size, uint32_t before) noexcept {
  return ~byTable(~before, data, size);
}

uint32_t crc32c(const uint8_t* data, size_t size, uint32_t before) noexcept {
#ifdef TB_CRC32C_TARGET
  static const bool has_instruction = hasInstruction();
  if (has_instruction) return ~byInstruction(~before, data, size);
#endif
  return crc32cByTable(data, size, before);
}

uint32_t crc32cAhead(const uint8_t* data, size_t size, const void* ahead) noexcept {
  // Requests lines between pieces, so that few requests are outstanding at once. The processor's
  // own prefetching stops at the end of each page.
  constexpr size_t kPiece = 768;
  constexpr size_t kLine = 64;
  constexpr size_t kMostAhead = 4096;
  if (ahead == nullptr) return crc32c(data, size);
  const size_t distance = std::min(size, kMostAhead);
  const auto own = reinterpret_cast<uintptr_t>(data);
  const auto next = reinterpret_cast<uintptr_t>(ahead);
  uint32_t crc = 0;
  for (size_t at = 0; at < size; at += kPiece) {
    const size_t count = std::min(kPiece, size - at);
    for (size_t line = 0; line < count; line += kLine) {
      const size_t place = at + line + distance;
      __builtin_prefetch(reinterpret_cast<void*>(place < size ? own + place : next + place - size));
    }
    crc = crc32c(data + at, count, crc);
  }
  return crc;
}

}  // namespace tensor_bridge
