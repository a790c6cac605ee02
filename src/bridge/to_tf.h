// A torch tensor becomes a TensorFlow tensor, according to copy=, grad= and dtype=. Not for:
// knowing either framework.
#ifndef TENSOR_BRIDGE_BRIDGE_TO_TF_H_
#define TENSOR_BRIDGE_BRIDGE_TO_TF_H_

#include <utility>

#include "adapters/tensorflow/handles.h"
#include "adapters/torch_abi.h"
#include "core/owner_counter.h"
#include "tensor_bridge/c_api.h"

namespace tensor_bridge {

enum class ToTfAction {
  kSame,    // TensorFlow's own tensor, which torch still shares, unwritten
  kShare,   // torch's bytes; the next write moves torch away
  kCopy,    // TensorFlow's own memory, filled in one pass
  kEncode,  // like kCopy, into a dtype that torch lacks; every value is checked
};

struct ToTfPlan {
  ToTfAction action;
  Dtype dtype;         // of the result
  bool check_range;    // kShare: the bytes must be values of `dtype`
  int32_t copy;        // TB_COPY_*; kShare: what to do if another thread is writing
  bool detached;       // the tensor requires grad; only its values are converted
  const char* reason;  // one sentence for explain()
};

const tb_convert_back_options& checkedToTfOptions(const tb_convert_back_options* options);

/// Decides; throws the Error of a refused conversion.
ToTfPlan decideToTf(const TorchFacts& facts, const tb_convert_back_options& options,
                    const TorchAdapter& adapter);

/// An adapter's facts about a tensor, with a reference to the foreign memory that it is over: no
/// write makes that memory torch's while the facts live.
class HeldFacts : public TorchFacts {
 public:
  HeldFacts(const TorchAdapter& adapter, tb_torch_tensor* tensor) {
    adapter.describe(tensor, /*hold=*/true, this);
  }
  ~HeldFacts() {
    if (__builtin_expect(foreign_owner == nullptr, 1)) return;
    countOwner(1);
    foreign_release(foreign_owner);
  }
  HeldFacts(const HeldFacts&) = delete;
  HeldFacts& operator=(const HeldFacts&) = delete;
  /// Hands the reference, not yet counted, to the caller; null if there is none.
  void* take() { return std::exchange(foreign_owner, nullptr); }
};

/// Carries a plan out. Needs no GIL.
TfTensor executeToTf(tb_torch_tensor* tensor, HeldFacts* facts, const ToTfPlan& plan,
                     const TfApi& api, const TorchAdapter& adapter);

/// For an eager result: a handle on the buffer that the tensor still shares (kSame), which saves an
/// intermediate TF_Tensor. Null if executeToTf() has to make one.
TfeHandle sameHandle(HeldFacts* facts, const ToTfPlan& plan, const TfApi& api);

/// decideToTf() for the explanation. Never throws for a tensor that is refused.
void explainToTf(const TorchFacts& facts, const tb_convert_back_options* options,
                 const TorchAdapter& adapter, tb_explanation* out) noexcept;

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_BRIDGE_TO_TF_H_
