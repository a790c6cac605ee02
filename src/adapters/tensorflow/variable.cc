#include "adapters/tensorflow/variable.h"

#include <utility>

#include "adapters/tensorflow/reader.h"
#include "adapters/tensorflow/run_op.h"
#include "core/error.h"

namespace tensor_bridge {
namespace {

// The output of an op on the variable; `tf_enum` is its attribute dtype, 0 if it has none.
TfeHandle run(const TfApi& api, TFE_Context* context, const char* name, TFE_TensorHandle* resource,
              int tf_enum) {
  constexpr const char* kWhat =
      "expected a variable that is there; make it anew if it was destroyed. TensorFlow could not "
      "read the variable";
  TF_Status* status = threadStatus(api);
  const TfeOp op = owned(api, api.TFE_NewOp(context, name, status));
  if (op == nullptr) throwStatus(api, status, kWhat);
  api.TFE_OpAddInput(op.get(), resource, status);
  check(api, status, kWhat);
  if (tf_enum != 0) api.TFE_OpSetAttrType(op.get(), "dtype", tf_enum);
  TFE_TensorHandle* value = nullptr;
  runOp(api, context, op.get(), &value, 1, status);
  check(api, status, kWhat);
  if (value == nullptr) throwStatus(api, status, kWhat);
  return owned(api, value);
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
  const TfeHandle answer = run(api, context, "VarIsInitializedOp", resource, 0);
  TF_Status* status = threadStatus(api);
  // In host memory, wherever the variable is; null for a remote one, which is refused later.
  const auto* data =
      static_cast<const bool*>(api.TFE_TensorHandleDevicePointer(answer.get(), status));
  if (data == nullptr) resetStatus(api, status);
  return data == nullptr || *data;
}

}  // namespace

TfeHandle readVariable(const TfApi& api, TFE_Context* context, TFE_TensorHandle* resource,
                       int tf_enum) {
  TfeHandle value = run(api, context, "ReadVariableOp", resource, tf_enum);
  if (__builtin_expect(looksUnassigned(api, value.get()), 0) &&
      !isAssigned(api, context, resource)) {
    throwError(ErrorCode::kTensorFlow,
               "the variable has no value: it was never initialised. Give it one first "
               "(variable.assign)");
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
  TfeHandle held;
  bool copied = true;
  // An assignment between two reads moves the variable too; three moves in a row mean copy-on-read.
  for (int attempt = 0; attempt < 3 && copied; ++attempt) {
    // The previous read lives until this one is made, so that two live at the same time.
    TfeHandle next = readVariable(api, context, resource, tf_enum);
    const void* data = api.TFE_TensorHandleDevicePointer(next.get(), status);
    copied = data != previous;
    previous = data;
    held = std::move(next);
  }
  if (previous == nullptr) resetStatus(api, status);
  return copied;
}

}  // namespace tensor_bridge
