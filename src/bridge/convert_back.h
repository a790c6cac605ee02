// The way back: a torch tensor becomes a TensorFlow tensor. Its copy policy is decided here and
// nowhere else. Not for: knowing either framework.
#ifndef TENSOR_BRIDGE_BRIDGE_CONVERT_BACK_H_
#define TENSOR_BRIDGE_BRIDGE_CONVERT_BACK_H_

#include "adapters/tensorflow/tf_api.h"
#include "core/torch_adapter.h"
#include "tensor_bridge/c_api.h"

namespace tensor_bridge {

enum class BackAction {
  kSame,    // TensorFlow's own tensor, which torch still shows unwritten
  kShare,   // torch's bytes; the next write moves torch away
  kCopy,    // TensorFlow's own memory, filled in one pass
  kEncode,  // like kCopy, into a dtype that torch lacks; every value is checked
};

struct BackPlan {
  BackAction action;
  Dtype dtype;         // of the result
  bool check_range;    // kShare: the bytes must be values of `dtype`
  bool never_copy;     // kShare: fail rather than copy if another thread is writing
  bool detached;       // the tensor requires grad; its values go alone
  const char* reason;  // one sentence for explain()
};

const tb_convert_back_options& checkedBackOptions(const tb_convert_back_options* options);

/// Decides; throws the Error with which the conversion is refused.
BackPlan decideBack(const TorchFacts& facts, const tb_convert_back_options& options,
                    const TorchAdapter& adapter);

/// Carries a plan out. The caller deletes the result. Needs no GIL.
TF_Tensor* executeBack(tb_torch_tensor* tensor, const TorchFacts& facts, const BackPlan& plan,
                       const TfApi& api, const TorchAdapter& adapter);

/// For an eager result: the handle itself where the tensor still shows one (kSame), else null. The
/// caller deletes it.
TFE_TensorHandle* sameHandle(const TorchFacts& facts, const BackPlan& plan, const TfApi& api);

/// decideBack() for the explanation. Never throws for a tensor that is refused.
void explainBack(const TorchFacts& facts, const tb_convert_back_options* options,
                 const TorchAdapter& adapter, tb_explanation* out) noexcept;

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_BRIDGE_CONVERT_BACK_H_
