// From a TensorView to a torch tensor: sharing, copying, converting, quantized, Python object.
// Not for: deciding which of these (bridge says it in a WrapSpec).
#ifndef TENSOR_BRIDGE_ADAPTERS_TORCH_MAKER_H_
#define TENSOR_BRIDGE_ADAPTERS_TORCH_MAKER_H_

#include <ATen/core/Tensor.h>

#include "adapters/torch_abi.h"

namespace tensor_bridge {

/// A tensor that shows the view's memory. With `take` the view's owner is taken over in any case,
/// also when this throws; otherwise the tensor has no owner yet and attachOwner() comes last.
at::Tensor shareView(const TensorView& view, const WrapSpec& spec, bool take);

/// A tensor in torch's own memory with the view's values, converted or moved as `spec` says.
at::Tensor copyView(const TensorView& view, const WrapSpec& spec);

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TORCH_MAKER_H_
