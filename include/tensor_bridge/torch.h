// torch's side of the C++ SDK: tfTensorToPyTorchTensor, pyTorchTensorToTfTensor. Inline, so that
// at::Tensor is always the application's own: only a TensorImpl* crosses the library. Not for:
// processes without libtorch.
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

/// A torch tensor over the memory of `tensor`: no copy where both sides have the dtype, protected
/// against writes as `options.on_write` says. The caller keeps `tensor` and may delete it at once;
/// the result keeps the buffer alive and may be released on any thread. Contiguous, row-major, on
/// the device where TensorFlow has it unless `options.device` says otherwise. Throws Error.
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

/// The same, taking `tensor` over: no second reference is needed. On an Error `tensor` still owns
/// what it owned.
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

/// A TF_Tensor with the values of `tensor`: no copy where TensorFlow can use the memory (host,
/// row-major, aligned to 64 bytes). The next write on torch's side moves torch onto memory of its
/// own, so the result never changes. The caller deletes the result with TF_DeleteTensor, on any
/// thread, and must not write to it. Throws Error.
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

/// Gives back the memory that `tensor`'s storage left when a write moved it, and keeps since then
/// for kernels of other threads. Whether there was some. Only where no operation runs any more that
/// began before the write, and where no pointer taken before it is used. Throws Error.
inline bool releasePrevious(const at::Tensor& tensor) {
  detail::requireTorch();
  int32_t released = 0;
  detail::throwIfFailed(tb_torch_tensor_release_previous(
      reinterpret_cast<tb_torch_tensor*>(tensor.unsafeGetTensorImpl()), &released));
  return released != 0;
}

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_TORCH_H_
