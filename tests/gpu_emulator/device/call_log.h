// The calls of the frameworks in order, in a file (CUDA_EMU_LOG) and in memory for tests that
// count.
#ifndef TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_CALL_LOG_H_
#define TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_CALL_LOG_H_

#include <string>

#include "device/errors.h"

namespace gpu_emulator {

struct Stream;

/// Writes a line: thread, call, stream ("-" for null) and text. The device's mutex must not be
/// held.
EMU_EXPORT void logCall(const char* call, const Stream* stream, const char* format, ...)
    __attribute__((format(printf, 3, 4)));
/// Logs that a host thread waits for `what`, such as "stream 3". The device's mutex must be held.
void logWaitLocked(const std::string& what);
void logViolationLocked(const std::string& text);

/// Begins or ends keeping lines for keptCall(), and drops the lines that were kept.
void keepCalls(bool keep);
int keptCalls();
std::string keptCall(int index);

}  // namespace gpu_emulator

#endif  // TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_CALL_LOG_H_
