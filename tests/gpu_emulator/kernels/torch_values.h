// Values and operators of torch's dispatcher, as the stand-ins take them apart. Not for: running
// them.
#ifndef TENSOR_BRIDGE_GPU_EMULATOR_KERNELS_TORCH_VALUES_H_
#define TENSOR_BRIDGE_GPU_EMULATOR_KERNELS_TORCH_VALUES_H_

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/cuda/CUDAFunctions.h>
#include <torch/library.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace gpu_emulator {

using Stack = torch::jit::Stack;
using TensorFunction = std::function<at::Tensor(const at::Tensor&)>;

/// The value with `function` of each tensor in it, for an operator on the CPU: a device becomes the
/// CPU, a generator none.
c10::IValue mapTensors(const c10::IValue& value, const TensorFunction& function);

/// That of the first CUDA tensor, else of a device among the values, else the current one.
at::Device deviceOf(const std::vector<c10::IValue>& values);

/// As "aten::add.Tensor".
std::string operatorName(const c10::OperatorHandle& op);
/// As "add.Tensor".
std::string unqualifiedName(const c10::OperatorHandle& op);

/// aten's operators with a kernel of their own for `key` and any for `other`.
std::vector<c10::OperatorHandle> operatorsWith(c10::DispatchKey key, c10::DispatchKey other);

/// Calls the kernel of the tensors' backend: no autograd, no modes of Python.
void callBelowAutograd(const c10::OperatorHandle& op, Stack* stack);

}  // namespace gpu_emulator

#endif  // TENSOR_BRIDGE_GPU_EMULATOR_KERNELS_TORCH_VALUES_H_
