#include "adapters/torch/give_back.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <list>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "adapters/torch/cuda_streams.h"
#include "adapters/torch/foreign_owner.h"

namespace tensor_bridge {
namespace {

// Time between two checks. A check makes up to 128 CUDA calls for the buffers dropped since the
// last one.
constexpr std::chrono::milliseconds kPause{5};
constexpr std::chrono::milliseconds kPauseIfAwaited{1};

// A child of fork() has neither the thread nor a GPU: it leaks what it inherited.
std::atomic<bool> g_forked{false};

std::atomic<int64_t> g_held_back{0};

// A buffer whose last tensor was dropped. `foreign` is the stream that was current then, if it is
// not one of torch's; `event` is an event on it, null if none could be recorded.
struct Dropped {
  std::unique_ptr<GpuOwner> owner;
  CudaStream foreign = nullptr;
  CudaEvent event = nullptr;
};

// The buffers dropped on one device between two checks.
struct Batch {
  c10::DeviceIndex device;
  std::vector<std::unique_ptr<GpuOwner>> owners;
  // The streams whose work so far has to finish, with their events; and streams without an event.
  std::vector<std::pair<CudaStream, CudaEvent>> marked;
  std::vector<CudaStream> unmarked;

  explicit Batch(c10::DeviceIndex index) : device(index), unmarked(torchStreams(index)) {}

  void add(Dropped dropped) {
    if (dropped.event != nullptr) {
      marked.emplace_back(dropped.foreign, dropped.event);
    } else if (dropped.foreign != nullptr) {
      unmarked.push_back(dropped.foreign);
    }
    owners.push_back(std::move(dropped.owner));
  }

  // Bytes that go back without further action by the program.
  int64_t heldBack() const {
    int64_t bytes = 0;
    if (!unmarked.empty()) return bytes;
    for (const auto& owner : owners) bytes += owner->nbytes;
    return bytes;
  }
};

// Records missing events and drops reached ones. Returns whether the batch is done.
bool advance(Batch* batch) {
  auto& [device, owners, marked, unmarked] = *batch;
  const CudaCalls calls(device);
  // Reserves first: no stream may be forgotten if memory is short.
  marked.reserve(marked.size() + unmarked.size());
  const auto record = [&marked = marked](CudaStream stream) {
    const CudaEvent event = recordEvent(stream);
    if (event != nullptr) marked.emplace_back(stream, event);
    return event != nullptr;
  };
  unmarked.erase(std::remove_if(unmarked.begin(), unmarked.end(), record), unmarked.end());
  unmarked.reserve(unmarked.size() + batch->marked.size());
  const auto look = [&unmarked = unmarked](const std::pair<CudaStream, CudaEvent>& mark) {
    const EventState state = stateOf(mark.second);
    if (state == EventState::kPending) return false;
    destroyEvent(mark.second);
    if (state == EventState::kLost) unmarked.push_back(mark.first);
    return true;
  };
  marked.erase(std::remove_if(marked.begin(), marked.end(), look), marked.end());
  return marked.empty() && unmarked.empty();
}

// One thread for the process, started at the first release and never joined.
class Returner {
 public:
  static Returner& instance() {
    // Never destroyed: threads drop tensors while the process exits.
    static auto* const returner = new Returner;
    return *returner;
  }

  void add(Dropped dropped) {
    std::lock_guard<std::mutex> lock(mutex_);
    const int64_t nbytes = dropped.owner->nbytes;
    arrived_.push_back(std::move(dropped));
    g_held_back.fetch_add(nbytes, std::memory_order_relaxed);
    changed_.notify_all();
  }

  void waitForRoom() {
    std::unique_lock<std::mutex> lock(mutex_);
    ++awaiting_;
    changed_.notify_all();
    changed_.wait(lock, [] {
      return g_held_back.load(std::memory_order_relaxed) <= kMostHeldBack ||
             g_host->processExiting();
    });
    --awaiting_;
  }

 private:
  using Batches = std::list<Batch>;

  Returner() {
    std::thread([this] { run(); }).detach();
    pthread_atfork(nullptr, nullptr, [] { g_forked.store(true, std::memory_order_relaxed); });
    // CUDA is torn down later.
    std::atexit([] {
      if (g_forked.load(std::memory_order_relaxed)) return;
      std::lock_guard<std::mutex> lock(instance().cuda_mutex_);
      instance().stopped_ = true;
    });
  }

  [[noreturn]] void run() {
    Batches waiting;
    for (;;) {
      waiting.splice(waiting.end(), byDevice(takeArrived(waiting.empty())));
      for (const Batch& batch : takeDone(&waiting)) {
        for (const auto& owner : batch.owners) owner->release(owner->owner);
      }
      recount(waiting);
    }
  }

  std::vector<Dropped> takeArrived(bool idle) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (idle) {
      changed_.wait(lock, [this] { return !arrived_.empty(); });
    } else if (awaiting_ == 0) {
      changed_.wait_for(lock, kPause, [this] { return awaiting_ != 0; });
    } else {
      changed_.wait_for(lock, kPauseIfAwaited, [] { return false; });
    }
    return std::exchange(arrived_, {});
  }

  static Batches byDevice(std::vector<Dropped> arrived) {
    Batches batches;
    for (Dropped& dropped : arrived) {
      const c10::DeviceIndex device = dropped.owner->device;
      auto batch = std::find_if(batches.begin(), batches.end(),
                                [&](const Batch& made) { return made.device == device; });
      if (batch == batches.end()) batch = batches.emplace(batches.end(), device);
      batch->add(std::move(dropped));
    }
    return batches;
  }

  Batches takeDone(Batches* waiting) {
    Batches done;
    std::lock_guard<std::mutex> lock(cuda_mutex_);
    for (auto next = waiting->begin();
         next != waiting->end() && !stopped_ && !g_host->processExiting();) {
      const auto batch = next++;
      try {
        if (advance(&*batch)) done.splice(done.end(), *waiting, batch);
      } catch (...) {
        // CUDA is in an error state, or memory is short: tried again later.
      }
    }
    return done;
  }

  void recount(const Batches& waiting) {
    int64_t held_back = 0;
    for (const Batch& batch : waiting) held_back += batch.heldBack();
    std::lock_guard<std::mutex> lock(mutex_);
    for (const Dropped& dropped : arrived_) held_back += dropped.owner->nbytes;
    g_held_back.store(held_back, std::memory_order_relaxed);
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Dropped> arrived_;
  int awaiting_ = 0;

  // Held during the thread's CUDA calls, none of which waits.
  std::mutex cuda_mutex_;
  bool stopped_ = false;
};

CudaEvent tryToRecord(c10::DeviceIndex device, CudaStream stream) noexcept {
  try {
    const CudaCalls calls(device);
    return recordEvent(stream);
  } catch (...) {
    return nullptr;
  }
}

}  // namespace

void giveBack(GpuOwner* given) noexcept {
  if (g_host->processExiting() || g_forked.load(std::memory_order_relaxed)) return;
  try {
    Dropped dropped{std::unique_ptr<GpuOwner>(given)};
    if (isCurrentStreamForeign(given->device, &dropped.foreign)) {
      dropped.event = tryToRecord(given->device, dropped.foreign);
    }
    Returner::instance().add(std::move(dropped));
  } catch (...) {
    // No thread, no memory: leak rather than free what a kernel may still read.
  }
}

void waitForGivenBack() {
  if (g_held_back.load(std::memory_order_relaxed) <= kMostHeldBack) return;
  if (!g_forked.load(std::memory_order_relaxed)) Returner::instance().waitForRoom();
}

}  // namespace tensor_bridge
