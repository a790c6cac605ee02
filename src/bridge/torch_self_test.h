// Tests once, when an adapter is loaded, that it works with the torch of this process. Not for:
// choosing an adapter.
#ifndef TENSOR_BRIDGE_BRIDGE_TORCH_SELF_TEST_H_
#define TENSOR_BRIDGE_BRIDGE_TORCH_SELF_TEST_H_

#include "adapters/torch_abi.h"

namespace tensor_bridge {

/// Shares a few bytes, writes through torch, checks the source, and releases; the same with bytes
/// that nothing else holds, and towards TensorFlow if the adapter shares. Returns null on success,
/// else the failure, a constant text. Takes 0.5 ms, once.
const char* selfTest(const TorchAdapter& adapter) noexcept;

/// The kind of owner of the bytes that selfTest() shares; the adapter must recognise it as foreign.
extern const OwnerKind kProbeOwner;

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_BRIDGE_TORCH_SELF_TEST_H_
