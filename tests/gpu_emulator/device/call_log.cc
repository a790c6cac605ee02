#include "device/call_log.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <vector>

#include "device/settings.h"
#include "device/stream.h"

namespace gpu_emulator {
namespace {

struct Log {
  FILE* file = settings().log_file.empty() ? nullptr : fopen(settings().log_file.c_str(), "ae");
  std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
  bool keep = false;
  std::vector<std::string> kept;
};

Log& log() {
  static auto* const made = new Log;
  return *made;
}

void writeLocked(const std::string& line) {
  Log& to = log();
  if (to.keep) to.kept.push_back(line);
  if (to.file == nullptr) return;
  const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - to.start;
  fprintf(to.file, "%.6f %s\n", passed.count(), line.c_str());
  fflush(to.file);
}

/// Fields are separated by tabs, at which python/emulator.py splits them.
void writeLocked(const char* call, const std::string& stream, const std::string& text) {
  writeLocked(std::to_string(syscall(SYS_gettid)) + "\t" + call + "\t" + stream + "\t" + text);
}

}  // namespace

void logCall(const char* call, const Stream* stream, const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  const Lock lock(deviceMutex());
  writeLocked(call, stream == nullptr ? "-" : std::to_string(stream->id), text);
}

void logWaitLocked(const std::string& what) { writeLocked("WAIT", "-", what); }

void logViolationLocked(const std::string& text) { writeLocked("VIOLATION", "-", text); }

void keepCalls(bool keep) {
  const Lock lock(deviceMutex());
  log().keep = keep;
  log().kept.clear();
}

int keptCalls() {
  const Lock lock(deviceMutex());
  return static_cast<int>(log().kept.size());
}

std::string keptCall(int index) {
  const Lock lock(deviceMutex());
  return log().kept.at(static_cast<size_t>(index));
}

}  // namespace gpu_emulator
