#include "core/device.h"

#include <cstdio>

namespace tensor_bridge {

void deviceName(DLDevice device, char* out, size_t size) noexcept {
  switch (device.device_type) {
    case kDLCPU:
      std::snprintf(out, size, "cpu");
      return;
    // torch calls ROCm's devices cuda as well.
    case kDLCUDA:
    case kDLROCM:
      if (device.device_id < 0) {
        std::snprintf(out, size, "cuda");
      } else {
        std::snprintf(out, size, "cuda:%d", device.device_id);
      }
      return;
    default:
      std::snprintf(out, size, "dlpack_%d:%d", static_cast<int>(device.device_type),
                    device.device_id);
  }
}

}  // namespace tensor_bridge
