// The error numbers of CUDA that the device returns, the same for driver and runtime. Not for:
// their names, which differ between the two.
#ifndef TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_ERRORS_H_
#define TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_ERRORS_H_

#define EMU_EXPORT __attribute__((visibility("default")))

namespace gpu_emulator {

using Error = int;

constexpr Error kSuccess = 0;
constexpr Error kInvalidValue = 1;
constexpr Error kOutOfMemory = 2;
constexpr Error kNoDevice = 100;
constexpr Error kInvalidDevice = 101;
constexpr Error kNotFound = 500;
constexpr Error kNotReady = 600;
constexpr Error kUnsupported = 801;
constexpr Error kCaptureUnsupported = 900;
constexpr Error kCaptureInvalidated = 901;
constexpr Error kCaptureUnmatched = 903;
constexpr Error kCaptureIsolation = 905;
constexpr Error kCapturedEvent = 907;

}  // namespace gpu_emulator

#endif  // TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_ERRORS_H_
