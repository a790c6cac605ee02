// Stand-ins for torch's operators on sparse CUDA tensors that launch kernels; the other operators
// use dense operators. Each stand-in waits: its arguments are copied to the host, the CPU's kernel
// runs there, and the results are copied back on the current stream. The copies report reads and
// writes to the race detector, so a missing wait before the operator is found. A missing wait after
// it may not be found.
#include <ATen/ATen.h>
#include <ATen/SparseTensorImpl.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

#include <set>
#include <string>
#include <vector>

#include "device/call_log.h"
#include "kernels/torch_values.h"

namespace gpu_emulator {
namespace {

at::SparseTensorImpl* sparse(const at::Tensor& tensor) {
  return static_cast<at::SparseTensorImpl*>(tensor.unsafeGetTensorImpl());
}

/// A tensor, sparse or not, on another device. Undefined tensors and numbers are returned
/// unchanged.
at::Tensor moved(const at::Tensor& tensor, at::Device device) {
  if (!tensor.defined() || tensor.unsafeGetTensorImpl()->is_wrapped_number()) return tensor;
  if (!tensor.is_sparse()) return tensor.to(device);
  at::Tensor result = at::_sparse_coo_tensor_unsafe(tensor._indices().to(device),
                                                    tensor._values().to(device), tensor.sizes());
  return result._coalesced_(tensor.is_coalesced());
}

/// Copies the host's copy of a written argument back to the argument.
void writeBack(const at::Tensor& to, const at::Tensor& host) {
  if (!to.is_sparse()) {
    to.copy_(host);
    return;
  }
  sparse(to)->set_indices_and_values_unsafe(host._indices().to(to.device()),
                                            host._values().to(to.device()));
  sparse(to)->set_coalesced(host.is_coalesced());
}

void standIn(const c10::OperatorHandle& op, c10::DispatchKeySet, Stack* stack) {
  const size_t count = op.schema().arguments().size();
  const std::vector<c10::IValue> arguments(stack->end() - static_cast<std::ptrdiff_t>(count),
                                           stack->end());
  const at::Device device = deviceOf(arguments);
  const c10::cuda::CUDAGuard guard(device);
  logCall("operator, waiting", nullptr, "%s (sparse)", operatorName(op).c_str());
  std::vector<c10::IValue> on_host;
  for (const c10::IValue& argument : arguments) {
    on_host.push_back(mapTensors(argument, [](const at::Tensor& t) { return moved(t, at::kCPU); }));
  }
  Stack made(on_host.begin(), on_host.end());
  callBelowAutograd(op, &made);
  torch::jit::drop(*stack, count);
  bool writes = false;
  for (size_t i = 0; i < count; ++i) {
    const auto* alias = op.schema().arguments()[i].alias_info();
    if (alias == nullptr || !alias->isWrite()) continue;
    writes = true;
    writeBack(arguments[i].toTensor(), on_host[i].toTensor());
    stack->push_back(arguments[i]);
  }
  if (writes) return;
  for (const c10::IValue& value : made) stack->push_back(moved(value.toTensor(), device));
}

bool launchesKernels(const std::string& name) {
  static const std::set<std::string> names = {"_coalesce",
                                              "_sparse_log_softmax",
                                              "_sparse_softmax",
                                              "_sparse_sparse_matmul",
                                              "_sparse_sum_backward",
                                              "add.Tensor",
                                              "add.out",
                                              "add_.Tensor",
                                              "addmm",
                                              "addmm.out",
                                              "addmm_",
                                              "bmm",
                                              "bmm.out",
                                              "hspmm",
                                              "hspmm.out",
                                              "mm",
                                              "mm.out",
                                              "mul.Tensor",
                                              "mul.out",
                                              "mul_.Tensor",
                                              "sparse_mask",
                                              "sspaddmm.out",
                                              "sub.Tensor",
                                              "sub.out",
                                              "sub_.Tensor"};
  return names.count(name) != 0;
}

struct Installation {
  torch::Library library{torch::Library::IMPL, "aten", c10::DispatchKey::SparseCUDA, __FILE__,
                         __LINE__};
  Installation() {
    for (const c10::OperatorHandle& op :
         operatorsWith(c10::DispatchKey::SparseCUDA, c10::DispatchKey::SparseCPU)) {
      if (!launchesKernels(unqualifiedName(op))) continue;
      library.impl(unqualifiedName(op).c_str(),
                   torch::CppFunction::makeFromBoxedFunction<&standIn>());
    }
  }
};

const auto* const g_installation = new Installation;

}  // namespace
}  // namespace gpu_emulator
