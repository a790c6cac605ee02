// Lookup tables for the one-byte dtypes that torch lacks: the exact value of each stored byte in
// the nearest torch dtype. Not for: dtypes wider than a byte; all of those are shared.
#ifndef TENSOR_BRIDGE_CORE_NARROW_DTYPES_H_
#define TENSOR_BRIDGE_CORE_NARROW_DTYPES_H_

#include <cstdint>

#include "core/dtype.h"

namespace tensor_bridge {

/// 256 entries of dtypeInfo(dtype).nearest, indexed by the stored byte; null for a dtype that is
/// not kConverted. Static memory.
const void* lookupTable(Dtype dtype) noexcept;

/// The inverse: `values` are `count` int64 (integer dtypes) or double (floating dtypes) elements,
/// `bytes` receives TensorFlow's stored form. Returns the index of the first value that `dtype`
/// cannot hold exactly, or -1. `dtype` is one byte wide and has no torch equivalent.
int64_t encode(Dtype dtype, const void* values, int64_t count, uint8_t* bytes) noexcept;

/// Whether encode() takes doubles for `dtype`.
bool encodesDoubles(Dtype dtype) noexcept;

/// The range of values for messages, such as "integers from -8 to 7".
const char* valueRange(Dtype dtype) noexcept;

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_CORE_NARROW_DTYPES_H_
