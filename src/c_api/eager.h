// Shared by the entries for Python objects: the handle of an EagerTensor, its view without holding
// the GIL while it is pending, and the torch.Tensor made from a TensorRef.
// Not for: the neutral family.
#ifndef TENSOR_BRIDGE_C_API_EAGER_H_
#define TENSOR_BRIDGE_C_API_EAGER_H_

#include "adapters/tensorflow/reader.h"
#include "bridge/to_torch.h"

namespace tensor_bridge {

[[noreturn]] void throwNoPython();

/// Throws Error{kUnsupportedType} for another object, {kInvalidHandle} for one without a handle.
TFE_TensorHandle* handleOf(const TfApi& api, const _object* tensor);

/// A new tf.Tensor that owns the handle. Throws Error{kTensorFlow}, e.g. if Python has no context.
_object* eagerTensor(const TfApi& api, TfeHandle handle);

/// exportHandle(), without the GIL unless the tensor is ready and on the host. With the GIL,
/// waiting for a tensor that a tf.py_function produces would never end, and waiting for a GPU's
/// stream would stop every thread.
void exportPossiblyPending(const TfApi& api, TFE_TensorHandle* handle, int64_t* shape,
                           TensorRef* ref);

/// A new reference to a torch.Tensor.
_object* toPython(TensorRef* ref, const tb_convert_options& options, Source source);

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_C_API_EAGER_H_
