// runOp(): runs an eager operation, and keeps its failure from affecting later operations.
#ifndef TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_RUN_OP_H_
#define TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_RUN_OP_H_

#include "adapters/tensorflow/tf_api.h"

namespace tensor_bridge {

/// TFE_Execute for an op with `count` outputs. `status` says whether it failed.
void runOp(const TfApi& api, TFE_Context* context, TFE_Op* op, TFE_TensorHandle** outputs,
           int count, TF_Status* status);

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_RUN_OP_H_
