// Stand-ins for torch's CUDA kernels. Each operator of the CUDA key that has a CPU kernel gets a
// stand-in, which queues torch's CPU kernel on the current stream, over the shadow of the same
// memory. The shapes of results come from the Meta key. An operator whose shapes depend on values,
// or whose result is not a tensor, waits for the stream first, like torch's own. Loaded with
// torch.ops.load_library. Not for: sparse tensors (torch_sparse_kernels.cc).
#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/copy_native.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <cstdio>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "device/call_log.h"
#include "device/memory.h"
#include "device/stream.h"
#include "device/violations.h"
#include "kernels/torch_values.h"

namespace gpu_emulator {
namespace {

using c10::IValue;
using Values = std::vector<IValue>;

/// A CUDA tensor as an operand of a kernel: an address, which keeps nothing alive.
struct Operand {
  void* data;
  std::vector<int64_t> sizes, strides;
  at::ScalarType dtype;
  bool is_conj, is_neg;

  /// `mutably`: get the address by the call that lets write protection move the tensor first.
  Operand(const at::Tensor& tensor, bool mutably)
      : data(mutably ? tensor.mutable_data_ptr() : const_cast<void*>(tensor.const_data_ptr())),
        sizes(tensor.sizes().vec()),
        strides(tensor.strides().vec()),
        dtype(tensor.scalar_type()),
        is_conj(tensor.is_conj()),
        is_neg(tensor.is_neg()) {}

  at::Tensor onHost() const {
    at::Tensor tensor =
        at::from_blob(shadow(data), sizes, strides, at::TensorOptions().dtype(dtype));
    if (is_conj) tensor._set_conj(true);
    if (is_neg) tensor._set_neg(true);
    return tensor;
  }

  /// The range from its first to its last element.
  Range range() const {
    return {data, at::detail::computeStorageNbytes(sizes, strides, c10::elementSize(dtype))};
  }
};

/// An argument of a CPU kernel that runs later. `operands` replace the tensors of `value`, in
/// order; a tensor without an operand is used itself.
struct LaterArgument {
  IValue value;
  std::vector<std::optional<Operand>> operands;

  IValue now() const {
    size_t next = 0;
    return mapTensors(value, [&](const at::Tensor& tensor) {
      const auto& operand = operands.at(next++);
      return operand ? operand->onHost() : tensor;
    });
  }
};

at::Tensor onMeta(const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.unsafeGetTensorImpl()->is_wrapped_number()) return tensor;
  const auto options = tensor.options().device(at::kMeta).requires_grad(false);
  at::Tensor meta = at::empty_strided(tensor.sizes(), tensor.strides(), options);
  if (tensor.is_conj()) meta._set_conj(true);
  if (tensor.is_neg()) meta._set_neg(true);
  return meta;
}

/// A copy of a host tensor's present values, which later writes of the program do not change.
at::Tensor valuesOfNow(const at::Tensor& tensor) {
  if (!tensor.defined()) return tensor;
  at::Tensor copy = tensor.detach().clone();
  if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) {
    copy.unsafeGetTensorImpl()->set_wrapped_number(true);
  }
  return copy;
}

bool startsWith(const std::string& text, const char* prefix) { return text.rfind(prefix, 0) == 0; }

/// One call of an operator.
class Call {
 public:
  Call(const c10::OperatorHandle& op, const Stack& stack)
      : op_(op), name_(operatorName(op)), count_(op.schema().arguments().size()) {
    arguments_.assign(stack.end() - static_cast<std::ptrdiff_t>(count_), stack.end());
    for (size_t i = 0; i < count_; ++i) {
      const auto* alias = op.schema().arguments()[i].alias_info();
      if (alias != nullptr && alias->isWrite()) written_.insert(i);
    }
  }

  at::Device device() const { return deviceOf(arguments_); }

  void run(Stack* stack) {
    const at::Device device = this->device();
    const c10::cuda::CUDAGuard guard(device);
    Stream* const stream = streamOf(c10::cuda::getCurrentCUDAStream(device.index()).stream());
    Values results;
    const bool shapes_are_known = makeResults(device, &results);
    Work work = prepare(results);
    if (shapes_are_known) {
      queue(std::move(work), stream);
      if (mutates()) results = writtenArguments();
    } else {
      results = runNow(std::move(work), device, stream);
    }
    torch::jit::drop(*stack, count_);
    for (IValue& result : results) stack->push_back(std::move(result));
  }

 private:
  bool mutates() const { return !written_.empty(); }

  /// Whether it writes only to arguments named `out`, and reads none of them.
  bool writesOnlyToOut() const {
    for (const size_t i : written_) {
      if (!op_.schema().arguments()[i].is_out()) return false;
    }
    return mutates();
  }

  bool returnsTensorsOnly() const {
    const auto& returns = op_.schema().returns();
    for (const auto& each : returns) {
      if (each.type()->kind() != c10::TypeKind::TensorType) return false;
    }
    return !returns.empty();
  }

  /// Allocates the results, or resizes those that `out` names. False if shapes depend on values.
  bool makeResults(at::Device device, Values* results) {
    if (mutates() && !writesOnlyToOut()) return true;
    if (!mutates() && !returnsTensorsOnly()) return false;
    Stack meta;
    for (const IValue& argument : arguments_) {
      meta.push_back(argument.isDevice() ? IValue(at::Device(at::kMeta))
                                         : mapTensors(argument, onMeta));
    }
    const Values given = meta;
    try {
      const at::AutoDispatchBelowADInplaceOrView below;
      op_.callBoxed(&meta);
    } catch (const std::exception&) {
      return false;  // shapes depend on values, or the call is wrong: the CPU's kernel decides
    }
    for (const size_t i : written_) {
      if (!arguments_[i].isTensor()) continue;
      at::native::resize_output(arguments_[i].toTensor(), given[i].toTensor().sizes());
    }
    if (mutates()) return true;
    for (const IValue& value : meta) {
      const at::Tensor& shape = value.toTensor();
      if (!shape.defined()) {
        results->emplace_back(shape);
        continue;
      }
      results->emplace_back(
          at::empty_strided(shape.sizes(), shape.strides(), shape.options().device(device)));
    }
    return true;
  }

  /// Whether torch's own host code gets the address of a written argument like that of a read one:
  /// MultiTensorApply.cuh takes all of its lists by const_data_ptr().
  bool writesByConstAddress(size_t i) const {
    return arguments_[i].isTensorList() &&
           (startsWith(name_, "aten::_foreach_") || startsWith(name_, "aten::_fused_") ||
            startsWith(name_, "aten::_amp_foreach_"));
  }

  /// The kernel's arguments, and the ranges that it reads and writes.
  Work prepare(const Values& results) {
    Work work{name_};
    for (size_t i = 0; i < count_; ++i) {
      const bool writes = written_.count(i) != 0;
      LaterArgument later;
      later.value = mapTensors(arguments_[i], [&](const at::Tensor& tensor) {
        if (!tensor.defined() || !tensor.is_cuda()) {
          later.operands.emplace_back();
          return valuesOfNow(tensor);
        }
        const Operand operand(tensor, writes && !writesByConstAddress(i));
        if (!writes || !writesOnlyToOut()) work.reads.push_back(operand.range());
        if (writes) work.writes.push_back(operand.range());
        later.operands.emplace_back(operand);
        return at::Tensor();
      });
      later_->push_back(std::move(later));
    }
    for (const IValue& result : results) {
      if (!result.toTensor().defined()) {
        targets_->emplace_back();
        continue;
      }
      targets_->emplace_back(Operand(result.toTensor(), true));
      work.writes.push_back(targets_->back()->range());
    }
    return work;
  }

  static Stack callOnHost(const c10::OperatorHandle& op, const std::vector<LaterArgument>& later) {
    Stack stack;
    for (const LaterArgument& argument : later) stack.push_back(argument.now());
    callBelowAutograd(op, &stack);
    return stack;
  }

  void queue(Work work, Stream* stream) {
    work.run = [op = op_, name = name_, later = later_, targets = targets_] {
      try {
        const Stack made = callOnHost(op, *later);
        for (size_t i = 0; i < targets->size(); ++i) {
          const auto& target = (*targets)[i];
          if (target) target->onHost().copy_(made.at(i).toTensor());
        }
      } catch (const std::exception& error) {
        fprintf(stderr, "emulated device: %s failed: %s\n", name.c_str(), error.what());
        missingKernel(name.c_str());
      }
    };
    logCall("operator", stream, "%s", name_.c_str());
    const Error error = enqueue(stream, std::move(work));
    TORCH_CHECK(error == kSuccess, "CUDA error ", error, " of the emulated device in ", name_);
    countVersions();
  }

  /// The _foreach_ kernels themselves count the versions of the tensors that they write to; the
  /// _fused_ kernels do not.
  void countVersions() const {
    if (!startsWith(name_, "aten::_foreach_")) return;
    for (const size_t i : written_) {
      if (!arguments_[i].isTensorList()) continue;
      for (const at::Tensor& tensor : arguments_[i].toTensorList()) {
        if (!tensor.is_inference()) tensor.unsafeGetTensorImpl()->bump_version();
      }
    }
  }

  Values runNow(Work work, at::Device device, Stream* stream) {
    logCall("operator, waiting", stream, "%s", name_.c_str());
    const Error error = enqueue(stream, std::move(work));
    TORCH_CHECK(error == kSuccess, "CUDA error ", error, " of the emulated device in ", name_);
    c10::cuda::getCurrentCUDAStream(device.index()).synchronize();
    Stack made = callOnHost(op_, *later_);
    if (mutates()) return writtenArguments();
    for (IValue& value : made) {
      if (value.isTensor() && value.toTensor().defined()) value = value.toTensor().to(device);
    }
    return made;
  }

  /// The results of an operator that writes to its arguments.
  Values writtenArguments() const {
    Values result;
    if (op_.schema().returns().empty()) return result;
    for (const size_t i : written_) result.push_back(arguments_[i]);
    return result;
  }

  const c10::OperatorHandle op_;
  const std::string name_;
  const size_t count_;
  Values arguments_;
  std::set<size_t> written_;
  // Shared with the work, which runs after this object is gone.
  std::shared_ptr<std::vector<LaterArgument>> later_ =
      std::make_shared<std::vector<LaterArgument>>();
  std::shared_ptr<std::vector<std::optional<Operand>>> targets_ =
      std::make_shared<std::vector<std::optional<Operand>>>();
};

void standIn(const c10::OperatorHandle& op, c10::DispatchKeySet, Stack* stack) {
  Call(op, *stack).run(stack);
}

/// copy_: copies of plain memory run torch's real code, which calls CUDA; others need a kernel.
void copyOrStandIn(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
  const bool non_blocking = stack->back().toBool();
  at::Tensor self = (*stack)[stack->size() - 3].toTensor();
  const at::Tensor source = (*stack)[stack->size() - 2].toTensor();
  const bool plain = self.scalar_type() == source.scalar_type() &&
                     self.is_conj() == source.is_conj() && self.is_neg() == source.is_neg() &&
                     self.sizes() == source.sizes() && self.strides() == source.strides() &&
                     self.is_non_overlapping_and_dense();
  const bool on_one_device = self.is_cuda() && source.is_cuda() && self.device() == source.device();
  if (on_one_device && !plain) return standIn(op, keys, stack);
  at::native::copy_(self, source, non_blocking);
  torch::jit::drop(*stack, 3);
  stack->push_back(self);
}

/// Operators whose real code runs: they allocate, make views, or call CUDA without a kernel.
bool runsItself(const std::string& name) {
  static const std::set<std::string> names = {
      "aten::_assert_async",
      "aten::_assert_async.msg",
      "aten::_copy_from_and_resize",
      "aten::_efficientzerotensor",
      "aten::_fused_dropout",
      "aten::_has_same_storage_numel",
      "aten::_lazy_clone",
      "aten::_local_scalar_dense",
      "aten::_nested_view_from_buffer",
      "aten::_pin_memory",
      "aten::_reshape_alias",
      "aten::alias",
      "aten::as_strided",
      "aten::copy_",
      "aten::empty.memory_format",
      "aten::empty_strided",
      "aten::is_pinned",
      "aten::is_set_to",
      "aten::lift",
      "aten::record_stream",
      "aten::resize_",
      "aten::set_",
      "aten::set_.source_Storage",
      "aten::set_.source_Storage_storage_offset",
      "aten::set_.source_Tensor",
      "aten::unfold",
      "aten::view",
      "aten::view.dtype",
      "aten::view_as_complex",
      "aten::view_as_real",
  };
  return names.count(name) != 0;
}

/// Replaces the operators while it exists. It is never destroyed.
class Installation {
 public:
  Installation() {
    for (const c10::OperatorHandle& op :
         operatorsWith(c10::DispatchKey::CUDA, c10::DispatchKey::CPU)) {
      if (runsItself(operatorName(op))) continue;
      library_.impl(unqualifiedName(op).c_str(),
                    torch::CppFunction::makeFromBoxedFunction<&standIn>());
      ++count;
    }
    library_.impl("copy_", torch::CppFunction::makeFromBoxedFunction<&copyOrStandIn>());
  }

  int count = 0;

 private:
  torch::Library library_{torch::Library::IMPL, "aten", c10::DispatchKey::CUDA, __FILE__, __LINE__};
};

const Installation& installation() {
  static auto* const made = new Installation;
  return *made;
}
const int g_count = installation().count;

}  // namespace
}  // namespace gpu_emulator

extern "C" EMU_EXPORT int emu_torch_operators() { return gpu_emulator::g_count; }
