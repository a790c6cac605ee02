#include "device/settings.h"

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include "device/memory.h"

namespace gpu_emulator {
namespace {

std::string variable(const char* name, const std::string& fallback) {
  const char* value = std::getenv(name);
  return value == nullptr || *value == '\0' ? fallback : value;
}

/// The number of devices in CUDA_VISIBLE_DEVICES, whose list ends at the first entry that is not a
/// number.
int visibleDevices(int devices) {
  const char* list = std::getenv("CUDA_VISIBLE_DEVICES");
  if (list == nullptr) return devices;
  int count = 0;
  std::istringstream entries(list);
  for (std::string entry; std::getline(entries, entry, ',');) {
    if (entry.empty() || entry.find_first_not_of("0123456789") != std::string::npos) break;
    ++count;
  }
  return std::min(count, devices);
}

Mode modeOf(const std::string& name) {
  if (name == "lazy") return Mode::kLazy;
  return name == "random" ? Mode::kRandom : Mode::kImmediate;
}

Settings read() {
  Settings result;
  result.mode = modeOf(variable("CUDA_EMU_MODE", "immediate"));
  result.lazy = std::chrono::milliseconds(std::stol(variable("CUDA_EMU_LAZY_MS", "150")));
  result.delay = std::chrono::microseconds(std::stol(variable("CUDA_EMU_DELAY_US", "2000")));
  const int devices = std::min(std::stoi(variable("CUDA_EMU_DEVICES", "1")), kMaxDevices);
  result.devices = visibleDevices(devices);
  result.memory = std::stoull(variable("CUDA_EMU_MEMORY", std::to_string(result.memory)));
  result.seed = std::stoull(variable("CUDA_EMU_SEED", "1"));
  result.sleep_scale = std::stod(variable("CUDA_EMU_SLEEP_SCALE", "0.25"));
  result.log_file = variable("CUDA_EMU_LOG", "");
  result.trace = variable("CUDA_EMU_TRACE", "0") == "1";
  result.clock_of_each_thread = variable("CUDA_EMU_CLOCK", "all") == "thread";
  return result;
}

}  // namespace

const Settings& settings() {
  static const Settings* const made = new Settings(read());
  return *made;
}

std::mutex& deviceMutex() {
  // Never destroyed, because threads of the streams use it while the process exits.
  static auto* const made = new std::mutex;
  return *made;
}

}  // namespace gpu_emulator
