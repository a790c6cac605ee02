// Functions over values and operators of torch's dispatcher. Not for: running operators.
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

/// The value with `function` applied to each tensor, for an operator on the CPU: a device becomes
/// the CPU, a generator becomes none.
c10::IValue mapTensors(const c10::IValue& value, const TensorFunction& function);

/// The device of the first CUDA tensor, else a device among the values, else the current device.
at::Device deviceOf(const std::vector<c10::IValue>& values);

/// The name, such as "aten::add.Tensor".
std::string operatorName(const c10::OperatorHandle& op);
/// The name without its namespace, such as "add.Tensor".
std::string unqualifiedName(const c10::OperatorHandle& op);

/// aten's operators with their own kernel for `key` and any kernel for `other`.
std::vector<c10::OperatorHandle> operatorsWith(c10::DispatchKey key, c10::DispatchKey other);

/// Calls the kernel of the tensors' backend, without autograd and Python's modes.
void callBelowAutograd(const c10::OperatorHandle& op, Stack* stack);

}  // namespace gpu_emulator

#endif  // TENSOR_BRIDGE_GPU_EMULATOR_KERNELS_TORCH_VALUES_H_
