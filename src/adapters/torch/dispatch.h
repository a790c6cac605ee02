// Dispatch keys. BelowModes: torch operators called from here see no autograd, no Python dispatch
// mode and no functorch transform of the caller's. ordinaryCpuKeys: what most tensors have.
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

/// The keys of an ordinary CPU tensor, outside inference mode. A tensor that has exactly these is
/// dense and strided, has memory of its own kind, and is not quantized, wrapped, meta, or a lazy
/// conjugate, negation or zero: all of these are keys.
inline c10::DispatchKeySet ordinaryCpuKeys() {
  // TensorImpl's constructor works them out anew each time, those of autocast included.
  static const c10::DispatchKeySet keys = [] {
    const c10::InferenceMode ordinary(false);
    return at::detail::empty_cpu({0}, at::TensorOptions()).key_set();
  }();
  return keys;
}

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TORCH_DISPATCH_H_
