#include "device/event.h"

#include "device/graph.h"
#include "device/settings.h"
#include "device/stream.h"

namespace gpu_emulator {

Error recordEvent(Event* event, Stream* stream) {
  const Lock lock(deviceMutex());
  event->recorded = std::chrono::steady_clock::now();
  if (stream->capture != nullptr) {
    event->capture = stream->capture->id;
    return kSuccess;
  }
  event->capture = 0;
  // A separate operation, because the default stream orders earlier operations before it.
  event->sequence = pushLocked(stream, {"event"});
  event->stream = stream;
  event->clock = stream->clock;
  return kSuccess;
}

Error waitForEvent(Stream* stream, const Event* event) {
  const Lock lock(deviceMutex());
  if (event->capture != 0) return joinCaptureLocked(stream, event->capture);
  if (event->stream == nullptr) return kSuccess;
  if (stream->capture != nullptr) {
    return invalidateLocked(stream->capture, kCaptureIsolation,
                            "a capturing stream waits for an event from outside");
  }
  pushLocked(stream, {"wait"}, {{event->stream, event->sequence}}, event->clock);
  return kSuccess;
}

Error queryEvent(const Event* event, Asker asker) {
  const Lock lock(deviceMutex());
  if (event->capture != 0) return eventInCaptureLocked(event->capture, "a query of its event");
  if (asker == Asker::kProgram) {
    if (const Error error = unsafeCallLocked("a query of an event")) return error;
  }
  if (event->stream == nullptr) return kSuccess;
  if (event->stream->done >= event->sequence) {
    join(&hostClockLocked(), event->clock);
    return kSuccess;
  }
  demandLocked({event->stream, event->sequence});
  return kNotReady;
}

Error synchronizeEvent(const Event* event) {
  Lock lock(deviceMutex());
  if (event->capture != 0) return eventInCaptureLocked(event->capture, "a wait for its event");
  if (const Error error = unsafeCallLocked("a wait for an event")) return error;
  if (event->stream == nullptr) return kSuccess;
  const Clock clock = event->clock;
  waitForLocked(lock, {event->stream, event->sequence}, "event");
  join(&hostClockLocked(), clock);
  return kSuccess;
}

float millisecondsBetween(const Event* start, const Event* end) {
  const std::chrono::duration<float, std::milli> passed = end->recorded - start->recorded;
  return passed.count();
}

}  // namespace gpu_emulator
