#include "adapters/tensorflow/run_op.h"

#include "adapters/tensorflow/handles.h"

namespace tensor_bridge {
namespace {

// TensorFlow runs each op as a function, and all ops exchange tensors between devices through one
// rendezvous of the context. A failing op aborts the rendezvous, and the next op that moves a
// tensor to a GPU would fail with the same error. On a synchronous executor an op replaces an
// aborted rendezvous, on an asynchronous one it does not (2.12 to 2.21, DoEagerExecute in
// eager/execute.cc).
void renewRendezvous(const TfApi& api, TFE_Context* context) {
  TF_Status* status = api.TF_NewStatus();
  if (const TfeOp nothing = owned(api, api.TFE_NewOp(context, "NoOp", status))) {
    int count = 0;
    api.TFE_Execute(nothing.get(), nullptr, &count, status);
  }
  api.TF_DeleteStatus(status);
}

}  // namespace

void runOp(const TfApi& api, TFE_Context* context, TFE_Op* op, TFE_TensorHandle** outputs,
           int count, TF_Status* status) {
  api.TFE_Execute(op, outputs, &count, status);
  if (__builtin_expect(api.TF_GetCode(status) != kTfOk, 0)) renewRendezvous(api, context);
}

}  // namespace tensor_bridge
