#include "adapters/torch/reader.h"

#include <ATen/EmptyTensor.h>
#include <ATen/MapAllocator.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/impl/COW.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <sstream>

#include "adapters/torch/copy_on_write.h"
#include "adapters/torch/dispatch.h"
#include "adapters/torch/foreign_owner.h"
#include "adapters/torch/gpu.h"
#include "adapters/torch/torch_dtype.h"
#include "core/layout.h"

namespace tensor_bridge {
namespace {

void releaseTorchTensor(void* owner) {
  c10::intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>::reclaim(
      static_cast<c10::TensorImpl*>(owner));
}

// A tensor over foreign memory, with a reference to the memory: the next write finds that
// reference, and leaves the memory to the view's user.
struct HeldView {
  at::Tensor tensor;
  ReleaseFn release;
  void* held;
};

void releaseHeldView(void* owner) {
  const std::unique_ptr<HeldView> view(static_cast<HeldView*>(owner));
  dropHeld(view->release, view->held);
}

}  // namespace

void referTo(const at::Tensor& tensor, int64_t* shape, int64_t* strides, TensorRef* ref) {
  TORCH_CHECK(tensor.layout() == at::kStrided && tensor.has_storage() && !tensor.is_meta(),
              "expected a dense tensor with memory of its own, got layout ", tensor.layout(),
              " on ", tensor.device());
  TORCH_CHECK(tensor.dim() <= kMaxDims, "expected up to ", kMaxDims, " dimensions, got ",
              tensor.dim());
  TORCH_CHECK(
      !tensor.is_conj() && !tensor.is_neg() && !tensor._is_zerotensor(),
      "the tensor's values are not those in its memory: it is a lazy conjugate, negation or "
      "zero; call resolve_conj(), resolve_neg() or clone() first");
  const Dtype dtype = dtypeFromScalarType(tensor.scalar_type());
  TORCH_CHECK(dtype != Dtype::kUnknown, "torch dtype ", tensor.scalar_type(),
              " has no row in tensor_bridge's dtype table");
  std::copy(tensor.sizes().begin(), tensor.sizes().end(), shape);
  std::copy(tensor.strides().begin(), tensor.strides().end(), strides);
  ref->dl.data = const_cast<void*>(tensor.const_data_ptr());
  ref->dl.device =
      tensor.is_cuda() ? DLDevice{kDLCUDA, tensor.device().index()} : DLDevice{kDLCPU, 0};
  ref->dl.ndim = static_cast<int32_t>(tensor.dim());
  ref->dl.dtype = dlDataType(dtype);
  ref->dl.shape = shape;
  ref->dl.strides = strides;
  ref->dl.byte_offset = 0;
  ref->dtype = dtype;
  ref->read_only = true;
  ref->nbytes = static_cast<int64_t>(tensor.nbytes());
  const c10::StorageImpl* storage =
      tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl();
  void* held = nullptr;
  const OwnerKind* kind = isProtected(storage) ? foreignKind(storage, &held) : nullptr;
  if (held != nullptr) {
    ref->owner = new HeldView{tensor, kind->release, held};
    ref->release = releaseHeldView;
    if (tensor.is_cuda()) releaseLater(ref);
    // A write of another thread may have come before the reference.
    ref->dl.data = const_cast<void*>(tensor.const_data_ptr());
    return;
  }
  at::Tensor reference = tensor;
  ref->owner = reference.unsafeReleaseTensorImpl();
  ref->release = releaseTorchTensor;
}

namespace {

// Only torch's Python extension knows the allocator of torch.multiprocessing's shared memory
// (2.6 to 2.15).
bool isManagedShared(const c10::DataPtr& data) {
  using FromDataPtr = void* (*)(const c10::DataPtr&);
  static const FromDataPtr from_data_ptr = [] {
    void* library = dlopen("libshm.so", RTLD_NOLOAD | RTLD_LAZY | RTLD_LOCAL);
    return library == nullptr
               ? nullptr
               : reinterpret_cast<FromDataPtr>(
                     dlsym(library, "_ZN21THManagedMapAllocator11fromDataPtrERKN3c107DataPtrE"));
  }();
  return from_data_ptr != nullptr && from_data_ptr(data) != nullptr;
}

bool isWrapped(c10::DispatchKeySet keys) {
  return keys.has_any(c10::DispatchKeySet(
      {c10::DispatchKey::Python, c10::DispatchKey::Functionalize, c10::DispatchKey::Batched,
       c10::DispatchKey::FuncTorchBatched, c10::DispatchKey::FuncTorchGradWrapper}));
}

bool suitsTensorFlow(const void* data) {
  return reinterpret_cast<uintptr_t>(data) % kTensorFlowAlignment == 0;
}

template <typename Text>
void setName(TorchFacts* facts, const Text& text) {
  std::ostringstream stream;
  stream << text;
  std::snprintf(facts->name, sizeof(facts->name), "%s", stream.str().c_str());
}

Obstacle storageObstacle(const at::Tensor& tensor, bool hold, TorchFacts* facts) {
  c10::StorageImpl* storage = tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl();
  const bool guarded = isProtected(storage);
  const OwnerKind* kind = foreignKind(storage, hold && guarded ? &facts->foreign_owner : nullptr);
  if (kind != nullptr) {
    facts->foreign_tag = kind->tag;
    facts->foreign_release = kind->release;
    facts->storage_bytes = static_cast<int64_t>(storage->nbytes());
    return guarded ? Obstacle::kNone : Obstacle::kAliased;
  }
  if (isSharedStorage(storage)) return Obstacle::kNone;
  const c10::DataPtr& data = storage->_mutable_data_ptr_no_checks();
  if (c10::impl::cow::is_cow_data_ptr(data)) return Obstacle::kLazyClone;
  // An ordinary torch allocation; the other kinds are checked one by one.
  if (data.get_deleter() != ordinaryDeleter()) {
    if (at::MapAllocator::fromDataPtr(data) != nullptr ||
        at::RefcountedMapAllocator::fromDataPtr(data) != nullptr || isManagedShared(data)) {
      return Obstacle::kSharedMemory;
    }
    if (c10::impl::hasDeviceGuardImpl(c10::kCUDA) && tensor.is_pinned()) return Obstacle::kPinned;
    // at::from_blob without a deleter: the lifetime of the memory is not known.
    if (data.get_context() == nullptr && data.get() != nullptr) return Obstacle::kAliased;
  }
  if (isHooked(storage)) return Obstacle::kHooked;
  return sharingObstacle(storage);
}

// Bytes of a dense copy. An expanded tensor may have more than can be counted.
int64_t denseBytes(const at::Tensor& tensor) {
  int64_t bytes;
  const bool overflows =
      __builtin_mul_overflow(tensor.numel(), static_cast<int64_t>(tensor.element_size()), &bytes);
  return overflows ? std::numeric_limits<int64_t>::max() : bytes;
}

// Whether the storage includes the last element. Resizing a storage ignores its tensors.
[[gnu::no_stack_protector]] bool reachesLastElement(const at::Tensor& tensor, int64_t dense_bytes) {
  if (dense_bytes == 0) return true;
  const auto itemsize = static_cast<size_t>(tensor.element_size());
  const auto offset = static_cast<size_t>(tensor.storage_offset());
  const size_t end =
      tensor.is_contiguous()
          ? offset * itemsize + static_cast<size_t>(dense_bytes)
          : at::detail::computeStorageNbytes(tensor.sizes(), tensor.strides(), itemsize, offset);
  return end <= tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl()->nbytes();
}

// The obstacle of a tensor with ordinaryCpuKeys().
Obstacle ordinaryObstacle(const at::Tensor& tensor, bool hold, TorchFacts* facts) {
  facts->ndim = static_cast<int32_t>(tensor.dim());
  facts->shape = tensor.sizes().data();
  facts->dtype = dtypeFromScalarType(tensor.scalar_type());
  if (facts->dtype == Dtype::kUnknown) {
    setName(facts, tensor.scalar_type());
    return Obstacle::kUnknownDtype;
  }
  facts->nbytes = denseBytes(tensor);
  if (!reachesLastElement(tensor, facts->nbytes)) return Obstacle::kNoMemory;
  facts->data = tensor.const_data_ptr();
  if (!tensor.is_contiguous()) return Obstacle::kStrided;
  if (!suitsTensorFlow(facts->data)) return Obstacle::kMisaligned;
  return storageObstacle(tensor, hold, facts);
}

Obstacle findObstacle(const at::Tensor& tensor, bool hold, TorchFacts* facts) {
  if (__builtin_expect(tensor.key_set() == ordinaryCpuKeys() && tensor.has_storage(), 1)) {
    return ordinaryObstacle(tensor, hold, facts);
  }
  if (isWrapped(tensor.key_set())) return Obstacle::kWrapped;
  const bool mkldnn = tensor.layout() == at::kMkldnn;
  if ((tensor.layout() != at::kStrided && !mkldnn) || tensor.is_nested()) {
    setName(facts, tensor.layout());
    return Obstacle::kNotDense;
  }
  facts->ndim = static_cast<int32_t>(tensor.dim());
  facts->shape = tensor.sizes().data();
  facts->dtype = dtypeFromScalarType(tensor.scalar_type());
  if (tensor.is_quantized()) {
    setName(facts, tensor.scalar_type());
    return Obstacle::kQuantized;
  }
  if (tensor.is_meta()) return Obstacle::kMeta;
  if (facts->dtype == Dtype::kUnknown) {
    setName(facts, tensor.scalar_type());
    return Obstacle::kUnknownDtype;
  }
  facts->nbytes = denseBytes(tensor);
  if (mkldnn) return Obstacle::kMkldnn;
  const bool zero = tensor._is_zerotensor();
  if (!zero && tensor.has_storage() && !reachesLastElement(tensor, facts->nbytes)) {
    return Obstacle::kNoMemory;
  }
  if (!tensor.is_cpu()) {
    facts->device = DLDevice{tensor.is_cuda() ? kDLCUDA : kDLExtDev, tensor.device().index()};
    setName(facts, tensor.device());
    return Obstacle::kDevice;
  }
  if (zero) return Obstacle::kZero;
  if (tensor.is_conj()) return Obstacle::kConjugate;
  if (tensor.is_neg()) return Obstacle::kNegative;
  if (!tensor.has_storage()) return Obstacle::kNotDense;
  facts->data = tensor.const_data_ptr();
  if (!tensor.is_contiguous()) return Obstacle::kStrided;
  if (!suitsTensorFlow(facts->data)) return Obstacle::kMisaligned;
  return storageObstacle(tensor, hold, facts);
}

}  // namespace

void describeTensor(const at::Tensor& tensor, bool hold, TorchFacts* facts) noexcept {
  // Without the name, the larger part of the struct, which only some obstacles need.
  std::memset(facts, 0, offsetof(TorchFacts, name));
  facts->dtype = Dtype::kUnknown;
  facts->device = DLDevice{kDLCPU, 0};
  try {
    facts->requires_grad = tensor.requires_grad();
    facts->obstacle = findObstacle(tensor, hold, facts);
  } catch (...) {
    // Symbolic shapes and fake storages: a tensor that refuses to be read counts as wrapped.
    facts->obstacle = Obstacle::kWrapped;
  }
}

void copyElements(const at::Tensor& tensor, c10::ScalarType type, void* out) {
  const BelowModes guard;
  at::Tensor target = at::for_blob(out, tensor.sizes())
                          .options(at::TensorOptions().dtype(type))
                          .target_device(c10::Device(c10::kCPU))
                          .make_tensor();
  // No second reference: from 2.13 on torch takes the GIL to make and to drop a reference to a
  // tensor that has a Python object, and the caller may have released the GIL.
  if (tensor.layout() == at::kMkldnn) {
    target.copy_(tensor.to_dense());
  } else {
    target.copy_(tensor);
  }
}

}  // namespace tensor_bridge
