// Note [Kernels that write through const addresses]
// torch's CUDA kernels for lists of tensors (_foreach_*_, _fused_*_, GradScaler's unscale) take all
// addresses through const_data_ptr(), even those that they write to
// (ATen/native/cuda/MultiTensorApply.cuh, 2.6 to 2.15), so a storage's hook never runs. Operators
// that write single tensors ask for mutable pointers.
//
// So a kernel of ours runs before each operator whose schema says that it writes a list. It runs
// the hooks of the written storages and then calls the operator; for a storage without a hook it
// reads one field. It is registered at BackendSelect, a key that every call has beside those of its
// tensors, below autograd, Python modes and functionalization and above all kernels that see
// memory:
// - It looks at storages, not at keys of tensors: a tensor that set_() gave a shared storage has
//   none of a converted tensor's keys. That is why a key of our own would not work; torch has also
//   left no key to others (it uses Fake itself from 2.13 on).
// - Nothing is replaced. Another thread's call of the operator sees our kernel or does not. Boxed
//   kernels would be enough, but make IValues of all tensors: on an emulated device SGD and Adam
//   over 50 tensors took the host 5 to 8 % longer, with unboxed kernels up to 3 %. By instructions
//   (callgrind, 50 tensors of one element on the CPU, a step of torch.optim) fused SGD takes 0.5 %
//   more with the unboxed ones, with momentum 0.4 %, foreach SGD 0.3 %, fused Adam 0.2 %.
//
// The dispatcher's classes that are compiled in here have the same layout in 2.13, 2.14 and 2.15
// (OperatorEntry, KernelFunction, FunctionSchema, IValue, List). Before 2.13 GPU memory is not
// shared: 2.8 and 2.9, of one group, differ in KernelFunction, and no hook could move a storage on
// a GPU.

#include "adapters/torch/list_writers.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "adapters/torch/torch_version.h"

#ifdef TB_TORCH_NEEDS_REPORT_OVERFLOW
[[noreturn]] void c10::report_overflow(const char* name) {
  throw std::runtime_error(std::string("value cannot be converted to type ") + name +
                           " without overflow");
}
#endif

namespace tensor_bridge {
namespace {

using torch::jit::Stack;

constexpr c10::DispatchKey kKey = c10::DispatchKey::BackendSelect;
constexpr c10::DispatchKeySet kAfter(c10::DispatchKeySet::FULL_AFTER, kKey);

void beforeWrite(const at::Tensor& tensor) {
  // Null for an undefined tensor, a sparse one. has_storage() is a virtual function.
  c10::StorageImpl* storage = tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl();
  if (storage != nullptr && __builtin_expect(storage->has_materializer(), 0)) {
    storage->mutable_data();
  }
}

// The arguments of any operator, as IValues. Reads the schema at each call: a library's operator
// may be removed and registered again with another schema.
void boxedKernel(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
  const std::vector<c10::Argument>& arguments = op.schema().arguments();
  const size_t first = stack->size() - arguments.size();
  for (size_t i = 0; i < arguments.size(); ++i) {
    const c10::AliasInfo* alias = arguments[i].alias_info();
    if (alias == nullptr || !alias->isWrite()) continue;
    const c10::IValue& value = (*stack)[first + i];
    if (value.isTensor()) {
      beforeWrite(value.toTensor());
    } else if (value.isList()) {
      for (const c10::IValue& element : value.toListRef()) {
        if (element.isTensor()) beforeWrite(element.toTensor());
      }
    }
  }
  op.redispatchBoxed(keys & kAfter, stack);
}

// The argument types of torch's own operators of this family, as in their C++ kernels. Others are
// boxed.
using Lists = at::TensorList;
using Number = const at::Scalar&;
using Numbers = at::ArrayRef<at::Scalar>;
using Tensor = const at::Tensor&;
using Written = at::Tensor&;
using MaybeTensor = const std::optional<at::Tensor>&;
template <typename... Arguments>
struct Signature {};
using Signatures = std::tuple<
    // _foreach_*_
    Signature<Lists>, Signature<Lists, Number>, Signature<Lists, Numbers>, Signature<Lists, Tensor>,
    Signature<Lists, Tensor, Number>, Signature<Lists, Lists>, Signature<Lists, Lists, Number>,
    Signature<Lists, Lists, Numbers>, Signature<Lists, Lists, bool>, Signature<Lists, Lists, Lists>,
    Signature<Lists, Lists, Lists, Number>, Signature<Lists, Lists, Lists, Numbers>,
    Signature<Lists, Lists, Lists, Tensor>,
    // GradScaler's unscale
    Signature<Lists, Written, Tensor>,
    // _fused_adam_, _fused_sgd_, _fused_adagrad_, each with the rate as a number and as a tensor
    Signature<Lists, Lists, Lists, Lists, Lists, Lists, double, double, double, double, double,
              bool, bool, MaybeTensor, MaybeTensor>,
    Signature<Lists, Lists, Lists, Lists, Lists, Lists, Tensor, double, double, double, double,
              bool, bool, MaybeTensor, MaybeTensor>,
    Signature<Lists, Lists, Lists, double, double, double, double, bool, bool, bool, MaybeTensor,
              MaybeTensor>,
    Signature<Lists, Lists, Lists, double, double, Tensor, double, bool, bool, bool, MaybeTensor,
              MaybeTensor>,
    Signature<Lists, Lists, Lists, Lists, double, double, double, double, bool, MaybeTensor,
              MaybeTensor>,
    Signature<Lists, Lists, Lists, Lists, Tensor, double, double, double, bool, MaybeTensor,
              MaybeTensor>>;

template <typename>
constexpr const char* kSchemaType = nullptr;
template <>
constexpr const char* kSchemaType<Lists> = "Tensor[]";
template <>
constexpr const char* kSchemaType<Number> = "Scalar";
template <>
constexpr const char* kSchemaType<Numbers> = "Scalar[]";
template <>
constexpr const char* kSchemaType<Tensor> = "Tensor";
template <>
constexpr const char* kSchemaType<Written> = "Tensor";
template <>
constexpr const char* kSchemaType<MaybeTensor> = "Tensor?";
template <>
constexpr const char* kSchemaType<bool> = "bool";
template <>
constexpr const char* kSchemaType<double> = "float";

// The same without IValues, for one operator.
template <typename... Arguments>
class UnboxedKernel final : public c10::OperatorKernel {
 public:
  UnboxedKernel(c10::TypedOperatorHandle<void(Arguments...)> op, uint32_t written)
      : op_(op), written_(written) {}

  void operator()(c10::DispatchKeySet keys, Arguments... arguments) {
    uint32_t written = written_;
    (beforeWriteIf((written & 1U) != 0, arguments, &written), ...);
    op_.redispatch(keys & kAfter, arguments...);
  }

 private:
  template <typename Argument>
  static void beforeWriteIf(bool is_written, const Argument& argument, uint32_t* rest) {
    *rest >>= 1;
    if constexpr (std::is_same_v<Argument, at::Tensor>) {
      if (is_written) beforeWrite(argument);
    } else if constexpr (std::is_same_v<Argument, Lists>) {
      if (!is_written) return;
      for (const at::Tensor& tensor : argument) beforeWrite(tensor);
    }
  }

  c10::TypedOperatorHandle<void(Arguments...)> op_;
  // One bit per argument, the first argument in the lowest bit.
  uint32_t written_;
};

std::string schemaTypes(const c10::FunctionSchema& schema) {
  std::string types;
  for (const c10::Argument& argument : schema.arguments()) types += argument.type()->str() + ",";
  return types;
}

uint32_t writtenArguments(const c10::FunctionSchema& schema) {
  uint32_t written = 0;
  for (size_t i = 0; i < schema.arguments().size(); ++i) {
    const c10::AliasInfo* alias = schema.arguments()[i].alias_info();
    if (alias != nullptr && alias->isWrite()) written |= 1U << i;
  }
  return written;
}

template <typename... Arguments>
bool makeUnboxed(Signature<Arguments...>, const c10::OperatorHandle& op, const std::string& types,
                 std::optional<c10::KernelFunction>* made) {
  if (((std::string(kSchemaType<Arguments>) + ",") + ...) != types) return false;
  using Kernel = UnboxedKernel<Arguments...>;
  *made = c10::KernelFunction::makeFromUnboxedFunctor<false, Kernel>(
      std::make_unique<Kernel>(op.typed<void(Arguments...)>(), writtenArguments(op.schema())));
  return true;
}

c10::KernelFunction kernelFor(const c10::OperatorHandle& op) {
  std::optional<c10::KernelFunction> made;
  // For torch's own operators the schema tells the C++ types, and does not change.
  if (op.operator_name().name.rfind("aten::", 0) == 0 && op.schema().returns().empty()) {
    const std::string types = schemaTypes(op.schema());
    try {
      std::apply([&](auto... signature) { (makeUnboxed(signature, op, types, &made) || ...); },
                 Signatures());
    } catch (const c10::Error&) {
      // The C++ types differ from those that the schema suggests.
    }
  }
  if (made.has_value()) return *std::move(made);
  return c10::KernelFunction::makeFromBoxedFunction<&boxedKernel>();
}

bool writesList(const c10::FunctionSchema& schema) {
  for (const c10::Argument& argument : schema.arguments()) {
    const c10::AliasInfo* alias = argument.alias_info();
    if (alias == nullptr || !alias->isWrite()) continue;
    if (argument.type()->str().find('[') != std::string::npos) return true;
  }
  return false;
}

// How many operators were added, and how many of them guardAll() has seen.
std::atomic<uint64_t> g_added{1};
std::atomic<uint64_t> g_seen{0};

// Called with the dispatcher's mutex locked: a kernel cannot be added here.
struct Listener final : c10::OpRegistrationListener {
  void onOperatorRegistered(const c10::OperatorHandle&) override { g_added.fetch_add(1); }
  void onOperatorDeregistered(const c10::OperatorHandle&) override {}
};

// Kept for as long as the process lives.
std::vector<c10::RegistrationHandleRAII>& kernels() {
  static auto* const kept = new std::vector<c10::RegistrationHandleRAII>;
  return *kept;
}

void guardAll() {
  static auto* const listener = new c10::RegistrationHandleRAII(
      c10::Dispatcher::singleton().addRegistrationListener(std::make_unique<Listener>()));
  static_cast<void>(listener);
  c10::Dispatcher& dispatcher = c10::Dispatcher::singleton();
  for (const c10::OperatorName& name : dispatcher.getAllOpNames()) {
    const std::optional<c10::OperatorHandle> op = dispatcher.findSchema(name);
    if (!op.has_value() || !writesList(op->schema()) || op->hasKernelForDispatchKey(kKey)) continue;
    kernels().push_back(dispatcher.registerImpl(name, kKey, kernelFor(*op), std::nullopt, nullptr,
                                                "tensor_bridge: before a list is written"));
  }
}

}  // namespace

bool canGuardListWriters() noexcept { return true; }

void guardListWriters() {
  if (g_seen.load(std::memory_order_acquire) == g_added.load(std::memory_order_acquire)) return;
  static std::mutex mutex;
  std::lock_guard<std::mutex> lock(mutex);
  const uint64_t added = g_added.load();
  if (g_seen.load() == added) return;
  guardAll();
  g_seen.store(added, std::memory_order_release);
}

}  // namespace tensor_bridge
