// ManagedTensor owns a tb_tensor: a read-only view that keeps a tensor's memory alive, in a process
// with or without torch. Not for: torch tensors (torch.h).
#ifndef TENSOR_BRIDGE_MANAGED_TENSOR_H_
#define TENSOR_BRIDGE_MANAGED_TENSOR_H_

#include <cstdint>
#include <utility>

#include "tensor_bridge/c_api.h"
#include "tensor_bridge/device.h"
#include "tensor_bridge/error.h"

namespace tensor_bridge {

/// A view of a TensorFlow tensor. The memory is read-only, because TensorFlow treats its tensors as
/// immutable. Move-only. May be released on any thread. After a move only assignment and
/// destruction are allowed.
class ManagedTensor {
 public:
  /// Views `tensor` without a copy. The caller keeps `tensor` and may delete it at once. Throws
  /// Error{kUnsupportedDtype} for strings, resources and variants, {kInvalidHandle} for null.
  static ManagedTensor fromTf(TF_Tensor* tensor) {
    tb_tensor* out = nullptr;
    detail::throwIfFailed(tb_tensor_from_tf(tensor, &out));
    return ManagedTensor(out);
  }

  ManagedTensor(ManagedTensor&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  ManagedTensor& operator=(ManagedTensor&& other) noexcept {
    if (this != &other) {
      tb_tensor_release(handle_);
      handle_ = std::exchange(other.handle_, nullptr);
    }
    return *this;
  }
  ManagedTensor(const ManagedTensor&) = delete;
  ManagedTensor& operator=(const ManagedTensor&) = delete;
  ~ManagedTensor() { tb_tensor_release(handle_); }

  /// Address of the first element, on device(). All pointers below are valid while the view exists.
  const void* data() const { return tb_tensor_data(handle_); }
  int32_t ndim() const { return tb_tensor_ndim(handle_); }
  const int64_t* shape() const { return tb_tensor_shape(handle_); }
  /// In elements, row-major; ndim() of them.
  const int64_t* strides() const { return tb_tensor_strides(handle_); }
  /// TensorFlow's name, such as "float32".
  const char* dtype() const { return tb_tensor_dtype(handle_); }
  int64_t nbytes() const { return tb_tensor_nbytes(handle_); }
  Device device() const {
    int32_t type = 1;
    int32_t id = 0;
    tb_tensor_device(handle_, &type, &id);
    return Device{static_cast<DeviceType>(type), id};
  }
  /// Returns a DLPack 1.x structure with READ_ONLY set and its own reference. The caller releases
  /// it with its deleter. Throws Error{kUnsupportedDtype} for a dtype that DLPack lacks.
  DLManagedTensorVersioned* toDlpack() const {
    DLManagedTensorVersioned* out = nullptr;
    detail::throwIfFailed(tb_tensor_to_dlpack(handle_, &out));
    return out;
  }

 private:
  explicit ManagedTensor(tb_tensor* handle) noexcept : handle_(handle) {}
  tb_tensor* handle_;
};

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_MANAGED_TENSOR_H_
