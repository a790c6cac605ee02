// Includes the whole C++ SDK. tfTensorToPyTorchTensor is in torch.h.
// Not for: C (c_api.h), or processes without libtorch (include the single headers).
#ifndef TENSOR_BRIDGE_TENSOR_BRIDGE_H_
#define TENSOR_BRIDGE_TENSOR_BRIDGE_H_

#include "tensor_bridge/c_api.h"
#include "tensor_bridge/device.h"
#include "tensor_bridge/dtype.h"
#include "tensor_bridge/error.h"
#include "tensor_bridge/managed_tensor.h"
#include "tensor_bridge/options.h"
#include "tensor_bridge/tensorflow.h"
#include "tensor_bridge/torch.h"
#include "tensor_bridge/version.h"

#endif  // TENSOR_BRIDGE_TENSOR_BRIDGE_H_
