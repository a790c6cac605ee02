#include "adapters/tensorflow/reader.h"

#include <charconv>
#include <cstring>
#include <optional>
#include <string>
#include <system_error>

#include "adapters/tensorflow/gpu.h"
#include "adapters/tensorflow/owner.h"
#include "adapters/tensorflow/strings.h"
#include "adapters/tensorflow/tensor_layout.h"
#include "core/device.h"
#include "core/error.h"
#include "core/layout.h"
#include "core/owner_counter.h"

namespace tensor_bridge {
namespace {

constexpr char kLocalCpu[] = "/job:localhost/replica:0/task:0/device:CPU:0";

[[noreturn]] void throwDevice(const char* name) {
  if (name != nullptr && std::strstr(name, "/device:CUSTOM:") != nullptr) {
    throwError(ErrorCode::kUnsupportedDevice,
               "expected a tensor on a CPU or GPU of this process, got one on the custom device "
               "'%s'; take it off that device first, a DTensor with "
               "tf.experimental.dtensor.unpack(t), which gives its parts",
               name);
  }
  throwError(ErrorCode::kUnsupportedDevice,
             "expected a tensor on a CPU or GPU of this process, got one on '%s' (a remote, packed "
             "or custom device); copy it here first: with tf.device('CPU:0'): t = tf.identity(t)",
             name == nullptr ? "?" : name);
}

}  // namespace

void throwHandleStatus(const TfApi& api, TFE_TensorHandle* handle, TF_Status* status) {
  const std::string message = api.TF_Message(status);
  const int code = api.TF_GetCode(status);
  resetStatus(api, status);
  // TensorHandle keeps remote and packed data behind the same API and says so only here.
  if (code == kTfInvalidArgument && message.find("may not be called on a") != std::string::npos) {
    const char* name = api.TFE_TensorHandleDeviceName(handle, status);
    if (name == nullptr) resetStatus(api, status);
    throwDevice(name);
  }
  throwError(ErrorCode::kTensorFlow,
             "TensorFlow has no value for this tensor, the operation that produces it failed: %s",
             message.c_str());
}

namespace {

void checkStatus(const TfApi& api, TFE_TensorHandle* handle, TF_Status* status) {
  if (api.TF_GetCode(status) != kTfOk) throwHandleStatus(api, handle, status);
}

// The one place that fills a view: row-major, read-only.
[[gnu::always_inline]] inline void fillView(Dtype dtype, int ndim, int64_t* shape, void* data,
                                            DLDevice device, int64_t nbytes, TensorView* view) {
  view->dl.data = data;
  view->dl.device = device;
  view->dl.ndim = ndim;
  view->dl.dtype = dtypeInfo(dtype).dl;
  view->dl.shape = shape;
  view->dl.strides = nullptr;
  view->dl.byte_offset = 0;
  view->dtype = dtype;
  view->read_only = true;
  view->nbytes = nbytes;
}

int64_t checkedBytes(Dtype dtype, int ndim, const int64_t* shape) {
  int64_t count;
  int64_t bytes;
  if (!elementCount(shape, ndim, &count) || !byteCount(count, dtypeInfo(dtype).itemsize, &bytes)) {
    throwError(ErrorCode::kInvalidHandle,
               "the shape that TensorFlow reports is negative or overflows 64 bits");
  }
  return bytes;
}

// The owner of the new reference, which is counted from now on.
void own(void* owner, ReleaseFn release, TensorRef* ref) {
  ref->owner = owner;
  ref->release = release;
  countOwner(1);
}

}  // namespace

void checkHasElements(Dtype dtype, int tf_enum) {
  if (__builtin_expect(dtype == Dtype::kUnknown, 0)) {
    throwError(ErrorCode::kUnsupportedDtype,
               "TensorFlow's dtype number %d is not known to this version of tensor_bridge; cast "
               "the tensor to a numeric dtype first (tf.cast)",
               tf_enum);
  }
  if (__builtin_expect(dtypeInfo(dtype).kind == DtypeKind::kRefused, 0)) {
    throwError(ErrorCode::kUnsupportedDtype, "%s", noElementsMessage(dtype).c_str());
  }
}

void checkRank(int ndim) {
  if (__builtin_expect(ndim >= 0 && ndim <= kMaxDims, 1)) return;
  throwError(ErrorCode::kInvalidHandle, "expected 0 to %d dimensions, TensorFlow reports %d",
             kMaxDims, ndim);
}

std::string noElementsMessage(Dtype dtype) {
  const DtypeInfo& info = dtypeInfo(dtype);
  return formatted("expected a tensor of numbers, got TensorFlow dtype %s: %s", info.name,
                   info.reason);
}

Dtype handleDtype(const TfApi& api, TFE_TensorHandle* handle) noexcept {
  return dtypeFromTf(api.TFE_TensorHandleDataType(handle));
}

bool parseDeviceName(const char* name, DLDevice* device) noexcept {
  if (name == nullptr) return false;
  if (__builtin_expect(std::strcmp(name, kLocalCpu) == 0, 1)) {
    *device = DLDevice{kDLCPU, 0};
    return true;
  }
  const char* kind = std::strstr(name, "/device:");
  if (kind == nullptr) return false;
  kind += std::strlen("/device:");
  // torch has one CPU, so every logical CPU device of TensorFlow maps to it.
  if (std::strncmp(kind, "CPU:", 4) == 0) {
    *device = DLDevice{kDLCPU, 0};
    return true;
  }
  if (std::strncmp(kind, "GPU:", 4) == 0) {
    // TensorFlow's logical number; gpuOfTensor() knows which GPU that is.
    const char* const number = kind + 4;
    const char* const end = number + std::strlen(number);
    int32_t index;
    const auto [rest, error] = std::from_chars(number, end, index);
    if (error != std::errc() || rest != end || index < 0) return false;
    *device = DLDevice{kDLCUDA, index};
    return true;
  }
  return false;
}

DLDevice deviceOfHandle(const TfApi& api, TFE_TensorHandle* handle, TF_Status* status) {
  // The backing device: int32 results "on GPU:0" are backed by host memory.
  const char* name = api.TFE_TensorHandleBackingDeviceName(handle, status);
  DLDevice device;
  if (__builtin_expect(!parseDeviceName(name, &device), 0)) {
    if (name == nullptr) checkStatus(api, handle, status);
    throwDevice(name);
  }
  return device;
}

namespace {

// `itemsizeOf` returns the bytes of an element of a dtype, and 0 for a dtype that it refuses.
template <typename ItemsizeOf>
[[gnu::always_inline]] inline bool exportReady(const TfApi& api, TFE_TensorHandle* handle,
                                               ItemsizeOf itemsizeOf, int64_t* shape,
                                               TensorRef* ref) noexcept {
  const void* tensor = api.localTensor(handle);
  if (tensor == nullptr) return false;
  TensorFields fields;
  if (!readTensorFields(tensor, shape, &fields)) return false;
  const Dtype dtype = dtypeFromTf(fields.tf_enum);
  const int64_t itemsize = itemsizeOf(dtype);
  if (itemsize == 0) return false;
  TF_Status* status = threadStatus(api);
  const char* name = api.TFE_TensorHandleBackingDeviceName(handle, status);
  if (name == nullptr || std::strcmp(name, kLocalCpu) != 0) return false;
  fillView(dtype, fields.ndim, shape, fields.data, DLDevice{kDLCPU, 0},
           fields.num_elements * itemsize, ref);
  own(api.TFE_TensorHandleCopySharingTensor(handle, status), releaseHandle, ref);
  return true;
}

}  // namespace

[[gnu::no_stack_protector]] bool exportReadyHandle(const TfApi& api, TFE_TensorHandle* handle,
                                                   int64_t* shape, TensorRef* ref) noexcept {
  const auto itemsizeOf = [](Dtype dtype) -> int64_t {
    if (dtype == Dtype::kUnknown || dtypeInfo(dtype).kind == DtypeKind::kRefused) return 0;
    return dtypeInfo(dtype).itemsize;
  };
  return exportReady(api, handle, itemsizeOf, shape, ref);
}

bool exportReadyStrings(const TfApi& api, TFE_TensorHandle* handle, int64_t* shape,
                        TensorRef* ref) noexcept {
  const auto itemsizeOf = [](Dtype dtype) { return dtype == Dtype::kString ? kStringBytes : 0; };
  return exportReady(api, handle, itemsizeOf, shape, ref);
}

void exportHandle(const TfApi& api, TFE_TensorHandle* handle, int64_t* shape, TensorRef* ref) {
  const int tf_enum = api.TFE_TensorHandleDataType(handle);
  const Dtype dtype = dtypeFromTf(tf_enum);
  checkHasElements(dtype, tf_enum);
  TF_Status* status = threadStatus(api);
  // Every call below shows a failure in its result; only then is the status read.
  DLDevice device = deviceOfHandle(api, handle, status);
  std::optional<KeptGpu> kept;
  if (!isHost(device)) kept.emplace();
  const bool ready = api.isReady(handle);
  // Waits for the producer, and fails for remote and packed handles. Null for empty tensors too.
  void* data = api.TFE_TensorHandleDevicePointer(handle, status);
  // It waits for the device before it waits for the producer (tensorflow/c/eager/c_api.cc), which
  // with an asynchronous executor queues its kernel only in between.
  if (!ready && data != nullptr && !isHost(device)) {
    data = api.TFE_TensorHandleDevicePointer(handle, status);
  }
  if (__builtin_expect(data == nullptr, 0)) checkStatus(api, handle, status);
  if (!isHost(device)) device.device_id = gpuOfTensor(data, device.device_id);
  const int ndim = api.TFE_TensorHandleNumDims(handle, status);
  if (__builtin_expect(ndim < 0, 0)) checkStatus(api, handle, status);
  checkRank(ndim);
  for (int i = 0; i < ndim; ++i) {
    shape[i] = api.TFE_TensorHandleDim(handle, i, status);
    if (__builtin_expect(shape[i] < 0, 0)) checkStatus(api, handle, status);
  }
  fillView(dtype, ndim, shape, data, device, checkedBytes(dtype, ndim, shape), ref);
  // Only adds a reference: the result is the same handle in 2.12 to 2.21.
  TFE_TensorHandle* owner = api.TFE_TensorHandleCopySharingTensor(handle, status);
  if (__builtin_expect(owner == nullptr, 0)) checkStatus(api, handle, status);
  own(owner, releaseHandle, ref);
}

TfTensor aliasTensor(const TfApi& api, const TF_Tensor* tensor) {
  const int ndim = api.TF_NumDims(tensor);
  int64_t shape[kMaxDims];
  for (int i = 0; i < ndim; ++i) shape[i] = api.TF_Dim(tensor, i);
  return aliasTensor(api, tensor, api.TF_TensorType(tensor), shape, ndim);
}

TfTensor aliasTensor(const TfApi& api, const TF_Tensor* tensor, int tf_enum, const int64_t* shape,
                     int ndim) {
  // An empty tensor re-pointed at the same buffer: the buffer gets one more reference.
  const int64_t none = 0;
  TfTensor alias = owned(api, api.TF_AllocateTensor(tf_enum, &none, 1, 0));
  if (alias == nullptr) throwError(ErrorCode::kOutOfMemory, "TF_AllocateTensor returned null");
  TF_Status* status = threadStatus(api);
  api.TF_TensorBitcastFrom(tensor, tf_enum, alias.get(), shape, ndim, status);
  check(api, status, "TF_TensorBitcastFrom");
  return alias;
}

namespace {

// Makes the tensor's buffer the owner. False, with nothing done, if that is not known to work, or
// for a tensor without elements.
bool ownBufferOf(const TfApi& api, const TF_Tensor* tensor, TensorRef* ref) {
  TensorBuffer* buffer = api.Tensor_destroy == nullptr ? nullptr : bufferOf(tensorInside(tensor));
  if (buffer == nullptr || buffer->data != ref->dl.data) return false;
  retainBuffer(buffer);
  own(buffer, releaseBuffer, ref);
  return true;
}

// Reads the tensor in place. False, with nothing done, if only the C API can read it.
bool exportTensorInPlace(const TfApi& api, TF_Tensor* tensor, bool take, int64_t* shape,
                         TensorRef* ref) {
  if (api.Tensor_destroy == nullptr) return false;
  TensorFields fields;
  if (!readTensorFields(tensorInside(tensor), shape, &fields)) return false;
  const Dtype dtype = dtypeFromTf(fields.tf_enum);
  if (dtype == Dtype::kUnknown || dtypeInfo(dtype).kind == DtypeKind::kRefused) return false;
  const int64_t bytes = fields.num_elements * dtypeInfo(dtype).itemsize;
  if (api.TF_TensorByteSize(tensor) < static_cast<size_t>(bytes)) return false;
  fillView(dtype, fields.ndim, shape, fields.data, DLDevice{kDLCPU, 0}, bytes, ref);
  if (!take) return ownBufferOf(api, tensor, ref);
  own(tensor, releaseTensor, ref);
  return true;
}

}  // namespace

void exportTensor(const TfApi& api, TF_Tensor* tensor, bool take, int64_t* shape, TensorRef* ref) {
  if (tensor == nullptr) {
    throwError(ErrorCode::kInvalidHandle, "expected a TF_Tensor, got null");
  }
  if (__builtin_expect(exportTensorInPlace(api, tensor, take, shape, ref), 1)) return;
  const int tf_enum = api.TF_TensorType(tensor);
  const Dtype dtype = dtypeFromTf(tf_enum);
  checkHasElements(dtype, tf_enum);
  const int ndim = api.TF_NumDims(tensor);
  checkRank(ndim);
  for (int i = 0; i < ndim; ++i) shape[i] = api.TF_Dim(tensor, i);
  const int64_t bytes = checkedBytes(dtype, ndim, shape);
  if (api.TF_TensorByteSize(tensor) < static_cast<size_t>(bytes)) {
    throwError(ErrorCode::kInvalidHandle,
               "the TF_Tensor holds %zu bytes, its shape and dtype need %lld",
               api.TF_TensorByteSize(tensor), static_cast<long long>(bytes));
  }
  fillView(dtype, ndim, shape, api.TF_TensorData(tensor), DLDevice{kDLCPU, 0}, bytes, ref);
  if (!take && ownBufferOf(api, tensor, ref)) return;
  own(take ? tensor : aliasTensor(api, tensor, tf_enum, shape, ndim).release(), releaseTensor, ref);
}

}  // namespace tensor_bridge
