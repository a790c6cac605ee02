// Whether torch's calls of CUDA reach the CUDA that it was built for. Not for: calling CUDA.
#ifndef TENSOR_BRIDGE_BRIDGE_TORCH_CUDA_H_
#define TENSOR_BRIDGE_BRIDGE_TORCH_CUDA_H_

namespace tensor_bridge {

/// Call it before torch touches a GPU for us. Throws Error{kFramework} if TensorFlow's stubs have
/// replaced torch's CUDA and lead to another major version or to none: torch would read structs of
/// another layout, and crash. See Note [TensorFlow's libraries are global] in
/// python/tensor_bridge/_load_order.py.
void requireTorchCuda();

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_BRIDGE_TORCH_CUDA_H_
