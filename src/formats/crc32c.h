// CRC-32C, the checksum in TensorFlow's files, by the processor's instruction where there is one.
// Not for: where a file stores checksums.
#ifndef TENSOR_BRIDGE_FORMATS_CRC32C_H_
#define TENSOR_BRIDGE_FORMATS_CRC32C_H_

#include <cstddef>
#include <cstdint>

namespace tensor_bridge {

/// The checksum of `size` bytes that follow bytes whose checksum is `before`.
uint32_t crc32c(const uint8_t* data, size_t size, uint32_t before = 0) noexcept;

/// The same without the processor's instruction, as on machines that lack it.
uint32_t crc32cByTable(const uint8_t* data, size_t size, uint32_t before = 0) noexcept;

/// crc32c() that also prefetches the bytes needed next: the rest of these, then the same number at
/// `ahead`. `ahead` is never accessed: it may be any address, or null.
uint32_t crc32cAhead(const uint8_t* data, size_t size, const void* ahead) noexcept;

/// The form in which a file stores a checksum. Unmasked, the checksum of bytes that contain their
/// own checksum would be weak.
inline uint32_t maskedCrc32c(uint32_t crc) noexcept {
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8U;
}

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_FORMATS_CRC32C_H_
