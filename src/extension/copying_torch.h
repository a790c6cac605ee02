// An adapter that copies, for a torch that no other adapter is proven on. It uses torch's Python
// functions through tensor_bridge._copying, so it depends on no memory layout of torch. A tensor's
// handle is its Python object. Not for: sharing memory, which only a known layout can protect.
#ifndef TENSOR_BRIDGE_EXTENSION_COPYING_TORCH_H_
#define TENSOR_BRIDGE_EXTENSION_COPYING_TORCH_H_

#include <cstdint>

namespace tensor_bridge {

/// A TorchAdapterEntry (adapters/torch_abi.h) in C types, for tb_py_set_copying_torch.
const void* copyingAdapter(uint32_t abi, const void* host);

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_EXTENSION_COPYING_TORCH_H_
