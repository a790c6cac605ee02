// From a TensorRef to a torch tensor: sharing, copying, converting, quantized, Python object.
// Not for: deciding which of these; the bridge passes a WrapSpec.
#ifndef TENSOR_BRIDGE_ADAPTERS_TORCH_MAKER_H_
#define TENSOR_BRIDGE_ADAPTERS_TORCH_MAKER_H_

#include <ATen/core/Tensor.h>

#include "adapters/torch_abi.h"

namespace tensor_bridge {

/// A tensor over the memory of `ref`. With `take` the owner is taken over, and released if
/// this throws after that; otherwise the tensor has no owner yet and attachOwner() comes last.
at::Tensor sharedTensor(TensorRef* ref, const WrapSpec& spec, bool take);

/// A tensor in torch's own memory with the view's values, converted or moved according to `spec`.
at::Tensor copiedTensor(const TensorView& view, const WrapSpec& spec);

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TORCH_MAKER_H_
