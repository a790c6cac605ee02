// The version of tensor_bridge: its one home. CMake, the wheel and the libraries read it from here.
// Not for compatibility checks of torch or TensorFlow: those are in the adapters.
#ifndef TENSOR_BRIDGE_VERSION_H_
#define TENSOR_BRIDGE_VERSION_H_

#define TENSOR_BRIDGE_VERSION_MAJOR 0
#define TENSOR_BRIDGE_VERSION_MINOR 1
#define TENSOR_BRIDGE_VERSION_PATCH 0
#define TENSOR_BRIDGE_VERSION "0.1.0"

#endif  // TENSOR_BRIDGE_VERSION_H_
