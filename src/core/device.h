// Device names: torch's ("cuda:0") from a device, for messages and explain.
// Not for: TensorFlow's device strings (adapters/tensorflow).
#ifndef TENSOR_BRIDGE_CORE_DEVICE_H_
#define TENSOR_BRIDGE_CORE_DEVICE_H_

#include <cstddef>

#include "dlpack/dlpack.h"

namespace tensor_bridge {

/// Writes torch's name of `device`, e.g. "cpu" or "cuda:1".
void deviceName(DLDevice device, char* out, size_t size) noexcept;

/// Whether a tensor there can be read by the host.
inline bool isHost(DLDevice device) noexcept { return device.device_type == kDLCPU; }

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_CORE_DEVICE_H_
