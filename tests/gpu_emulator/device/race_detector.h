// Finds accesses to device memory that nothing orders. It knows no time: two accesses to a range,
// one of them a write, race when neither's clock holds the other, in every mode and however they
// ran. Not for: host memory.
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

/// An operation of a stream, as it accesses memory.
struct Access {
  int stream = -1;  // none
  uint64_t sequence = 0;
  std::string name;
  pid_t thread = 0;
};

/// Notes the access, and adds a violation where an earlier one is not in `clock`, or where the
/// range is not allocated. Host memory is passed over.
void recordAccessLocked(const Range& range, bool write, const Access& access, const Clock& clock);
/// What was at a range is freed.
void forgetRangeLocked(const Range& range);

}  // namespace gpu_emulator

#endif  // TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_RACE_DETECTOR_H_
