// Snappy's block format: https://github.com/google/snappy/blob/main/format_description.txt
// Not for: packing, and the framing format with its checksums; no file of TensorFlow's has it.
#ifndef TENSOR_BRIDGE_FORMATS_SNAPPY_H_
#define TENSOR_BRIDGE_FORMATS_SNAPPY_H_

#include <cstddef>
#include <cstdint>

namespace tensor_bridge {

/// The length that `size` packed bytes say they have unpacked. False if there is none, or one that
/// so few bytes cannot have: a true result is at most 64 / 3 times `size`.
bool snappyLength(const uint8_t* data, size_t size, size_t* length) noexcept;

/// Unpacks into `out`, which has room for `length` bytes, the result of snappyLength(). False
/// unless the packed bytes make up exactly that many; what `out` holds is undefined then. Neither
/// reads nor writes outside of the two, whatever the bytes are.
bool snappyUnpack(const uint8_t* data, size_t size, uint8_t* out, size_t length) noexcept;

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_FORMATS_SNAPPY_H_
