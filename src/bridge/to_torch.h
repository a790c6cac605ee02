// Where the adapters meet: a reference to TensorFlow's memory becomes a torch tensor, according to
// copy= and on_write=. Not for: knowing either framework.
#ifndef TENSOR_BRIDGE_BRIDGE_TO_TORCH_H_
#define TENSOR_BRIDGE_BRIDGE_TO_TORCH_H_

#include "adapters/torch_abi.h"
#include "core/tensor_ref.h"
#include "tensor_bridge/c_api.h"

namespace tensor_bridge {

/// The facts about a tensor, besides its view, that the policies need.
enum class Source {
  kTensor,
  kVariable,        // a snapshot of a variable that shares the variable's buffer
  kCopiedVariable,  // a snapshot that TensorFlow copied (copy-on-read after a scatter update)
};

struct Plan {
  WrapSpec spec;
  /// TensorFlow made the copy: torch shares memory with that copy, not with the variable.
  bool copied_by_tensorflow;
  /// One sentence for explain().
  const char* reason;
};

/// The defaults of every option.
const tb_convert_options& defaultOptions() noexcept;

/// `options` or, for null, the defaults; throws Error{kInvalidOption} for values out of range.
const tb_convert_options& checkedOptions(const tb_convert_options* options);

/// Decides; throws the Error of a refused conversion. `view` needs only dtype, shape and device.
Plan decide(const TensorView& view, const tb_convert_options& options, Source source,
            const TorchAdapter& adapter);

/// The plan of a conversion without options in the common case (both frameworks have the dtype,
/// host memory, writes are intercepted): the result of decide(), looked up. Null in other cases.
const WrapSpec* commonPlan(const TensorView& view, const TorchAdapter& adapter) noexcept;

/// Replaces the producer's ordinal of a GPU by torch's; throws Error.
void resolveDevice(TensorView* view, const TorchAdapter& adapter);

/// Before GPU memory is given to a consumer whose streams are not waited for: makes the owner one
/// that may be released at any time. Does nothing without a torch that sees the GPU. Throws Error.
void releaseLater(TensorRef* ref, const TorchAdapter& adapter);

/// Carries out a plan, in a process with or without Python. Takes over the owner on success if the
/// plan shares; otherwise the reference keeps it.
tb_torch_tensor* execute(TensorRef* ref, const Plan& plan, const TorchAdapter& adapter);

/// decide() and execute().
tb_torch_tensor* convert(TensorRef* ref, const tb_convert_options& options, Source source);

/// decide() for the explanation of a tensor that can be viewed.
void explainView(TensorView* view, const tb_convert_options& options, Source source,
                 tb_explanation* out);

/// Fills `out` as refused with `status` and this thread's error message.
void explainRefused(Dtype dtype, tb_status status, tb_explanation* out) noexcept;

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_BRIDGE_TO_TORCH_H_
