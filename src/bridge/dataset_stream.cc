#include "bridge/dataset_stream.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/exit.h"

namespace tensor_bridge {
namespace {

using Clock = std::chrono::steady_clock;

// Up to this cost of an element, handing it over between threads costs as much as it gains.
constexpr Clock::duration kShortGap = std::chrono::microseconds(10);
// Above this it matters little who makes an element; a thread keeps Ctrl-C working.
constexpr Clock::duration kCheapElement = std::chrono::microseconds(100);

// A running mean that one outlier does not hold up for long.
void follow(Clock::duration sample, Clock::duration* mean) {
  sample = std::min<Clock::duration>(sample, std::chrono::milliseconds(1));
  *mean += (sample - *mean) / 4;
}

int64_t nanoseconds(Clock::duration duration) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(duration).count();
}

}  // namespace

struct DataStream::State {
  State(std::unique_ptr<DatasetIterator> source, DataPlan the_plan, int capacity, bool may_adapt)
      : iterator(std::move(source)),
        plan(std::move(the_plan)),
        prefetch(capacity),
        adaptive(may_adapt),
        outputs(iterator->api()) {}

  // Makes the next item with the lock released, and counts it. One caller at a time, which has set
  // `making`. Never throws: a failure becomes the item.
  DataItem make(std::unique_lock<std::mutex>* lock) noexcept;
  void fill(DataItem* item) noexcept;
  // Puts the next item into the queue, or ends.
  void makeDirectly(std::unique_lock<std::mutex>* lock);
  // Whether the thread has something to do, with the lock held.
  bool hasRoom() const {
    return prefetch == 0 ? queue.empty() && waiting > 0 : queue.size() < prefetch;
  }

  const std::unique_ptr<DatasetIterator> iterator;
  const DataPlan plan;
  const size_t prefetch;
  const bool adaptive;

  mutable std::mutex mutex;
  std::condition_variable item_ready;  // for consumers
  std::condition_variable room;        // for the thread
  std::condition_variable idle;        // for pause() and close()
  std::deque<DataItem> queue;
  bool ended = false;  // no item comes after those in the queue
  bool cancelled = false;
  bool making = false;    // the iterator is in use
  bool finished = false;  // the thread is about to end
  bool direct = false;    // elements are made by the caller for now
  int paused = 0;
  int waiting = 0;  // consumers

  // Called with `making` set, by the thread that set it.
  HandleList outputs;

  int64_t made = 0;
  Clock::duration mean_make{};
  int64_t delivered = 0;
  int64_t bytes = 0;
  int64_t failures = 0;
  Clock::duration wait_time{};
  Clock::duration compute_time{};
  Clock::duration make_time{};
  Clock::time_point last_return{};
  Clock::duration mean_gap = std::chrono::milliseconds(1);
};

DataItem DataStream::State::make(std::unique_lock<std::mutex>* lock) noexcept {
  DataItem item;
  item.ordinal = made++;
  lock->unlock();
  const Clock::time_point begin = Clock::now();
  fill(&item);
  const Clock::duration took = Clock::now() - begin;
  lock->lock();
  make_time += took;
  follow(took, &mean_make);
  return item;
}

void DataStream::State::fill(DataItem* item) noexcept {
  try {
    const SyncExecutor executor(iterator->api(), iterator->context());
    int code = 0;
    const DatasetIterator::Step step = iterator->next(&outputs, &code, &item->message);
    if (step == DatasetIterator::Step::kElement) {
      auto element = std::make_unique<tb_data_element>();
      fillElement(plan, iterator.get(), &outputs, element.get());
      item->element = std::move(element);
    } else if (step == DatasetIterator::Step::kFailure) {
      item->status = TB_TENSORFLOW;
      item->tf_code = code;
    }
  } catch (...) {
    item->status = setLastErrorFromException();
    try {
      item->message = lastError();
    } catch (...) {
      // No memory for the message: the status says enough.
    }
  }
  outputs.clear();
}

void DataStream::State::makeDirectly(std::unique_lock<std::mutex>* lock) {
  making = true;
  DataItem item = make(lock);
  making = false;
  if (item.is_end() || cancelled) {
    ended = true;
  } else {
    queue.push_back(std::move(item));
  }
  if (waiting > 0) item_ready.notify_all();
  if (paused > 0) idle.notify_all();
  // Unwanted items are released without the lock: a TensorFlow value may run Python code.
  lock->unlock();
  item = DataItem();
  lock->lock();
}

DataStream::DataStream(std::unique_ptr<DatasetIterator> iterator, DataPlan plan, int prefetch,
                       bool adaptive)
    : state_(std::make_shared<State>(std::move(iterator), std::move(plan), prefetch, adaptive)),
      process_(getpid()) {
  thread_ = std::thread([state = state_] { run(state); });
  pthread_setname_np(thread_.native_handle(), "tb_data");
}

DataStream::~DataStream() {
  if (thread_.joinable()) thread_.detach();
}

void DataStream::run(const std::shared_ptr<State>& state) {
  std::unique_lock<std::mutex> lock(state->mutex);
  for (;;) {
    state->room.wait(lock, [&] {
      return state->cancelled ||
             (state->paused == 0 && !state->making && !state->direct && state->hasRoom());
    });
    if (state->cancelled) break;
    state->making = true;
    DataItem item = state->make(&lock);
    state->making = false;
    const bool end = item.is_end();
    if (!state->cancelled) {
      if (end) {
        state->ended = true;
      } else {
        state->queue.push_back(std::move(item));
      }
    }
    if (state->waiting > 0) state->item_ready.notify_all();
    if (state->paused > 0) state->idle.notify_all();
    if (end || state->cancelled) {
      // As in makeDirectly().
      lock.unlock();
      item = DataItem();
      lock.lock();
      break;
    }
  }
  state->ended = true;
  state->finished = true;
  state->item_ready.notify_all();
  state->idle.notify_all();
}

bool DataStream::hasItem() const {
  std::lock_guard<std::mutex> lock(state_->mutex);
  return !state_->queue.empty() || state_->ended;
}

DataStream::Wait DataStream::next(std::chrono::milliseconds limit, DataItem* item) {
  State& state = *state_;
  std::unique_lock<std::mutex> lock(state.mutex);
  const Clock::time_point begin = Clock::now();
  if (state.last_return != Clock::time_point()) {
    state.compute_time += begin - state.last_return;
    follow(begin - state.last_return, &state.mean_gap);
    state.last_return = Clock::time_point();
  }
  Wait result = Wait::kItem;
  while (state.queue.empty() && !state.ended && result == Wait::kItem) {
    if (state.direct && !state.making && state.paused == 0) {
      state.makeDirectly(&lock);
    } else {
      const auto changed = [&] {
        return !state.queue.empty() || state.ended ||
               (state.direct && !state.making && state.paused == 0);
      };
      ++state.waiting;
      if (state.prefetch == 0) state.room.notify_one();
      if (!state.item_ready.wait_for(lock, limit, changed)) result = Wait::kTimeout;
      --state.waiting;
    }
  }
  if (result == Wait::kItem) {
    if (state.queue.empty()) {
      *item = DataItem();
      item->ordinal = state.made;
    } else {
      *item = std::move(state.queue.front());
      state.queue.pop_front();
      if (item->element != nullptr) {
        ++state.delivered;
        state.bytes += item->element->nbytes;
      } else {
        ++state.failures;
      }
    }
    // If nothing is made ahead, a thread is only good for Ctrl-C.
    state.direct = state.adaptive && state.mean_make < kCheapElement &&
                   (state.prefetch == 0 || state.mean_gap < kShortGap);
    if (!state.direct && !state.ended) state.room.notify_one();
  }
  const Clock::time_point end = Clock::now();
  state.wait_time += end - begin;
  if (result == Wait::kItem && !item->is_end()) state.last_return = end;
  return result;
}

void DataStream::pause() {
  std::unique_lock<std::mutex> lock(state_->mutex);
  ++state_->paused;
  state_->idle.wait(lock, [&] { return !state_->making; });
}

void DataStream::resume() noexcept {
  std::lock_guard<std::mutex> lock(state_->mutex);
  --state_->paused;
  state_->room.notify_one();
  state_->item_ready.notify_all();
}

void DataStream::cancel() noexcept {
  {
    std::lock_guard<std::mutex> lock(state_->mutex);
    state_->cancelled = true;
    state_->ended = true;
    state_->room.notify_all();
    state_->item_ready.notify_all();
  }
  if (!processExiting()) state_->iterator->cancel();
}

bool DataStream::close(std::chrono::milliseconds limit) noexcept {
  cancel();
  if (!thread_.joinable()) return true;
  bool finished;
  {
    std::unique_lock<std::mutex> lock(state_->mutex);
    finished = state_->idle.wait_for(lock, limit, [&] { return state_->finished; });
  }
  if (finished) {
    thread_.join();
  } else {
    thread_.detach();
  }
  return finished;
}

bool DataStream::isHere() const noexcept { return process_ == getpid(); }

tb_data_stats DataStream::stats() const {
  std::lock_guard<std::mutex> lock(state_->mutex);
  tb_data_stats stats{};
  stats.struct_size = sizeof(stats);
  stats.elements = state_->delivered;
  stats.bytes = state_->bytes;
  stats.failures = state_->failures;
  stats.wait_ns = nanoseconds(state_->wait_time);
  stats.compute_ns = nanoseconds(state_->compute_time);
  stats.make_ns = nanoseconds(state_->make_time);
  stats.queued = static_cast<int64_t>(state_->queue.size());
  return stats;
}

}  // namespace tensor_bridge
