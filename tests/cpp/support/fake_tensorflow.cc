// See fake_tensorflow.h. FAKE_WITHOUT_BITCAST and FAKE_WITHOUT_EXECUTE leave a function out.

#include "support/fake_tensorflow.h"

#include <cstring>
#include <string>
#include <vector>

#define FAKE_EXPORT extern "C" __attribute__((visibility("default")))

using tensor_bridge::testing::FakeSpec;
using tensor_bridge::testing::FakeTensorflow;

namespace {

FakeTensorflow* fake();

// TensorFlow's reference-counted buffer.
struct Buffer {
  std::atomic<int> references{1};
  void* data = nullptr;
  void unref() {
    if (references.fetch_sub(1) == 1) delete this;
  }
};

}  // namespace

struct TF_Status {
  int code = 0;
  std::string message;
};

struct TF_Tensor {
  FakeSpec spec;
  std::vector<int64_t> dims;
  Buffer* buffer;
};

struct TFE_TensorHandle {
  FakeSpec spec;
  std::vector<int64_t> dims;
  std::atomic<int> references{1};
};

struct TFE_Context;

struct TFE_Op {
  int read;  // 0: another op
};

namespace {

std::vector<int64_t> dimsOf(const FakeSpec& spec) {
  return spec.dims == nullptr || spec.ndim <= 0
             ? std::vector<int64_t>()
             : std::vector<int64_t>(spec.dims, spec.dims + spec.ndim);
}

TF_Tensor* newTensor(const FakeSpec* spec) {
  ++fake()->tensors;
  auto* buffer = new Buffer;
  buffer->data = spec->data;
  return new TF_Tensor{*spec, dimsOf(*spec), buffer};
}

TFE_TensorHandle* newHandle(const FakeSpec* spec) {
  ++fake()->handles;
  return new TFE_TensorHandle{*spec, dimsOf(*spec)};
}

FakeTensorflow* fake() {
  static auto* instance = [] {
    auto* made = new FakeTensorflow{};
    made->tensor = newTensor;
    made->handle = newHandle;
    made->reset();
    return made;
  }();
  return instance;
}

void set(TF_Status* status, int code, const char* message) {
  status->code = code;
  status->message = message == nullptr ? "" : message;
}

// Like TensorFlow, it always writes the status. False if `function` must fail.
bool succeeds(TFE_TensorHandle* handle, const char* function, TF_Status* status) {
  if (std::strcmp(handle->spec.fails_in, function) == 0) {
    set(status, handle->spec.code, handle->spec.message);
    return false;
  }
  set(status, 0, "");
  return true;
}

bool readFailsIn(const TFE_Op* op, const char* function, TF_Status* status) {
  const char* failing = fake()->read_fails_in;
  if (op->read != fake()->read_fails_at || failing == nullptr) return false;
  if (std::strcmp(failing, function) != 0) return false;
  set(status, 9, "the variable is uninitialised");
  return true;
}

}  // namespace

FAKE_EXPORT FakeTensorflow* fake_tensorflow() { return fake(); }

// --- TF_* ---------------------------------------------------------------------------------------

FAKE_EXPORT TF_Status* TF_NewStatus() {
  ++fake()->statuses;
  return new TF_Status;
}
FAKE_EXPORT void TF_DeleteStatus(TF_Status* status) {
  --fake()->statuses;
  delete status;
}
FAKE_EXPORT void TF_SetStatus(TF_Status* status, int code, const char* message) {
  set(status, code, message);
}
FAKE_EXPORT int TF_GetCode(const TF_Status* status) { return status->code; }
FAKE_EXPORT const char* TF_Message(const TF_Status* status) { return status->message.c_str(); }

FAKE_EXPORT TF_Tensor* TF_NewTensor(int dtype, const int64_t* dims, int ndim, void* data,
                                    size_t size, void (*)(void*, size_t, void*), void*) {
  FakeSpec spec;
  spec.dtype = dtype;
  spec.dims = dims;
  spec.ndim = ndim;
  spec.data = data;
  spec.byte_size = size;
  return newTensor(&spec);
}
FAKE_EXPORT TF_Tensor* TF_AllocateTensor(int dtype, const int64_t* dims, int ndim, size_t size) {
  ++fake()->allocate_calls;
  if (fake()->allocate_fails) return nullptr;
  return TF_NewTensor(dtype, dims, ndim, nullptr, size, nullptr, nullptr);
}
FAKE_EXPORT void TF_DeleteTensor(TF_Tensor* tensor) {
  --fake()->tensors;
  tensor->buffer->unref();
  delete tensor;
}
FAKE_EXPORT int TF_TensorType(const TF_Tensor* tensor) { return tensor->spec.dtype; }
FAKE_EXPORT int TF_NumDims(const TF_Tensor* tensor) { return tensor->spec.ndim; }
FAKE_EXPORT int64_t TF_Dim(const TF_Tensor* tensor, int i) {
  return tensor->dims.at(static_cast<size_t>(i));
}
FAKE_EXPORT size_t TF_TensorByteSize(const TF_Tensor* tensor) { return tensor->spec.byte_size; }
FAKE_EXPORT void* TF_TensorData(const TF_Tensor* tensor) { return tensor->buffer->data; }
#ifndef FAKE_WITHOUT_BITCAST
FAKE_EXPORT void TF_TensorBitcastFrom(const TF_Tensor* from, int dtype, TF_Tensor* to,
                                      const int64_t* dims, int ndim, TF_Status* status) {
  if (const char* error = fake()->bitcast_error) {
    set(status, 3, error);
    return;
  }
  set(status, 0, "");
  to->spec = from->spec;
  to->spec.dtype = dtype;
  to->dims.assign(dims, dims + ndim);
  from->buffer->references.fetch_add(1);
  to->buffer->unref();
  to->buffer = from->buffer;
}
#endif

// --- TFE_* --------------------------------------------------------------------------------------

FAKE_EXPORT int TFE_TensorHandleDataType(TFE_TensorHandle* handle) { return handle->spec.dtype; }
FAKE_EXPORT int TFE_TensorHandleNumDims(TFE_TensorHandle* handle, TF_Status* status) {
  return succeeds(handle, "NumDims", status) ? handle->spec.ndim : -1;
}
FAKE_EXPORT int64_t TFE_TensorHandleDim(TFE_TensorHandle* handle, int i, TF_Status* status) {
  return succeeds(handle, "Dim", status) ? handle->dims.at(static_cast<size_t>(i)) : -1;
}
FAKE_EXPORT int64_t TFE_TensorHandleNumElements(TFE_TensorHandle*, TF_Status* status) {
  set(status, 0, "");
  return 0;
}
FAKE_EXPORT void* TFE_TensorHandleDevicePointer(TFE_TensorHandle* handle, TF_Status* status) {
  ++fake()->device_pointer_calls;
  return succeeds(handle, "DevicePointer", status) ? handle->spec.data : nullptr;
}
FAKE_EXPORT TF_Tensor* TFE_TensorHandleResolve(TFE_TensorHandle* handle, TF_Status* status) {
  return succeeds(handle, "Resolve", status) ? newTensor(&handle->spec) : nullptr;
}
FAKE_EXPORT const char* TFE_TensorHandleDeviceName(TFE_TensorHandle* handle, TF_Status* status) {
  return succeeds(handle, "DeviceName", status) ? handle->spec.device : nullptr;
}
FAKE_EXPORT const char* TFE_TensorHandleBackingDeviceName(TFE_TensorHandle* handle,
                                                          TF_Status* status) {
  return succeeds(handle, "BackingDeviceName", status) ? handle->spec.backing_device : nullptr;
}
FAKE_EXPORT TFE_TensorHandle* TFE_TensorHandleCopySharingTensor(TFE_TensorHandle* handle,
                                                                TF_Status* status) {
  if (!succeeds(handle, "CopySharingTensor", status)) return nullptr;
  ++handle->references;
  return handle;
}
FAKE_EXPORT void TFE_DeleteTensorHandle(TFE_TensorHandle* handle) {
  if (handle->references.fetch_sub(1) != 1) return;
  --fake()->handles;
  delete handle;
}

FAKE_EXPORT TFE_Op* TFE_NewOp(TFE_Context*, const char* name, TF_Status* status) {
  ++fake()->ops;
  const bool reads = std::strcmp(name, "ReadVariableOp") == 0;
  auto* op = new TFE_Op{reads ? ++fake()->reads_done : 0};
  if (readFailsIn(op, "NewOp", status)) {
    --fake()->ops;
    delete op;
    return nullptr;
  }
  set(status, 0, "");
  return op;
}
FAKE_EXPORT void TFE_DeleteOp(TFE_Op* op) {
  --fake()->ops;
  delete op;
}
FAKE_EXPORT void TFE_OpAddInput(TFE_Op* op, TFE_TensorHandle*, TF_Status* status) {
  if (!readFailsIn(op, "OpAddInput", status)) set(status, 0, "");
}
FAKE_EXPORT void TFE_OpSetAttrType(TFE_Op*, const char*, int) {}
#ifndef FAKE_WITHOUT_EXECUTE
FAKE_EXPORT void TFE_Execute(TFE_Op* op, TFE_TensorHandle** values, int* count, TF_Status* status) {
  if (readFailsIn(op, "Execute", status)) {
    *count = 0;
    return;
  }
  set(status, 0, "");
  if (*count == 0) return;  // NoOp
  *count = 1;
  if (op->read == 0) {
    // VarIsInitializedOp.
    FakeSpec answer;
    answer.dtype = 10;
    answer.data = &fake()->variable_is_assigned;
    *values = newHandle(&answer);
    return;
  }
  *values = newHandle(&fake()->reads[(op->read - 1) % fake()->read_values]);
}
#endif
