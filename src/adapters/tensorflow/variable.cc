#include "adapters/tensorflow/variable.h"

#include <string>

#include "adapters/tensorflow/export.h"
#include "core/error.h"

namespace tensor_bridge {

TFE_TensorHandle* readVariable(const TfApi& api, TFE_Context* context, TFE_TensorHandle* resource,
                               int tf_enum) {
  TF_Status* status = threadStatus(api);
  TFE_TensorHandle* value = nullptr;
  TFE_Op* op = api.TFE_NewOp(context, "ReadVariableOp", status);
  if (op != nullptr) {
    api.TFE_OpAddInput(op, resource, status);
    if (api.TF_GetCode(status) == kTfOk) {
      api.TFE_OpSetAttrType(op, "dtype", tf_enum);
      int outputs = 1;
      api.TFE_Execute(op, &value, &outputs, status);
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
