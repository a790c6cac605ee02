// From a torch tensor to a TensorView, through const pointers only: nothing is materialised.
// Not for: deciding whether TensorFlow may share it.
#ifndef TENSOR_BRIDGE_ADAPTERS_TORCH_EXPORT_H_
#define TENSOR_BRIDGE_ADAPTERS_TORCH_EXPORT_H_

#include <ATen/core/Tensor.h>

#include "core/torch_adapter.h"

namespace tensor_bridge {

/// Views `tensor`'s memory; `view->owner` is a reference to the tensor. Throws c10::Error for a
/// tensor without dense memory of its own (sparse, meta, functorch).
void viewTensor(const at::Tensor& tensor, int64_t* shape, int64_t* strides, TensorView* view);

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TORCH_EXPORT_H_
