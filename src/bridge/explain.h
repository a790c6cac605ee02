// explain(): what a conversion would do and why, from the same decision as the conversion.
// Not for: deciding.
#ifndef TENSOR_BRIDGE_BRIDGE_EXPLAIN_H_
#define TENSOR_BRIDGE_BRIDGE_EXPLAIN_H_

#include "bridge/to_torch.h"

namespace tensor_bridge {

/// Fills `out` for a tensor that can be viewed.
void explainView(TensorView* view, const tb_convert_options& options, Source source,
                 tb_explanation* out);

/// Fills `out` as refused with `status` and this thread's error message.
void explainRefused(Dtype dtype, tb_status status, tb_explanation* out) noexcept;

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_BRIDGE_EXPLAIN_H_
