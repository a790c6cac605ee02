// Finds accesses to device memory without an order. It does not depend on time: two accesses to a
// range, at least one of them a write, race if neither's clock contains the other, in every mode
// and however they ran. Not for: host memory.
#ifndef TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_RACE_DETECTOR_H_
#define TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_RACE_DETECTOR_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "device/clock.h"

namespace gpu_emulator {

struct Range {
  const void* data;
  size_t size;
};

/// An operation of a stream that accesses memory.
struct Access {
  int stream = -1;  // -1: none
  uint64_t sequence = 0;
  std::string name;
  pid_t thread = 0;
};

/// Records the access. Adds a violation if an earlier access is not in `clock`, or if the range is
/// not allocated. Host memory is ignored.
void recordAccessLocked(const Range& range, bool write, const Access& access, const Clock& clock);
/// Forgets the accesses to a range that is freed.
void forgetRangeLocked(const Range& range);

}  // namespace gpu_emulator

#endif  // TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_RACE_DETECTOR_H_
