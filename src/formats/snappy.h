// Snappy's block format: https://github.com/google/snappy/blob/main/format_description.txt
// Not for: packing, and the framing format with its checksums, which TensorFlow's files do not use.
#ifndef TENSOR_BRIDGE_FORMATS_SNAPPY_H_
#define TENSOR_BRIDGE_FORMATS_SNAPPY_H_

#include <cstddef>
#include <cstdint>

namespace tensor_bridge {

/// Reads the unpacked length from `size` packed bytes. False if there is none, or if so few bytes
/// cannot unpack to it: the length is at most 64 / 3 times `size`.
bool snappyLength(const uint8_t* data, size_t size, size_t* length) noexcept;

/// Unpacks into `out`, which has room for `length` bytes, the result of snappyLength(). False
/// unless the packed bytes unpack to exactly that many; then the content of `out` is undefined.
/// Never reads or writes outside the two buffers, for any content.
bool snappyUnpack(const uint8_t* data, size_t size, uint8_t* out, size_t length) noexcept;

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_FORMATS_SNAPPY_H_
