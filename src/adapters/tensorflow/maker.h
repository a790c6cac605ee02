// Into TensorFlow: TF_Tensors over memory that someone else owns, or in TensorFlow's own memory,
// and eager handles. Not for: deciding whether to share, or knowing torch.
#ifndef TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_MAKER_H_
#define TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_MAKER_H_

#include "adapters/tensorflow/handles.h"
#include "core/tensor_ref.h"

namespace tensor_bridge {

/// A tensor over the memory of `ref`, row-major on the host. Takes over the owner on success and
/// releases it, on any thread, when TensorFlow drops the buffer. TensorFlow never writes into such
/// memory (OwnsMemory() is false). Throws Error{kInvalidHandle} for misaligned memory, which
/// TensorFlow would copy silently here and abort on elsewhere.
TfTensor importShared(const TfApi& api, TensorRef* ref);

/// A tensor in TensorFlow's own aligned memory, not filled; `*data` is where to write. Throws
/// Error{kOutOfMemory}.
TfTensor allocateTensor(const TfApi& api, int tf_enum, const int64_t* shape, int ndim,
                        int64_t nbytes, void** data);

/// An eager handle on `tensor`'s buffer; the caller keeps `tensor`. Throws Error{kTensorFlow}.
[[gnu::always_inline]] inline TfeHandle makeHandle(const TfApi& api, TF_Tensor* tensor) {
  TF_Status* status = threadStatus(api);
  TfeHandle handle(api, api.TFE_NewTensorHandle(tensor, status));
  if (handle == nullptr) throwStatus(api, status, "TFE_NewTensorHandle");
  return handle;
}

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_MAKER_H_
