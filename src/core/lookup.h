// Lookup tables for the one-byte dtypes that torch lacks: the exact value of each stored byte in
// the nearest torch dtype. Not for: dtypes wider than a byte; all of those are shared.
#ifndef TENSOR_BRIDGE_CORE_LOOKUP_H_
#define TENSOR_BRIDGE_CORE_LOOKUP_H_

#include "core/dtype.h"

namespace tensor_bridge {

/// 256 entries of dtypeInfo(dtype).nearest, indexed by the stored byte; null for a dtype that is
/// not kConverted. Static memory.
const void* lookupTable(Dtype dtype) noexcept;

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_CORE_LOOKUP_H_
