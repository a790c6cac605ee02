// From TensorFlow's tensors to a TensorRef: no copy, always read-only.
// Not for: deciding whether to share (bridge), or knowing torch.
#ifndef TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_READER_H_
#define TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_READER_H_

#include <string>

#include "adapters/tensorflow/handles.h"
#include "core/tensor_ref.h"

namespace tensor_bridge {

/// Refers to the memory behind `handle`. On return `ref->dl.shape` is `shape`, which has room for
/// kMaxDims. Blocks until the tensor's producer has finished; hold no lock that the producer may
/// want (the GIL) unless api.isReady(handle). Throws Error: kUnsupportedDtype before it touches
/// memory of strings, resources and variants (TFE_TensorHandleDevicePointer aborts on them in 2.20
/// and 2.21), kUnsupportedDevice for remote, packed and custom-device handles, kTensorFlow with
/// TensorFlow's message if the producer failed.
void exportHandle(const TfApi& api, TFE_TensorHandle* handle, int64_t* shape, TensorRef* ref);

/// The same for the common case, a tensor on this process's first CPU whose handle isReady(), with
/// fewer calls; see Note [Layout of tensorflow::Tensor]. False, with nothing done, in every other
/// case; exportHandle() then does it, or throws the reason.
bool exportReadyHandle(const TfApi& api, TFE_TensorHandle* handle, int64_t* shape,
                       TensorRef* ref) noexcept;

/// The same for a tensor of strings alone.
bool exportReadyStrings(const TfApi& api, TFE_TensorHandle* handle, int64_t* shape,
                        TensorRef* ref) noexcept;

/// Refers to the memory of `tensor`. With `take` the owner is `tensor` itself; otherwise it is a
/// reference to the buffer, and the caller keeps `tensor`. On an Error nothing was taken.
void exportTensor(const TfApi& api, TF_Tensor* tensor, bool take, int64_t* shape, TensorRef* ref);

/// A second TF_Tensor on `tensor`'s buffer. Throws Error.
TfTensor aliasTensor(const TfApi& api, const TF_Tensor* tensor);
/// The same for a caller that already has dtype and shape.
TfTensor aliasTensor(const TfApi& api, const TF_Tensor* tensor, int tf_enum, const int64_t* shape,
                     int ndim);

/// Throws Error{kInvalidHandle} for a number of dimensions that TensorFlow never has.
void checkRank(int ndim);

/// The dtype row of a handle or tensor; kUnknown for one that the table lacks.
Dtype handleDtype(const TfApi& api, TFE_TensorHandle* handle) noexcept;

/// Throws Error{kUnsupportedDtype} for a dtype that has no memory to share.
void checkHasElements(Dtype dtype, int tf_enum);
/// The message of that Error.
std::string noElementsMessage(Dtype dtype);

/// Throws the Error for `status`, which is not OK, about `handle`; the status is OK afterwards.
[[noreturn]] void throwHandleStatus(const TfApi& api, TFE_TensorHandle* handle, TF_Status* status);

/// Where the memory behind `handle` is. Throws Error{kUnsupportedDevice} for a remote, packed or
/// custom device.
DLDevice deviceOfHandle(const TfApi& api, TFE_TensorHandle* handle, TF_Status* status);

/// Parses TensorFlow's full device string ("/job:localhost/replica:0/task:0/device:GPU:0").
/// False for a device that is neither this process's CPU nor a GPU.
bool parseDeviceName(const char* name, DLDevice* device) noexcept;

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_READER_H_
