// TfTensor, TfeHandle and the like: what TensorFlow's C API makes, with an owner; and the one way
// from a TF_Status to an Error. Not for: owners that torch's memory refers to (owner.h).
#ifndef TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_HANDLES_H_
#define TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_HANDLES_H_

#include <memory>

#include "adapters/tensorflow/tf_api.h"
#include "core/exit.h"

namespace tensor_bridge {

/// Deletes by the table that made the object. Leaks while the process exits: TensorFlow's static
/// objects may be gone.
struct TfDeleter {
  const TfApi* api = nullptr;

  void operator()(TF_Tensor* tensor) const noexcept { run(api->TF_DeleteTensor, tensor); }
  void operator()(TFE_TensorHandle* handle) const noexcept {
    run(api->TFE_DeleteTensorHandle, handle);
  }
  void operator()(TFE_Op* op) const noexcept { run(api->TFE_DeleteOp, op); }
  void operator()(TFE_CancellationManager* manager) const noexcept {
    run(api->TFE_DeleteCancellationManager, manager);
  }
  void operator()(TFE_Executor* executor) const noexcept { run(api->TFE_DeleteExecutor, executor); }

 private:
  template <typename T>
  static void run(void (*destroy)(T*), T* object) noexcept {
    if (!processExiting()) destroy(object);
  }
};

template <typename T>
using TfOwned = std::unique_ptr<T, TfDeleter>;
using TfTensor = TfOwned<TF_Tensor>;
using TfeHandle = TfOwned<TFE_TensorHandle>;
using TfeOp = TfOwned<TFE_Op>;

/// Takes `object`, which may be null, over.
template <typename T>
TfOwned<T> owned(const TfApi& api, T* object) noexcept {
  return TfOwned<T>(object, TfDeleter{&api});
}

/// Throws Error{kTensorFlow}: `what` and TensorFlow's message. `status` is OK again afterwards.
[[noreturn]] void throwStatus(const TfApi& api, TF_Status* status, const char* what);

/// The same unless `status` is OK.
inline void check(const TfApi& api, TF_Status* status, const char* what) {
  if (__builtin_expect(api.TF_GetCode(status) != kTfOk, 0)) throwStatus(api, status, what);
}

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_HANDLES_H_
