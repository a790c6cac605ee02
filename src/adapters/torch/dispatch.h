// Dispatch keys. BelowModes: torch operators called from here skip the caller's autograd, Python
// dispatch modes and functorch transforms. ordinaryCpuKeys: the keys of most tensors.
// Not for: operators that a user asked for.
#ifndef TENSOR_BRIDGE_ADAPTERS_TORCH_DISPATCH_H_
#define TENSOR_BRIDGE_ADAPTERS_TORCH_DISPATCH_H_

#include <ATen/EmptyTensor.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

namespace tensor_bridge {

class BelowModes {
 private:
  at::AutoDispatchBelowADInplaceOrView below_autograd_;
  c10::impl::ExcludeDispatchKeyGuard without_modes_{
      c10::DispatchKeySet({c10::DispatchKey::Python, c10::DispatchKey::PythonTLSSnapshot,
                           c10::DispatchKey::PythonDispatcher, c10::DispatchKey::Functionalize,
                           c10::DispatchKey::FuncTorchDynamicLayerFrontMode,
                           c10::DispatchKey::FuncTorchDynamicLayerBackMode,
                           c10::DispatchKey::Batched, c10::DispatchKey::FuncTorchBatched})};
};

/// The keys of an ordinary CPU tensor, outside inference mode. A tensor with exactly these keys is
/// dense and strided, has ordinary memory, and is not quantized, wrapped, meta, or a lazy
/// conjugate, negation or zero, because each of these properties has its own key.
inline c10::DispatchKeySet ordinaryCpuKeys() {
  // TensorImpl's constructor would compute them each time, including those of autocast.
  static const c10::DispatchKeySet keys = [] {
    const c10::InferenceMode ordinary(false);
    return at::detail::empty_cpu({0}, at::TensorOptions()).key_set();
  }();
  return keys;
}

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TORCH_DISPATCH_H_
