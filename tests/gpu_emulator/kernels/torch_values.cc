#include "kernels/torch_values.h"

#include <ATen/core/LegacyTypeDispatch.h>

namespace gpu_emulator {
namespace {

using c10::IValue;

std::optional<IValue> mapOptionalTensors(const IValue& value, const TensorFunction& function) {
  const auto list = value.toList();
  if (list.elementType()->kind() != c10::TypeKind::OptionalType) return std::nullopt;
  c10::List<std::optional<at::Tensor>> result;
  for (const IValue& element : list) {
    if (!element.isNone() && !element.isTensor()) return std::nullopt;
    if (element.isNone()) {
      result.push_back(std::nullopt);
    } else {
      result.push_back(function(element.toTensor()));
    }
  }
  return result;
}

std::optional<at::Device> deviceOfTensorIn(const IValue& value) {
  std::optional<at::Device> found;
  mapTensors(value, [&](const at::Tensor& tensor) {
    if (!found && tensor.defined() && tensor.is_cuda()) found = tensor.device();
    return tensor;
  });
  return found;
}

}  // namespace

IValue mapTensors(const IValue& value, const TensorFunction& function) {
  if (value.isTensor()) return function(value.toTensor());
  if (value.isTensorList()) {
    c10::List<at::Tensor> result;
    for (const at::Tensor& tensor : value.toTensorList()) result.push_back(function(tensor));
    return result;
  }
  if (value.isList()) return mapOptionalTensors(value, function).value_or(value);
  if (value.isDevice()) return at::Device(at::kCPU);
  if (value.isGenerator()) return IValue();
  return value;
}

at::Device deviceOf(const std::vector<IValue>& values) {
  for (const IValue& value : values) {
    if (const auto found = deviceOfTensorIn(value)) return *found;
  }
  for (const IValue& value : values) {
    if (value.isDevice() && value.toDevice().is_cuda() && value.toDevice().has_index()) {
      return value.toDevice();
    }
  }
  return at::Device(at::kCUDA, c10::cuda::current_device());
}

std::string unqualifiedName(const c10::OperatorHandle& op) {
  return operatorName(op).substr(operatorName(op).find("::") + 2);
}

std::string operatorName(const c10::OperatorHandle& op) {
  const std::string& overload = op.schema().overload_name();
  return op.schema().name() + (overload.empty() ? "" : "." + overload);
}

std::vector<c10::OperatorHandle> operatorsWith(c10::DispatchKey key, c10::DispatchKey other) {
  auto& dispatcher = c10::Dispatcher::singleton();
  std::vector<c10::OperatorHandle> result;
  for (const c10::OperatorName& name : dispatcher.getAllOpNames()) {
    if (name.name.rfind("aten::", 0) != 0) continue;
    const auto op = dispatcher.findOp(name);
    if (!op || !op->hasSchema() || !op->hasKernelForDispatchKey(key)) continue;
    if (op->hasComputedKernelForDispatchKey(other)) result.push_back(*op);
  }
  return result;
}

void callBelowAutograd(const c10::OperatorHandle& op, Stack* stack) {
  const at::AutoDispatchBelowADInplaceOrView below;
  const c10::impl::ExcludeDispatchKeyGuard no_modes(
      c10::DispatchKeySet({c10::DispatchKey::Python, c10::DispatchKey::PythonTLSSnapshot}));
  op.callBoxed(stack);
}

}  // namespace gpu_emulator
