// Violations on the device, and calls of functions and kernels that it lacks. Not for: finding
// races (race_detector.h).
#ifndef TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_VIOLATIONS_H_
#define TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_VIOLATIONS_H_

#include <string>

#include "device/errors.h"

namespace gpu_emulator {

/// Keeps the text. The first violation of a kind is also printed to stderr, with a backtrace if
/// CUDA_EMU_TRACE=1.
void addViolationLocked(const std::string& kind, const std::string& text);
int violations();
std::string violation(int index);
void clearViolations();

/// Records the call of a CUDA function without a stand-in. The call fails.
EMU_EXPORT void missingFunction(const char* name);
/// Records the launch of a kernel without a stand-in. Nothing is computed.
EMU_EXPORT void missingKernel(const char* name);
int missingKernels();
std::string missingKernelName(int index);
void clearMissingKernels();

}  // namespace gpu_emulator

#endif  // TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_VIOLATIONS_H_
