// What the frameworks called, in order: to a file (CUDA_EMU_LOG), and kept for tests that count.
#ifndef TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_CALL_LOG_H_
#define TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_CALL_LOG_H_

#include <string>

#include "device/errors.h"

namespace gpu_emulator {

struct Stream;

/// One line: thread, call, stream ("-" for null) and text. The mutex of the device is not held.
EMU_EXPORT void logCall(const char* call, const Stream* stream, const char* format, ...)
    __attribute__((format(printf, 3, 4)));
/// A host thread waits: for what, as "stream 3". The mutex of the device is held.
void logWaitLocked(const std::string& what);
void logViolationLocked(const std::string& text);

/// From now on lines are kept for keptCall(), or no longer; what was kept goes.
void keepCalls(bool keep);
int keptCalls();
std::string keptCall(int index);

}  // namespace gpu_emulator

#endif  // TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_CALL_LOG_H_
