// Streams: queues of work, each with a thread, that run in one of the modes of settings.h. Not for:
// events (event.h) and capture (graph.h).
#ifndef TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_STREAM_H_
#define TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_STREAM_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "device/clock.h"
#include "device/errors.h"
#include "device/race_detector.h"
#include "device/settings.h"

namespace gpu_emulator {

struct Graph;
struct Stream;

/// What a kernel, a copy or a host function does. `run` may be null: then it is only a place in the
/// order and the ranges that it would access. It is called by the stream's thread, without a lock.
struct Work {
  std::string name;
  std::vector<Range> reads = {};
  std::vector<Range> writes = {};
  std::function<void()> run = nullptr;
};

/// A stream and the number of the operation in it that is waited for.
using Dependency = std::pair<Stream*, uint64_t>;

struct Operation {
  uint64_t sequence;
  Work work;
  std::vector<Dependency> dependencies;
  std::chrono::steady_clock::time_point queued;
};

/// Never deleted: events and the race detector name streams that are gone. All under the mutex of
/// the device.
struct Stream {
  int id = 0;
  int device = 0;
  int priority = 0;
  bool legacy = false;        // the default stream, which orders the blocking ones
  bool non_blocking = false;  // not ordered by it
  uint64_t queued = 0, done = 0, demanded = 0;  // sequences; 0 is none
  std::deque<Operation> queue;
  Clock clock;  // of what was queued last
  bool has_thread = false;
  std::condition_variable changed;
  Graph* capture = nullptr;
};

EMU_EXPORT Stream* createStream(bool non_blocking, int priority);
/// From CUDA's handle: null and 1 are the default stream of the current device, 2 the thread's own.
EMU_EXPORT Stream* streamOf(void* handle);

/// Queues the work, or adds it to the graph that the stream captures.
EMU_EXPORT Error enqueue(Stream* stream, Work work);
EMU_EXPORT Error queryStream(Stream* stream);
EMU_EXPORT Error synchronizeStream(Stream* stream);
EMU_EXPORT Error synchronizeDevice(int device);

Mode mode();
void setMode(Mode mode);
/// How many operations are queued and not done.
int64_t pendingOperations();

/// Queues behind what is in the stream, after `dependencies` and all in `clock`; its sequence.
uint64_t pushLocked(Stream* stream, Work work, std::vector<Dependency> dependencies = {},
                    const Clock& clock = {});
/// Somebody asks for this operation: in the lazy mode it runs now.
void demandLocked(const Dependency& dependency);
/// Blocks the host; `what` is for the log.
void waitForLocked(Lock& lock, const Dependency& dependency, const char* what);
void waitForDeviceLocked(Lock& lock, int device, const char* what);
std::vector<Stream*>& streamsLocked();

}  // namespace gpu_emulator

#endif  // TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_STREAM_H_
