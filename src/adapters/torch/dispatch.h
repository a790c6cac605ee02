// BelowModes: torch operators called from here see no autograd, no Python dispatch mode and no
// functorch transform of the caller's. Not for: operators that a user asked for.
#ifndef TENSOR_BRIDGE_ADAPTERS_TORCH_DISPATCH_H_
#define TENSOR_BRIDGE_ADAPTERS_TORCH_DISPATCH_H_

#include <ATen/core/LegacyTypeDispatch.h>
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

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TORCH_DISPATCH_H_
