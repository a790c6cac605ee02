// Finds and loads the adapter for the torch release that this process runs.
// Not for: deciding anything about tensors.
#ifndef TENSOR_BRIDGE_BRIDGE_TORCH_LOADER_H_
#define TENSOR_BRIDGE_BRIDGE_TORCH_LOADER_H_

#include "adapters/torch_abi.h"

namespace tensor_bridge {

/// Loads the adapter for torch `major`.`minor`; idempotent. Throws Error{kFramework} when torch is
/// not loaded, its release is unknown, the adapter is missing, or another one is in use.
void useTorch(int major, int minor);

/// Sets the adapter for any torch, which copies everything. `entry` is its library's entry.
void setCopyingTorch(TorchAdapterEntry entry) noexcept;

/// useTorch(), or the adapter of setCopyingTorch() if that cannot protect memory: for a torch newer
/// than the known ones, for one that is not `proven` (a pre-release), and for one with which the
/// adapter does not load or fails its self-test. The copying adapter's tensors are not
/// c10::TensorImpl, so a later useTorch() throws.
void useTorchOrCopy(int major, int minor, bool proven);

/// Why everything is copied; null if it is not.
const char* copyingReason() noexcept;

/// The adapter in use; throws Error{kFramework} before useTorch().
const TorchAdapter& torchAdapter();
/// The same, or null.
const TorchAdapter* torchAdapterInUse() noexcept;

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_BRIDGE_TORCH_LOADER_H_
