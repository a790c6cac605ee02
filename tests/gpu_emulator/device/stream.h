// Streams: queues of work, each with a thread, which run in one of the modes of settings.h. Not
// for: events (event.h), capture (graph.h).
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

/// The work of a kernel, a copy or a host function. The stream's thread calls `run` without a lock.
/// If `run` is null, the work only has a place in the order and ranges that it would access.
struct Work {
  std::string name;
  std::vector<Range> reads = {};
  std::vector<Range> writes = {};
  std::function<void()> run = nullptr;
};

/// A stream, and the number of the operation in it to wait for.
using Dependency = std::pair<Stream*, uint64_t>;

struct Operation {
  uint64_t sequence;
  Work work;
  std::vector<Dependency> dependencies;
  std::chrono::steady_clock::time_point queued;
};

/// Never deleted, because events and the race detector name destroyed streams. The device's mutex
/// guards it.
struct Stream {
  int id = 0;
  int device = 0;
  int priority = 0;
  bool legacy = false;        // the default stream, which orders the blocking streams
  bool non_blocking = false;  // the default stream does not order it
  uint64_t queued = 0, done = 0, demanded = 0;  // sequence numbers; 0: none
  std::deque<Operation> queue;
  Clock clock;  // the clock of the last operation in the queue
  bool has_thread = false;
  std::condition_variable changed;
  Graph* capture = nullptr;
};

EMU_EXPORT Stream* createStream(bool non_blocking, int priority);
/// The stream of a CUDA handle: null and 1 are the current device's default stream, 2 the thread's.
EMU_EXPORT Stream* streamOf(void* handle);

/// Queues the work, or adds it to the graph that the stream captures.
EMU_EXPORT Error enqueue(Stream* stream, Work work);
EMU_EXPORT Error queryStream(Stream* stream);
EMU_EXPORT Error synchronizeStream(Stream* stream);
EMU_EXPORT Error synchronizeDevice(int device);

Mode mode();
void setMode(Mode mode);
/// The number of operations that are queued and not done.
int64_t pendingOperations();

/// Queues work at the end of the stream, ordered after `dependencies` and everything in `clock`.
/// Returns its sequence number.
uint64_t pushLocked(Stream* stream, Work work, std::vector<Dependency> dependencies = {},
                    const Clock& clock = {});
/// Requests this operation: in the lazy mode it runs now.
void demandLocked(const Dependency& dependency);
/// Block the host; `what` is for the log.
void waitForLocked(Lock& lock, const Dependency& dependency, const char* what);
void waitForDeviceLocked(Lock& lock, int device, const char* what);
std::vector<Stream*>& streamsLocked();

}  // namespace gpu_emulator

#endif  // TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_STREAM_H_
