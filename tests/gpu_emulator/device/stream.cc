#include "device/stream.h"

#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>

#include "device/call_log.h"
#include "device/graph.h"
#include "device/memory.h"

namespace gpu_emulator {
namespace {

struct Streams {
  std::vector<Stream*> all;
  std::vector<Stream*> legacy;  // the default stream of each device
  std::condition_variable done;
  std::atomic<Mode> mode{settings().mode};
  std::mt19937_64 random{settings().seed};

  Streams() {
    for (int device = 0; device < settings().devices; ++device) {
      legacy.push_back(add(device, false, 0));
      legacy.back()->legacy = true;
    }
  }

  Stream* add(int device, bool non_blocking, int priority) {
    auto* stream = new Stream;
    stream->id = static_cast<int>(all.size());
    stream->device = device;
    stream->non_blocking = non_blocking;
    stream->priority = priority;
    all.push_back(stream);
    return stream;
  }
};

Streams& streams() {
  static auto* const made = new Streams;
  return *made;
}

std::chrono::microseconds randomDelayLocked() {
  const auto limit = static_cast<uint64_t>(settings().delay.count());
  if (mode() != Mode::kRandom || limit == 0) return {};
  return std::chrono::microseconds(streams().random() % limit);
}

void waitUntilDemanded(Lock& lock, Stream* stream) {
  if (mode() != Mode::kLazy) return;
  const auto until = stream->queue.front().queued + settings().lazy;
  const uint64_t sequence = stream->queue.front().sequence;
  stream->changed.wait_until(lock, until,
                             [&] { return stream->demanded >= sequence || mode() != Mode::kLazy; });
  demandLocked({stream, sequence});
}

void runStream(Stream* stream) {
  pthread_setname_np(pthread_self(), "emulated-stream");
  Lock lock(deviceMutex());
  for (;;) {
    stream->changed.wait(lock, [&] { return !stream->queue.empty(); });
    waitUntilDemanded(lock, stream);
    for (const Dependency& needed : std::vector(stream->queue.front().dependencies)) {
      demandLocked(needed);
      streams().done.wait(lock, [&] { return needed.first->done >= needed.second; });
    }
    const auto delay = randomDelayLocked();
    const uint64_t sequence = stream->queue.front().sequence;
    std::function<void()> run = std::move(stream->queue.front().work.run);
    lock.unlock();
    if (delay.count() > 0) std::this_thread::sleep_for(delay);
    if (run) run();
    run = nullptr;  // releases what it holds before the operation counts as done
    lock.lock();
    stream->queue.pop_front();
    stream->done = sequence;
    streams().done.notify_all();
  }
}

bool isOrderedByDefaultStream(const Stream* stream, int device) {
  return stream->device == device && !stream->non_blocking && !stream->legacy;
}

/// What is implicitly ordered before the next operation of the stream: its own work, work that the
/// host has waited for, and work that the default stream orders.
Clock clockOfNextLocked(Stream* stream, std::vector<Dependency>* dependencies) {
  Clock clock = stream->clock;
  join(&clock, hostClockLocked());
  const auto after = [&](Stream* other) {
    if (other->queued > other->done) dependencies->emplace_back(other, other->queued);
    join(&clock, other->clock);
  };
  if (stream->legacy) {
    for (Stream* other : streams().all) {
      if (isOrderedByDefaultStream(other, stream->device)) after(other);
    }
  } else if (!stream->non_blocking) {
    after(streams().legacy[static_cast<size_t>(stream->device)]);
  }
  return clock;
}

}  // namespace

std::vector<Stream*>& streamsLocked() { return streams().all; }

Stream* createStream(bool non_blocking, int priority) {
  const Lock lock(deviceMutex());
  return streams().add(currentDevice(), non_blocking, priority);
}

Stream* streamOf(void* handle) {
  const auto value = reinterpret_cast<uintptr_t>(handle);
  const auto device = static_cast<size_t>(currentDevice());
  if (value <= 1) return streams().legacy[device];
  if (value != 2) return static_cast<Stream*>(handle);
  thread_local Stream* own[kMaxDevices] = {};
  if (own[device] == nullptr) own[device] = createStream(false, 0);
  return own[device];
}

Mode mode() { return streams().mode; }

void setMode(Mode mode) {
  const Lock lock(deviceMutex());
  streams().mode = mode;
  for (Stream* stream : streams().all) stream->changed.notify_all();
}

int64_t pendingOperations() {
  const Lock lock(deviceMutex());
  int64_t pending = 0;
  for (const Stream* stream : streams().all) {
    pending += static_cast<int64_t>(stream->queued - stream->done);
  }
  return pending;
}

uint64_t pushLocked(Stream* stream, Work work, std::vector<Dependency> dependencies,
                    const Clock& after) {
  Clock clock = clockOfNextLocked(stream, &dependencies);
  join(&clock, after);
  const auto id = static_cast<size_t>(stream->id);
  if (clock.size() <= id) clock.resize(id + 1);
  const uint64_t sequence = clock[id] = ++stream->queued;
  const Access access{stream->id, sequence, work.name, static_cast<pid_t>(syscall(SYS_gettid))};
  for (const Range& range : work.reads) recordAccessLocked(range, false, access, clock);
  for (const Range& range : work.writes) recordAccessLocked(range, true, access, clock);
  stream->clock = std::move(clock);
  stream->queue.push_back(
      {sequence, std::move(work), std::move(dependencies), std::chrono::steady_clock::now()});
  if (!stream->has_thread) {
    stream->has_thread = true;
    std::thread(runStream, stream).detach();
  }
  stream->changed.notify_all();
  return sequence;
}

void demandLocked(const Dependency& dependency) {
  auto [stream, sequence] = dependency;
  if (stream->demanded >= sequence) return;
  const uint64_t from = stream->demanded;
  stream->demanded = sequence;
  for (const Operation& operation : stream->queue) {
    if (operation.sequence > sequence) break;
    if (operation.sequence <= from) continue;
    for (const Dependency& needed : operation.dependencies) demandLocked(needed);
  }
  stream->changed.notify_all();
}

void waitForLocked(Lock& lock, const Dependency& dependency, const char* what) {
  logWaitLocked(what);
  demandLocked(dependency);
  streams().done.wait(lock, [&] { return dependency.first->done >= dependency.second; });
}

void waitForDeviceLocked(Lock& lock, int device, const char* what) {
  std::vector<Dependency> last;
  Clock clock;
  for (Stream* stream : streams().all) {
    if (stream->device != device) continue;
    last.emplace_back(stream, stream->queued);
    join(&clock, stream->clock);
  }
  logWaitLocked(what);
  for (const Dependency& dependency : last) demandLocked(dependency);
  streams().done.wait(lock, [&] {
    return std::all_of(last.begin(), last.end(),
                       [](const Dependency& each) { return each.first->done >= each.second; });
  });
  join(&hostClockLocked(), clock);
}

Error enqueue(Stream* stream, Work work) {
  const Lock lock(deviceMutex());
  if (stream->capture != nullptr) return addToGraphLocked(stream->capture, std::move(work));
  pushLocked(stream, std::move(work));
  return kSuccess;
}

Error queryStream(Stream* stream) {
  const Lock lock(deviceMutex());
  if (const Error error = callOnCapturingLocked(stream, "a query of a stream")) return error;
  if (const Error error = unsafeCallLocked("a query of a stream")) return error;
  if (stream->done >= stream->queued) {
    join(&hostClockLocked(), stream->clock);
    return kSuccess;
  }
  demandLocked({stream, stream->queued});
  return kNotReady;
}

Error synchronizeStream(Stream* stream) {
  Lock lock(deviceMutex());
  if (const Error error = callOnCapturingLocked(stream, "a wait for a stream")) return error;
  if (const Error error = unsafeCallLocked("a wait for a stream")) return error;
  std::vector<Dependency> before;
  const Clock clock = stream->legacy ? clockOfNextLocked(stream, &before) : stream->clock;
  before.emplace_back(stream, stream->queued);
  const std::string what = "stream " + std::to_string(stream->id);
  for (const Dependency& dependency : before) waitForLocked(lock, dependency, what.c_str());
  join(&hostClockLocked(), clock);
  return kSuccess;
}

Error synchronizeDevice(int device) {
  Lock lock(deviceMutex());
  if (const Error error = synchronizeInCaptureLocked(device)) return error;
  waitForDeviceLocked(lock, device, "device");
  return kSuccess;
}

}  // namespace gpu_emulator
