#include "formats/example_queue.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <new>
#include <utility>

#include "core/error.h"
#include "formats/format_error.h"

namespace tensor_bridge {
namespace {

// A batch that a thread works on.
struct Job {
  std::vector<RecordPlace> places;
  // The fault of the last place, which ended the search for records.
  RecordFault fault = RecordFault::kNone;
  std::unique_ptr<ParsedBatch> made;
  bool done = false;
};

// Finds the records of one batch after the other.
class Finder {
 public:
  Finder(const RecordFiles& files, const RecordOrder& order)
      : files_(files), order_(order), walk_(files) {
    to_pass_ = order.first;
  }

  // The next `most` records, fewer at the end and at a fault.
  void find(int64_t most, Job* job) {
    job->places.reserve(static_cast<size_t>(most));
    if (order_.numbers != nullptr) {
      for (; most > 0 && next_ < order_.count; --most) {
        job->places.push_back(placeOf(files_, order_.numbers[next_++]));
      }
      return;
    }
    RecordPlace place;
    while (most > 0 && walk_.next(&place, &job->fault)) {
      const bool faulty = job->fault != RecordFault::kNone;
      if (!faulty && to_pass_-- > 0) continue;
      if (!faulty) to_pass_ = order_.step - 1;
      job->places.push_back(place);
      if (faulty) return;
      --most;
    }
  }

 private:
  const RecordFiles& files_;
  const RecordOrder& order_;
  RecordWalk walk_;
  int64_t next_ = 0;     // among numbers
  int64_t to_pass_ = 0;  // records before the next one
};

// Reads, checks and parses one batch after the other.
class BatchMaker {
 public:
  BatchMaker(const ExampleSpec* spec, const RecordFiles& files,
             const ExampleQueue::Options& options)
      : spec_(spec), files_(files), verify_(options.verify), skip_(options.skip) {
    if (spec != nullptr) scratch_ = std::make_unique<ExampleBatch>(*spec);
  }

  std::unique_ptr<ParsedBatch> make(Job* job, const std::shared_ptr<BlockPool>& pool) {
    auto batch = std::make_unique<ParsedBatch>();
    batch->pool = pool;
    const auto begin = std::chrono::steady_clock::now();
    base_ = nullptr;
    try {
      read(job, batch.get());
    } catch (const FormatError& e) {
      batch->failed = true;
      batch->message = e.what();
      locate(e.offset(), batch.get());
    } catch (const std::bad_alloc&) {
      batch->failed = batch->out_of_memory = true;
    } catch (const std::exception& e) {
      batch->failed = true;
      batch->message = e.what();
    }
    const auto took = std::chrono::steady_clock::now() - begin;
    batch->nanoseconds = std::chrono::duration_cast<std::chrono::nanoseconds>(took).count();
    return batch;
  }

 private:
  const uint8_t* address(RecordPlace place) const { return files_.data[place.file] + place.offset; }

  void read(Job* job, ParsedBatch* batch) {
    std::vector<RecordPlace>& places = job->places;
    int64_t bytes = 0;
    if (!measure(job, batch, &bytes)) return;
    // So many records and their parsed values fit in the first-level cache.
    constexpr size_t kAtOnce = 8;
    const auto count = static_cast<int64_t>(places.size());
    const bool at_once = !BatchBuilder::fits(spec_, bytes, count);
    if (at_once) {
      if (!check(places, 0, places.size(), batch)) return;
      parseRecords(scratch_.get(), base_, begins_.data(), sizes_.data(), found(), batch);
      return;
    }
    BatchBuilder builder(scratch_.get(), bytes, count, batch);
    for (size_t i = 0; i < places.size(); i += kAtOnce) {
      if (!check(places, i, std::min(i + kAtOnce, places.size()), batch)) return;
      builder.add(base_, begins_.data(), sizes_.data(), found());
    }
    builder.finish();
  }

  int64_t found() const { return static_cast<int64_t>(begins_.size()); }

  // Sets the sizes that are not known yet. Returns false at a fault.
  bool measure(Job* job, ParsedBatch* batch, int64_t* bytes) const {
    constexpr size_t kAhead = 8;
    std::vector<RecordPlace>& places = job->places;
    for (size_t i = 0; i < places.size(); ++i) {
      RecordPlace& place = places[i];
      RecordFault fault = i + 1 == places.size() ? job->fault : RecordFault::kNone;
      if (place.size < 0) {
        if (i + kAhead < places.size()) __builtin_prefetch(address(places[i + kAhead]));
        const RecordAt record = recordAt(files_, place, /*verify=*/false, nullptr);
        fault = record.fault;
        place.size = record.size;
      }
      if (fault != RecordFault::kNone) return failed(fault, place, batch);
      *bytes += place.size;
    }
    return true;
  }

  static bool failed(RecordFault fault, RecordPlace place, ParsedBatch* batch) {
    batch->failed = true;
    batch->fault = fault;
    batch->file = place.file;
    batch->offset = place.offset;
    return false;
  }

  // Checks records and writes where they are from base_. Returns false at a fault.
  bool check(const std::vector<RecordPlace>& places, size_t begin, size_t end, ParsedBatch* batch) {
    begins_.clear();
    sizes_.clear();
    for (size_t i = begin; i < end; ++i) {
      const RecordPlace place = places[i];
      const void* ahead = i + 1 < places.size() ? address(places[i + 1]) : nullptr;
      RecordAt record = recordAt(files_, place, verify_, ahead);
      if (record.fault == RecordFault::kDataCheck && skip_) {
        ++batch->skipped_records;
        batch->skipped_bytes += record.size + kRecordHeader + kRecordFooter;
        continue;
      }
      // The batch has room for the size that was measured.
      if (record.size != place.size) record.fault = RecordFault::kLengthCheck;
      if (record.fault != RecordFault::kNone) return failed(record.fault, place, batch);
      const uint8_t* at = address(place) + kRecordHeader;
      if (base_ == nullptr) base_ = at;
      begins_.push_back(at - base_);
      sizes_.push_back(record.size);
    }
    return true;
  }

  // The file, and the offset in it, of what is at an offset from base_.
  void locate(int64_t offset, ParsedBatch* batch) const {
    if (offset == -1 || base_ == nullptr) return;
    const auto at = reinterpret_cast<uintptr_t>(base_) + static_cast<uintptr_t>(offset);
    for (int64_t i = 0; i < files_.count; ++i) {
      const auto begin = reinterpret_cast<uintptr_t>(files_.data[i]);
      if (begin == 0 || at < begin || at - begin > static_cast<uintptr_t>(files_.sizes[i]))
        continue;
      batch->file = i;
      batch->offset = static_cast<int64_t>(at - begin);
    }
  }

  const ExampleSpec* spec_;
  const RecordFiles& files_;
  bool verify_;
  bool skip_;
  std::unique_ptr<ExampleBatch> scratch_;
  const uint8_t* base_ = nullptr;
  std::vector<int64_t> begins_;
  std::vector<int64_t> sizes_;
};

}  // namespace

// What the threads share; each holds a reference to it.
struct ExampleQueue::State {
  State(const ExampleSpec* its_spec, const RecordFiles& its_files, const RecordOrder& its_order,
        const Options& its_options)
      : spec(its_spec),
        files(its_files),
        order(its_order),
        options(its_options),
        finder(files, order) {}

  // The next batch to make; null at the end. Threads find their records one after the other, so
  // that batches are in order, and make them at the same time.
  std::shared_ptr<Job> claim() {
    const std::lock_guard<std::mutex> turn(finding);
    {
      std::unique_lock<std::mutex> lock(mutex);
      room.wait(lock, [&] { return ends || static_cast<int64_t>(claimed.size()) < options.ahead; });
      if (ends) return nullptr;
    }
    auto job = std::make_shared<Job>();
    finder.find(options.batch_size, job.get());
    const auto found = static_cast<int64_t>(job->places.size());
    const bool faulty = job->fault != RecordFault::kNone;
    const std::lock_guard<std::mutex> lock(mutex);
    if (found == 0 || (options.drop_last && !faulty && found < options.batch_size)) {
      end();
      return nullptr;
    }
    claimed.push_back(job);
    return job;
  }

  // There is no further batch. The mutex is held.
  void end() {
    ends = true;
    made.notify_all();
    room.notify_all();
  }

  const ExampleSpec* spec;
  RecordFiles files;
  RecordOrder order;
  Options options;
  std::shared_ptr<BlockPool> pool = std::make_shared<BlockPool>();
  std::mutex finding;
  Finder finder;  // guarded by `finding`, everything below by `mutex`
  std::mutex mutex;
  std::condition_variable room;
  std::condition_variable made;
  std::deque<std::shared_ptr<Job>> claimed;  // not taken, in order
  bool ends = false;                         // no batch is claimed any more
  bool out_of_memory = false;
};

ExampleQueue::ExampleQueue(const ExampleSpec* spec, const RecordFiles& files,
                           const RecordOrder& order, const Options& options)
    : state_(std::make_shared<State>(spec, files, order, options)), process_(getpid()) {
  try {
    for (int32_t i = 0; i < options.threads; ++i) {
      threads_.emplace_back([state = state_] { work(state); });
    }
  } catch (const std::exception& e) {
    if (threads_.empty()) {
      throwError(ErrorCode::kInternal, "expected a thread that can be started: %s", e.what());
    }
  }
}

ExampleQueue::~ExampleQueue() {
  if (getpid() != process_) {
    // The mutex may be held by a thread that is not here.
    new std::shared_ptr<State>(state_);
    new std::vector<std::thread>(std::move(threads_));
    return;
  }
  {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    state_->end();
  }
  for (std::thread& thread : threads_) thread.join();
}

void ExampleQueue::work(const std::shared_ptr<State>& state) {
  try {
    BatchMaker maker(state->spec, state->files, state->options);
    while (const std::shared_ptr<Job> job = state->claim()) {
      std::unique_ptr<ParsedBatch> made;
      try {
        made = maker.make(job.get(), state->pool);
      } catch (const std::bad_alloc&) {
        // Not even an empty result could be allocated; take() reports it.
      }
      const std::lock_guard<std::mutex> lock(state->mutex);
      job->made = std::move(made);
      job->done = true;
      if (!state->claimed.empty() && state->claimed.front() == job) state->made.notify_one();
    }
  } catch (const std::bad_alloc&) {
    const std::lock_guard<std::mutex> lock(state->mutex);
    state->out_of_memory = true;
    state->end();
  }
}

int64_t ExampleQueue::ready() {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return std::count_if(state_->claimed.begin(), state_->claimed.end(),
                       [](const std::shared_ptr<Job>& job) { return job->done; });
}

std::unique_ptr<ParsedBatch> ExampleQueue::take() {
  std::shared_ptr<Job> job;
  {
    std::unique_lock<std::mutex> lock(state_->mutex);
    std::deque<std::shared_ptr<Job>>& claimed = state_->claimed;
    state_->made.wait(lock, [&] { return claimed.empty() ? state_->ends : claimed.front()->done; });
    if (claimed.empty()) {
      if (std::exchange(state_->out_of_memory, false)) throw std::bad_alloc();
      return nullptr;
    }
    job = std::move(claimed.front());
    claimed.pop_front();
  }
  state_->room.notify_one();
  if (job->made == nullptr) throw std::bad_alloc();
  return std::move(job->made);
}

}  // namespace tensor_bridge
