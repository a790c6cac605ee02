// Events: marks in a stream that others wait for. Not for: timing kernels, whose emulated time
// means nothing.
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
  uint64_t capture = 0;  // the id of the capture in which it was recorded last; 0: none
  std::chrono::steady_clock::time_point recorded;
};

/// The caller that queries an event.
enum class Asker {
  kProgram,
  /// TensorFlow's thread that polls its own events, at any time. On a GPU such a query ends a
  /// capture of the mode "global". Here it does not, so that tests of captures are repeatable.
  kPoller,
};

EMU_EXPORT Error recordEvent(Event* event, Stream* stream);
/// Orders operations that are queued in the stream after this call behind the event.
EMU_EXPORT Error waitForEvent(Stream* stream, const Event* event);
EMU_EXPORT Error queryEvent(const Event* event, Asker asker);
EMU_EXPORT Error synchronizeEvent(const Event* event);
/// The time between the calls that recorded the events, because the device has no time.
EMU_EXPORT float millisecondsBetween(const Event* start, const Event* end);

}  // namespace gpu_emulator

#endif  // TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_EVENT_H_
