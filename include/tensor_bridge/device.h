// A device as in DLPack: a type and an ordinal. Not for: TensorFlow's device names or torch's
// c10::Device; the adapters convert them.
#ifndef TENSOR_BRIDGE_DEVICE_H_
#define TENSOR_BRIDGE_DEVICE_H_

#include <cstdint>
#include <string>

namespace tensor_bridge {

/// The values of DLDeviceType for the devices that both frameworks have.
enum class DeviceType : int32_t { kCpu = 1, kCuda = 2, kRocm = 10 };

struct Device {
  DeviceType type = DeviceType::kCpu;
  /// As torch counts them; -1: the current device of that type.
  int32_t index = -1;

  friend bool operator==(const Device& a, const Device& b) {
    return a.type == b.type && a.index == b.index;
  }
  friend bool operator!=(const Device& a, const Device& b) { return !(a == b); }
};

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_DEVICE_H_
