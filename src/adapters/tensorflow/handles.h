// TfTensor, TfeHandle and the like: owners of objects that TensorFlow's C API makes; and the one
// conversion of a TF_Status to an Error. Not for: owners that torch's memory refers to (owner.h).
#ifndef TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_HANDLES_H_
#define TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_HANDLES_H_

#include <cstddef>
#include <utility>

#include "adapters/tensorflow/tf_api.h"
#include "core/exit.h"

namespace tensor_bridge {

namespace detail {
inline void destroy(const TfApi& api, TF_Tensor* tensor) { api.TF_DeleteTensor(tensor); }
inline void destroy(const TfApi& api, TFE_TensorHandle* h) { api.TFE_DeleteTensorHandle(h); }
inline void destroy(const TfApi& api, TFE_Op* op) { api.TFE_DeleteOp(op); }
inline void destroy(const TfApi& api, TFE_CancellationManager* manager) {
  api.TFE_DeleteCancellationManager(manager);
}
inline void destroy(const TfApi& api, TFE_Executor* executor) { api.TFE_DeleteExecutor(executor); }
}  // namespace detail

/// Owns an object, which may be null, and deletes it by the table that made it. Leaks while the
/// process exits: TensorFlow's static objects may be gone. Not std::unique_ptr: GCC 12 calls its
/// destructor out of line, 0.5 % of the instructions of to_tf.
template <typename T>
class TfOwned {
 public:
  TfOwned() noexcept = default;
  TfOwned(const TfApi& api, T* object) noexcept : api_(&api), object_(object) {}
  TfOwned(TfOwned&& other) noexcept : api_(other.api_), object_(other.release()) {}
  TfOwned& operator=(TfOwned&& other) noexcept {
    std::swap(api_, other.api_);
    std::swap(object_, other.object_);
    return *this;
  }
  [[gnu::always_inline]] ~TfOwned() { reset(); }

  T* get() const noexcept { return object_; }
  T* release() noexcept { return std::exchange(object_, nullptr); }
  [[gnu::always_inline]] void reset() noexcept {
    if (object_ != nullptr && !processExiting()) detail::destroy(*api_, object_);
    object_ = nullptr;
  }
  explicit operator bool() const noexcept { return object_ != nullptr; }
  bool operator==(std::nullptr_t) const noexcept { return object_ == nullptr; }
  bool operator!=(std::nullptr_t) const noexcept { return object_ != nullptr; }

 private:
  const TfApi* api_ = nullptr;
  T* object_ = nullptr;
};

using TfTensor = TfOwned<TF_Tensor>;
using TfeHandle = TfOwned<TFE_TensorHandle>;
using TfeOp = TfOwned<TFE_Op>;

/// Takes over `object`, which may be null.
template <typename T>
TfOwned<T> owned(const TfApi& api, T* object) noexcept {
  return TfOwned<T>(api, object);
}

/// Throws Error{kTensorFlow}: `what` and TensorFlow's message. `status` is OK again afterwards.
[[noreturn]] void throwStatus(const TfApi& api, TF_Status* status, const char* what);

/// The same unless `status` is OK.
inline void check(const TfApi& api, TF_Status* status, const char* what) {
  if (__builtin_expect(api.TF_GetCode(status) != kTfOk, 0)) throwStatus(api, status, what);
}

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_HANDLES_H_
