// OwnedTfTensor, which owns a TF_Tensor, and useTensorFlow(), which chooses the TensorFlow to use.
// Needs no TensorFlow header. Not for: converting (torch.h).
#ifndef TENSOR_BRIDGE_TENSORFLOW_H_
#define TENSOR_BRIDGE_TENSORFLOW_H_

#include <utility>

#include "tensor_bridge/c_api.h"
#include "tensor_bridge/error.h"

namespace tensor_bridge {

/// Uses the TensorFlow of `dlopen_handle`, a handle from dlopen() that must stay open. Needed only
/// if none of TensorFlow's own libraries is loaded under its SONAME; call it before the first
/// conversion. Throws Error{kFramework} if the library lacks TensorFlow's functions, or while
/// tensors of another TensorFlow are alive.
inline void useTensorFlow(void* dlopen_handle) {
  detail::throwIfFailed(tb_use_tensorflow(dlopen_handle));
}

/// Owns one TF_Tensor, which shows in a call that the tensor is taken over. Move-only. Deletes the
/// tensor with `deleter` unless release() took it out.
class OwnedTfTensor {
 public:
  using Deleter = void (*)(TF_Tensor*);

  /// Takes `tensor`, which may be null, over. `deleter` is TensorFlow's TF_DeleteTensor.
  OwnedTfTensor(TF_Tensor* tensor, Deleter deleter) noexcept : tensor_(tensor), deleter_(deleter) {}
  OwnedTfTensor(OwnedTfTensor&& other) noexcept
      : tensor_(std::exchange(other.tensor_, nullptr)), deleter_(other.deleter_) {}
  OwnedTfTensor& operator=(OwnedTfTensor&& other) noexcept {
    if (this != &other) {
      reset();
      tensor_ = std::exchange(other.tensor_, nullptr);
      deleter_ = other.deleter_;
    }
    return *this;
  }
  OwnedTfTensor(const OwnedTfTensor&) = delete;
  OwnedTfTensor& operator=(const OwnedTfTensor&) = delete;
  ~OwnedTfTensor() { reset(); }

  TF_Tensor* get() const noexcept { return tensor_; }
  /// Returns the tensor to the caller, who then owns it.
  [[nodiscard]] TF_Tensor* release() noexcept { return std::exchange(tensor_, nullptr); }
  void reset() noexcept {
    if (tensor_ != nullptr) deleter_(std::exchange(tensor_, nullptr));
  }
  explicit operator bool() const noexcept { return tensor_ != nullptr; }

 private:
  TF_Tensor* tensor_;
  Deleter deleter_;
};

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_TENSORFLOW_H_
