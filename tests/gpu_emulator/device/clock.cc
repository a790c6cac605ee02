#include "device/clock.h"

#include <algorithm>

#include "device/settings.h"

namespace gpu_emulator {

void join(Clock* into, const Clock& from) {
  if (into->size() < from.size()) into->resize(from.size());
  for (size_t i = 0; i < from.size(); ++i) (*into)[i] = std::max((*into)[i], from[i]);
}

Clock& hostClockLocked() {
  static auto* const of_all = new Clock;
  thread_local Clock mine;
  return settings().clock_of_each_thread ? mine : *of_all;
}

}  // namespace gpu_emulator
