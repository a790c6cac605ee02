// The torch column of the dtype table as c10::ScalarType. Not for: TensorFlow's column.
#ifndef TENSOR_BRIDGE_ADAPTERS_TORCH_TORCH_DTYPE_H_
#define TENSOR_BRIDGE_ADAPTERS_TORCH_TORCH_DTYPE_H_

#include <c10/core/ScalarType.h>

#include "core/dtype.h"

namespace tensor_bridge {

/// The row must have a torch dtype.
c10::ScalarType scalarType(Dtype dtype) noexcept;

/// kUnknown for a torch dtype that the table lacks.
Dtype dtypeFromScalarType(c10::ScalarType type) noexcept;

DLDataType dlDataType(Dtype dtype) noexcept;

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TORCH_TORCH_DTYPE_H_
