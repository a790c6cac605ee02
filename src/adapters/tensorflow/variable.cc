#include "adapters/tensorflow/variable.h"

#include <string>

#include "adapters/tensorflow/reader.h"
#include "adapters/tensorflow/run_op.h"
#include "core/error.h"

namespace tensor_bridge {
namespace {

// The output of an op on the variable; `tf_enum` is its attribute dtype, 0 where it has none.
TFE_TensorHandle* run(const TfApi& api, TFE_Context* context, const char* name,
                      TFE_TensorHandle* resource, int tf_enum) {
  TF_Status* status = threadStatus(api);
  TFE_TensorHandle* value = nullptr;
  TFE_Op* op = api.TFE_NewOp(context, name, status);
  if (op != nullptr) {
    api.TFE_OpAddInput(op, resource, status);
    if (api.TF_GetCode(status) == kTfOk) {
      if (tf_enum != 0) api.TFE_OpSetAttrType(op, "dtype", tf_enum);
      runOp(api, context, op, &value, 1, status);
    }
    api.TFE_DeleteOp(op);
  }
  if (api.TF_GetCode(status) != kTfOk || value == nullptr) {
    const std::string message = api.TF_Message(status);
    resetStatus(api, status);
    throwError(ErrorCode::kTensorFlow, "TensorFlow could not read the variable: %s",
               message.c_str());
  }
  return value;
}

// A variable that was never assigned reads as an empty vector, without an error.
bool looksUnassigned(const TfApi& api, TFE_TensorHandle* value) {
  TF_Status* status = threadStatus(api);
  const bool empty_vector = api.TFE_TensorHandleNumDims(value, status) == 1 &&
                            api.TFE_TensorHandleDim(value, 0, status) == 0;
  // A read that failed later is reported by the conversion itself.
  if (api.TF_GetCode(status) == kTfOk) return empty_vector;
  resetStatus(api, status);
  return false;
}

bool isAssigned(const TfApi& api, TFE_Context* context, TFE_TensorHandle* resource) {
  TFE_TensorHandle* answer = run(api, context, "VarIsInitializedOp", resource, 0);
  TF_Status* status = threadStatus(api);
  // In host memory, wherever the variable is; null for a remote one, which is refused later.
  const auto* data = static_cast<const bool*>(api.TFE_TensorHandleDevicePointer(answer, status));
  const bool assigned = data == nullptr || *data;
  api.TFE_DeleteTensorHandle(answer);
  if (data == nullptr) resetStatus(api, status);
  return assigned;
}

}  // namespace

TFE_TensorHandle* readVariable(const TfApi& api, TFE_Context* context, TFE_TensorHandle* resource,
                               int tf_enum) {
  TFE_TensorHandle* value = run(api, context, "ReadVariableOp", resource, tf_enum);
  if (__builtin_expect(looksUnassigned(api, value), 0)) {
    bool assigned = true;
    try {
      assigned = isAssigned(api, context, resource);
    } catch (...) {
      api.TFE_DeleteTensorHandle(value);
      throw;
    }
    if (!assigned) {
      api.TFE_DeleteTensorHandle(value);
      throwError(ErrorCode::kTensorFlow,
                 "the variable has no value: it was never initialised. Give it one first "
                 "(variable.assign)");
    }
  }
  return value;
}

bool copiedAtRead(const TfApi& api, TFE_Context* context, TFE_TensorHandle* resource, int tf_enum,
                  TFE_TensorHandle* first) {
  if (dtypeFromTf(tf_enum) == Dtype::kUnknown ||
      dtypeInfo(dtypeFromTf(tf_enum)).kind == DtypeKind::kRefused) {
    return false;
  }
  TF_Status* status = threadStatus(api);
  // A read that failed later, or is not local, gives null here; the conversion itself reports it.
  const void* previous = api.TFE_TensorHandleDevicePointer(first, status);
  TFE_TensorHandle* held = nullptr;
  bool copied = true;
  // An assignment between two reads moves the variable too; three moves in a row are the mode.
  for (int attempt = 0; attempt < 3 && copied; ++attempt) {
    TFE_TensorHandle* next;
    try {
      next = readVariable(api, context, resource, tf_enum);
    } catch (...) {
      if (held != nullptr) api.TFE_DeleteTensorHandle(held);
      throw;
    }
    const void* data = api.TFE_TensorHandleDevicePointer(next, status);
    copied = data != previous;
    previous = data;
    if (held != nullptr) api.TFE_DeleteTensorHandle(held);
    held = next;
  }
  if (held != nullptr) api.TFE_DeleteTensorHandle(held);
  if (previous == nullptr) resetStatus(api, status);
  return copied;
}

}  // namespace tensor_bridge
