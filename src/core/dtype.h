// The dtype table as constants: DtypeInfo, lookups by TensorFlow's and torch's numbers.
// Not for: holding rows; they are in dtype_table.def.
#ifndef TENSOR_BRIDGE_CORE_DTYPE_H_
#define TENSOR_BRIDGE_CORE_DTYPE_H_

#include <cstddef>
#include <cstdint>

#include "dlpack/dlpack.h"

namespace tensor_bridge {

enum class Dtype : uint8_t {
#define TB_DTYPE(id, ...) k##id,
#include "core/dtype_table.def"
#undef TB_DTYPE
  kCount,
  kUnknown = 255,
};

enum class DtypeKind : uint8_t { kShared, kViewed, kConverted, kQuantized, kRefused, kTorchOnly };

struct DtypeInfo {
  const char* name;
  const char* torch_name;
  const char* reason;
  int16_t tf_enum;
  int16_t torch_scalar;
  uint8_t itemsize;
  DtypeKind kind;
  Dtype nearest;
  DLDataType dl;  // code 255: DLPack cannot say it
};

namespace detail {
extern const DtypeInfo kDtypeTable[];
}

/// Rows in the order of the table, without a bounds check.
inline const DtypeInfo& dtypeInfo(Dtype dtype) noexcept {
  return detail::kDtypeTable[static_cast<size_t>(dtype)];
}

/// kUnknown for a number that the table lacks (a newer TensorFlow, TF1's _REF dtypes).
Dtype dtypeFromTf(int tf_enum) noexcept;
Dtype dtypeFromTorch(int torch_scalar) noexcept;

const char* dtypeKindName(DtypeKind kind) noexcept;

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_CORE_DTYPE_H_
