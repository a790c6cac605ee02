// What went wrong on the device, and what the device lacks. Not for: finding races, which is
// race_detector.h.
#ifndef TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_VIOLATIONS_H_
#define TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_VIOLATIONS_H_

#include <string>

#include "device/errors.h"

namespace gpu_emulator {

/// Keeps the text. The first of a kind goes to stderr too, with a backtrace if CUDA_EMU_TRACE=1.
void addViolationLocked(const std::string& kind, const std::string& text);
int violations();
std::string violation(int index);
void clearViolations();

/// A function of CUDA that has no stand-in was called; it fails.
EMU_EXPORT void missingFunction(const char* name);
/// A kernel that has no stand-in was launched on the stream; nothing is computed.
EMU_EXPORT void missingKernel(const char* name);
int missingKernels();
std::string missingKernelName(int index);
void clearMissingKernels();

}  // namespace gpu_emulator

#endif  // TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_VIOLATIONS_H_
