// TensorFlow's side of the C++ SDK: a small owner for TF_Tensor, and how to name the TensorFlow to
// use. It needs no TensorFlow header. Not for: converting (torch.h).
#ifndef TENSOR_BRIDGE_TENSORFLOW_H_
#define TENSOR_BRIDGE_TENSORFLOW_H_

#include <utility>

#include "tensor_bridge/c_api.h"
#include "tensor_bridge/error.h"

namespace tensor_bridge {

/// Uses the TensorFlow behind `dlopen_handle`, which must stay open. Needed only where none of
/// TensorFlow's own libraries is loaded under its SONAME, and before the first conversion. Throws
/// Error{kFramework}, also while tensors of another TensorFlow are alive.
inline void useTensorFlow(void* dlopen_handle) {
  detail::throwIfFailed(tb_use_tensorflow(dlopen_handle));
}

/// Owns one TF_Tensor: says at a call site that the tensor is handed over. Move-only; deletes
/// with `deleter` (TF_DeleteTensor) unless release() took the tensor out.
class OwnedTfTensor {
 public:
  using Deleter = void (*)(TF_Tensor*);

  /// Takes `tensor` over. `deleter` is TensorFlow's TF_DeleteTensor.
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
  /// The caller owns the tensor again.
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
