#include "core/managed_tensor.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#include "core/dlpack_import.h"
#include "core/error.h"
#include "core/layout.h"

namespace tensor_bridge {

ManagedPointer makeManagedTensor(TensorRef* ref) {
  auto tensor = std::make_unique<tb_tensor>();
  const int ndim = ref->dl.ndim;
  tensor->shape.assign(ref->dl.shape, ref->dl.shape + ndim);
  if (ref->dl.strides != nullptr) {
    tensor->strides.assign(ref->dl.strides, ref->dl.strides + ndim);
  } else {
    tensor->strides.resize(static_cast<size_t>(ndim));
    rowMajorStrides(tensor->shape.data(), ndim, tensor->strides.data());
  }
  tensor->ref = std::move(*ref);
  tensor->ref.dl.shape = tensor->shape.data();
  tensor->ref.dl.strides = tensor->strides.data();
  tensor->references.store(1, std::memory_order_relaxed);
  return ManagedPointer(tensor.release());
}

void dropReference(tb_tensor* tensor) noexcept {
  if (tensor == nullptr) return;
  if (tensor->references.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  delete tensor;
}

namespace {

void checkDlpackDtype(Dtype dtype) {
  const DtypeInfo& info = dtypeInfo(dtype);
  if (info.dl.code == 255) {
    throwError(ErrorCode::kUnsupportedDtype, "DLPack has no dtype for TensorFlow's %s", info.name);
  }
}

// DLPack requires 256 bytes (dlpack.h, DLTensor::data).
constexpr size_t kDlpackAlignment = 256;

// A structure over new memory of `view`'s shape and dtype, not filled.
DLManagedTensorVersioned* allocateLike(const TensorView& view) {
  const auto bytes = static_cast<size_t>(view.nbytes);
  const size_t rounded = (bytes / kDlpackAlignment + 1) * kDlpackAlignment;
  void* memory = std::aligned_alloc(kDlpackAlignment, rounded);
  if (memory == nullptr) throw std::bad_alloc();
  TensorRef fresh(view, memory, std::free);
  fresh.dl.data = memory;
  fresh.dl.device = DLDevice{kDLCPU, 0};
  fresh.dl.strides = nullptr;
  fresh.read_only = false;
  return toDlpack(makeManagedTensor(&fresh).get());
}

}  // namespace

DLManagedTensorVersioned* copyToDlpack(const TensorView& view) {
  checkDlpackDtype(view.dtype);
  DLManagedTensorVersioned* managed = allocateLike(view);
  if (view.nbytes > 0) {
    std::memcpy(managed->dl_tensor.data, view.dl.data, static_cast<size_t>(view.nbytes));
  }
  managed->flags |= DLPACK_FLAG_BITMASK_IS_COPIED;
  return managed;
}

DLManagedTensorVersioned* allocateDlpack(const DLTensor& prototype) {
  if (prototype.device.device_type != kDLCPU) {
    throwError(ErrorCode::kUnsupportedDevice, "expected a prototype on the CPU, got device type %d",
               static_cast<int>(prototype.device.device_type));
  }
  TensorView view{};
  view.dl = prototype;
  view.dtype = dtypeFromDlpack(prototype.dtype);
  int64_t count;
  if (prototype.ndim < 0 || prototype.ndim > kMaxDims ||
      (prototype.ndim > 0 && prototype.shape == nullptr) ||
      !elementCount(prototype.shape, prototype.ndim, &count) ||
      !byteCount(count, dtypeInfo(view.dtype).itemsize, &view.nbytes)) {
    throwError(ErrorCode::kInvalidHandle,
               "the prototype's shape is missing, negative, or overflows 64 bits");
  }
  return allocateLike(view);
}

DLManagedTensorVersioned* toDlpack(tb_tensor* tensor) {
  checkDlpackDtype(tensor->ref.dtype);
  auto* managed = new DLManagedTensorVersioned{};
  managed->version.major = DLPACK_MAJOR_VERSION;
  managed->version.minor = DLPACK_MINOR_VERSION;
  managed->manager_ctx = tensor;
  managed->deleter = [](DLManagedTensorVersioned* self) {
    dropReference(static_cast<tb_tensor*>(self->manager_ctx));
    delete self;
  };
  managed->flags = tensor->ref.read_only ? DLPACK_FLAG_BITMASK_READ_ONLY : 0;
  managed->dl_tensor = tensor->ref.dl;
  tensor->references.fetch_add(1, std::memory_order_relaxed);
  return managed;
}

}  // namespace tensor_bridge
