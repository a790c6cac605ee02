// LIFETIME: the one release path of everything that outlives a call without torch.

#include "core/managed_tensor.h"

#include <memory>

#include "core/error.h"
#include "core/layout.h"

namespace tensor_bridge {

tb_tensor* makeManagedTensor(const TensorView& view) {
  auto tensor = std::make_unique<tb_tensor>();
  const int ndim = view.dl.ndim;
  tensor->view = view;
  tensor->shape.assign(view.dl.shape, view.dl.shape + ndim);
  if (view.dl.strides != nullptr) {
    tensor->strides.assign(view.dl.strides, view.dl.strides + ndim);
  } else {
    tensor->strides.resize(static_cast<size_t>(ndim));
    rowMajorStrides(tensor->shape.data(), ndim, tensor->strides.data());
  }
  tensor->view.dl.shape = tensor->shape.data();
  tensor->view.dl.strides = tensor->strides.data();
  tensor->references.store(1, std::memory_order_relaxed);
  return tensor.release();
}

void dropReference(tb_tensor* tensor) noexcept {
  if (tensor == nullptr) return;
  if (tensor->references.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  tensor->view.release(tensor->view.owner);
  delete tensor;
}

DLManagedTensorVersioned* toDlpack(tb_tensor* tensor) {
  const DtypeInfo& info = dtypeInfo(tensor->view.dtype);
  if (info.dl.code == 255) {
    throwError(ErrorCode::kUnsupportedDtype, "DLPack has no dtype for TensorFlow's %s", info.name);
  }
  auto* managed = new DLManagedTensorVersioned{};
  managed->version.major = DLPACK_MAJOR_VERSION;
  managed->version.minor = DLPACK_MINOR_VERSION;
  managed->manager_ctx = tensor;
  managed->deleter = [](DLManagedTensorVersioned* self) {
    dropReference(static_cast<tb_tensor*>(self->manager_ctx));
    delete self;
  };
  managed->flags = tensor->view.read_only ? DLPACK_FLAG_BITMASK_READ_ONLY : 0;
  managed->dl_tensor = tensor->view.dl;
  tensor->references.fetch_add(1, std::memory_order_relaxed);
  return managed;
}

}  // namespace tensor_bridge
