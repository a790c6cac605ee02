// Events: marks in a stream that others wait for. Not for: timing kernels, whose time means
// nothing.
#ifndef TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_EVENT_H_
#define TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_EVENT_H_

#include <chrono>
#include <cstdint>

#include "device/clock.h"
#include "device/errors.h"

namespace gpu_emulator {

struct Stream;

struct Event {
  Stream* stream = nullptr;  // null: never recorded, so complete
  uint64_t sequence = 0;
  Clock clock;
  uint64_t capture = 0;  // the id of the capture that it was recorded in last; 0: in none
  std::chrono::steady_clock::time_point recorded;
};

/// Who asks whether an event is complete.
enum class Asker {
  kProgram,
  /// TensorFlow's thread that polls its own events, at times of its own. On a GPU it ends a capture
  /// of the mode "global" as any other would; here it is passed over, or no test of a capture could
  /// be repeated.
  kPoller,
};

EMU_EXPORT Error recordEvent(Event* event, Stream* stream);
/// What is queued in the stream from now on comes after the event.
EMU_EXPORT Error waitForEvent(Stream* stream, const Event* event);
EMU_EXPORT Error queryEvent(const Event* event, Asker asker);
EMU_EXPORT Error synchronizeEvent(const Event* event);
/// Between the calls that recorded them: of the device's own time nothing is known.
EMU_EXPORT float millisecondsBetween(const Event* start, const Event* end);

}  // namespace gpu_emulator

#endif  // TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_EVENT_H_
