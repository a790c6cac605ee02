// Conversions of the C++ SDK: tfTensorToPyTorchTensor, pyTorchTensorToTfTensor. They are inline, so
// that at::Tensor always belongs to the application's headers; only a TensorImpl* crosses the
// library boundary. Not for: processes without libtorch.
#ifndef TENSOR_BRIDGE_TORCH_H_
#define TENSOR_BRIDGE_TORCH_H_

#include <ATen/core/Tensor.h>
#include <torch/version.h>

#include "tensor_bridge/c_api.h"
#include "tensor_bridge/error.h"
#include "tensor_bridge/options.h"
#include "tensor_bridge/tensorflow.h"

namespace tensor_bridge {
namespace detail {

/// Loads the adapter for the torch release whose headers the application is built with; once.
inline void requireTorch() {
  static const bool ready = [] {
    throwIfFailed(tb_use_torch(TORCH_VERSION_MAJOR, TORCH_VERSION_MINOR));
    return true;
  }();
  static_cast<void>(ready);
}

inline at::Tensor reclaim(tb_torch_tensor* tensor) {
  return at::Tensor(c10::intrusive_ptr<at::TensorImpl, at::UndefinedTensorImpl>::reclaim(
      reinterpret_cast<at::TensorImpl*>(tensor)));
}

}  // namespace detail

/// Converts `tensor` to torch. If both frameworks have the dtype, the result shares the memory and
/// is protected against writes as `options.on_write` says; else it is a copy with exact values.
///
/// The result has the same shape. It is contiguous, row-major, a leaf without grad, and on
/// TensorFlow's device unless `options.device` names another one. Its dtype is torch's dtype of the
/// same name, or the nearest one that holds all values (the dtype table).
///
/// The caller keeps `tensor` and may delete it at once: the result holds its own reference to the
/// buffer. The result may be released on any thread.
///
/// Throws Error: kUnsupportedDtype, kCopyRequired (`options.copy` is false), kInvalidOption,
/// kInvalidHandle, kOutOfMemory, kTorch, kFramework.
inline at::Tensor tfTensorToPyTorchTensor(TF_Tensor* tensor) {
  detail::requireTorch();
  tb_torch_tensor* out = nullptr;
  detail::throwIfFailed(tb_tf_to_torch(tensor, nullptr, &out));
  return detail::reclaim(out);
}

inline at::Tensor tfTensorToPyTorchTensor(TF_Tensor* tensor, const ConvertOptions& options) {
  detail::requireTorch();
  const tb_convert_options c = detail::toC(options);
  tb_torch_tensor* out = nullptr;
  detail::throwIfFailed(tb_tf_to_torch(tensor, &c, &out));
  return detail::reclaim(out);
}

/// As above, but takes `tensor` over, which saves a reference. If it throws, `tensor` still owns
/// the TF_Tensor.
inline at::Tensor tfTensorToPyTorchTensor(OwnedTfTensor&& tensor) {
  detail::requireTorch();
  tb_torch_tensor* out = nullptr;
  detail::throwIfFailed(tb_tf_to_torch_consume(tensor.get(), nullptr, &out));
  static_cast<void>(tensor.release());
  return detail::reclaim(out);
}

inline at::Tensor tfTensorToPyTorchTensor(OwnedTfTensor&& tensor, const ConvertOptions& options) {
  detail::requireTorch();
  const tb_convert_options c = detail::toC(options);
  tb_torch_tensor* out = nullptr;
  detail::throwIfFailed(tb_tf_to_torch_consume(tensor.get(), &c, &out));
  static_cast<void>(tensor.release());
  return detail::reclaim(out);
}

/// Converts `tensor` to a TF_Tensor with the same shape and values, and TensorFlow's dtype of the
/// same name unless `options.tf_dtype` names another one. If TensorFlow can use the memory (on the
/// host, row-major, aligned to 64 bytes), the result shares it; else it is a copy.
///
/// The next write in torch moves `tensor` to its own memory, so the result never changes. The
/// caller keeps `tensor`, and owns the result: it deletes it with TF_DeleteTensor, on any thread,
/// and must not write to it.
///
/// Throws Error: kUnsupportedType (sparse, nested, wrapped), kUnsupportedDtype, kUnsupportedDevice
/// (no values), kCopyRequired, kValueOutOfRange (`tf_dtype`), kInvalidOption, kOutOfMemory, kTorch,
/// kFramework.
inline TF_Tensor* pyTorchTensorToTfTensor(const at::Tensor& tensor) {
  detail::requireTorch();
  TF_Tensor* out = nullptr;
  detail::throwIfFailed(tb_torch_to_tf(
      reinterpret_cast<tb_torch_tensor*>(tensor.unsafeGetTensorImpl()), nullptr, &out));
  return out;
}

inline TF_Tensor* pyTorchTensorToTfTensor(const at::Tensor& tensor,
                                          const ConvertBackOptions& options) {
  detail::requireTorch();
  const tb_convert_back_options c = detail::toC(options);
  TF_Tensor* out = nullptr;
  detail::throwIfFailed(
      tb_torch_to_tf(reinterpret_cast<tb_torch_tensor*>(tensor.unsafeGetTensorImpl()), &c, &out));
  return out;
}

/// Releases the memory that `tensor`'s storage has kept since a write moved it. Returns whether
/// there was any. The caller guarantees that no operation that began before the write still runs,
/// and that no pointer from before the write is used any more. Throws Error{kUnsupportedType} for a
/// tensor without a storage of its own.
inline bool releasePrevious(const at::Tensor& tensor) {
  detail::requireTorch();
  int32_t released = 0;
  detail::throwIfFailed(tb_torch_tensor_release_previous(
      reinterpret_cast<tb_torch_tensor*>(tensor.unsafeGetTensorImpl()), &released));
  return released != 0;
}

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_TORCH_H_
