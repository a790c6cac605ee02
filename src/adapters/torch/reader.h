// From a torch tensor: a TensorRef to its memory, the facts from which the bridge decides whether
// TensorFlow may share it, and copies of its elements. Nothing here materialises a storage.
// Not for: deciding.
#ifndef TENSOR_BRIDGE_ADAPTERS_TORCH_READER_H_
#define TENSOR_BRIDGE_ADAPTERS_TORCH_READER_H_

#include <ATen/core/Tensor.h>

#include "adapters/torch_abi.h"

namespace tensor_bridge {

/// Refers to `tensor`'s memory; the owner is a reference to the tensor. Throws c10::Error for a
/// tensor without dense memory of its own (sparse, meta, functorch), one whose values are computed
/// when read (lazy conjugate, negation, zero), and one of more than kMaxDims dimensions.
void referTo(const at::Tensor& tensor, int64_t* shape, int64_t* strides, TensorRef* ref);

/// Fills `facts`; changes nothing.
void describeTensor(const at::Tensor& tensor, bool hold, TorchFacts* facts) noexcept;

/// Writes the elements row-major to `out` as `type`. One pass.
void copyElements(const at::Tensor& tensor, c10::ScalarType type, void* out);

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TORCH_READER_H_
