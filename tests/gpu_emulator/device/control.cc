// The functions with which tests query and control the device through ctypes: python/emulator.py.
#include <cstdint>
#include <cstring>
#include <string>

#include "device/call_log.h"
#include "device/errors.h"
#include "device/stream.h"
#include "device/violations.h"

namespace {

/// Valid until the thread's next call.
const char* kept(std::string text) {
  thread_local std::string last;
  last = std::move(text);
  return last.c_str();
}

}  // namespace

extern "C" {

EMU_EXPORT void emu_set_mode(int mode) {
  gpu_emulator::setMode(static_cast<gpu_emulator::Mode>(mode));
}
EMU_EXPORT int emu_mode() { return static_cast<int>(gpu_emulator::mode()); }
EMU_EXPORT int64_t emu_pending() { return gpu_emulator::pendingOperations(); }

EMU_EXPORT int emu_violations() { return gpu_emulator::violations(); }
EMU_EXPORT const char* emu_violation(int index) { return kept(gpu_emulator::violation(index)); }
EMU_EXPORT void emu_clear_violations() { gpu_emulator::clearViolations(); }

EMU_EXPORT int emu_unemulated() { return gpu_emulator::missingKernels(); }
EMU_EXPORT const char* emu_unemulated_name(int index) {
  return kept(gpu_emulator::missingKernelName(index));
}
EMU_EXPORT void emu_clear_unemulated() { gpu_emulator::clearMissingKernels(); }

EMU_EXPORT void emu_keep_calls(int keep) { gpu_emulator::keepCalls(keep != 0); }
EMU_EXPORT int emu_calls() { return gpu_emulator::keptCalls(); }
EMU_EXPORT const char* emu_call(int index) { return kept(gpu_emulator::keptCall(index)); }

}  // extern "C"
