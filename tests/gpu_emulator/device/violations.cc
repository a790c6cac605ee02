#include "device/violations.h"

#include <execinfo.h>
#include <unistd.h>

#include <cstdio>
#include <set>
#include <vector>

#include "device/call_log.h"
#include "device/settings.h"

namespace gpu_emulator {
namespace {

// More texts say nothing new, and would fill the memory if everything in a test races.
constexpr size_t kMaxKept = 2000;

struct Found {
  std::vector<std::string> violations;
  std::vector<std::string> kernels;
  std::set<std::string> told;
};

Found& found() {
  static auto* const made = new Found;
  return *made;
}

void tellOnceLocked(const std::string& kind, const std::string& text) {
  if (!found().told.insert(kind).second) return;
  fprintf(stderr, "emulated device: %s\n", text.c_str());
  if (!settings().trace) return;
  void* frames[40];
  backtrace_symbols_fd(frames, backtrace(frames, 40), STDERR_FILENO);
}

}  // namespace

void addViolationLocked(const std::string& kind, const std::string& text) {
  if (found().violations.size() >= kMaxKept) return;
  tellOnceLocked(kind, "VIOLATION: " + text);
  logViolationLocked(text);
  found().violations.push_back(text);
}

int violations() {
  const Lock lock(deviceMutex());
  return static_cast<int>(found().violations.size());
}

std::string violation(int index) {
  const Lock lock(deviceMutex());
  return found().violations.at(static_cast<size_t>(index));
}

void clearViolations() {
  const Lock lock(deviceMutex());
  found().violations.clear();
}

void missingFunction(const char* name) {
  const Lock lock(deviceMutex());
  tellOnceLocked(name, std::string(name) + " has no stand-in");
}

void missingKernel(const char* name) {
  const Lock lock(deviceMutex());
  tellOnceLocked(name, std::string("the kernel ") + name + " has no stand-in");
  found().kernels.emplace_back(name);
}

int missingKernels() {
  const Lock lock(deviceMutex());
  return static_cast<int>(found().kernels.size());
}

std::string missingKernelName(int index) {
  const Lock lock(deviceMutex());
  return found().kernels.at(static_cast<size_t>(index));
}

void clearMissingKernels() {
  const Lock lock(deviceMutex());
  found().kernels.clear();
}

}  // namespace gpu_emulator
