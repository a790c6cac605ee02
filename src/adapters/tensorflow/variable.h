// Reading a resource variable through TensorFlow's C API: 3.4 us, where v.read_value() takes 32.
// Not for: writing one.
#ifndef TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_VARIABLE_H_
#define TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_VARIABLE_H_

#include "adapters/tensorflow/handles.h"

namespace tensor_bridge {

/// Runs ReadVariableOp on `resource`. The handle shares the variable's buffer, unless a scatter
/// update has switched the variable to copy-on-read: then TensorFlow copies at each read. Either
/// way it is a snapshot: TensorFlow moves a variable whose buffer is shared before it updates it.
/// Blocks; hold no lock that a running op may want. Throws Error{kTensorFlow}, e.g. for an
/// uninitialised variable.
TfeHandle readVariable(const TfApi& api, TFE_Context* context, TFE_TensorHandle* resource,
                       int tf_enum);

/// Whether TensorFlow copies at each read of the variable: two reads that live at the same time
/// then do not share memory. `first` is one read; makes and drops a second one.
bool copiedAtRead(const TfApi& api, TFE_Context* context, TFE_TensorHandle* resource, int tf_enum,
                  TFE_TensorHandle* first);

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_VARIABLE_H_
