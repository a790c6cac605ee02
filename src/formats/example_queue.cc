#include "formats/example_queue.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <new>
#include <utility>

#include "core/error.h"
#include "formats/format_error.h"

namespace tensor_bridge {
namespace {

// Torch aligns its own memory to this, and TensorFlow requires it.
constexpr int64_t kAlignment = 64;

int64_t aligned(int64_t size) { return (size + kAlignment - 1) / kAlignment * kAlignment; }

// Reads, checks and parses one batch.
class BatchMaker {
 public:
  BatchMaker(const ExampleSpec* spec, const RecordFiles& files, bool verify, bool skip)
      : spec_(spec), files_(files), verify_(verify), skip_(skip) {}

  std::unique_ptr<ParsedBatch> make(const std::vector<int64_t>& numbers,
                                    const std::shared_ptr<BlockPool>& pool) {
    auto batch = std::make_unique<ParsedBatch>();
    batch->pool = pool;
    const auto begin = std::chrono::steady_clock::now();
    try {
      if (find(numbers, batch.get())) parse(batch.get());
    } catch (const FormatError& e) {
      batch->failed = true;
      batch->message = e.what();
      place(e.offset(), batch.get());
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
  // Finds the records, as offsets from base_. False for a damaged record.
  bool find(const std::vector<int64_t>& numbers, ParsedBatch* batch) {
    for (const int64_t number : numbers) {
      int64_t file = 0;
      const RecordAt record = recordOf(files_, number, verify_, &file);
      if (record.fault == RecordFault::kDataCheck && skip_) {
        ++batch->skipped_records;
        batch->skipped_bytes += record.size + kRecordHeader + kRecordFooter;
        continue;
      }
      if (record.fault != RecordFault::kNone) {
        batch->failed = true;
        batch->fault = record.fault;
        batch->file = file;
        batch->offset = files_.offsets[number];
        return false;
      }
      const uint8_t* at = files_.data[file] + (record.end - kRecordFooter - record.size);
      if (base_ == nullptr) base_ = at;
      begins_.push_back(at - base_);
      sizes_.push_back(record.size);
    }
    batch->count = static_cast<int64_t>(begins_.size());
    return true;
  }

  void parse(ParsedBatch* batch) {
    if (spec_ == nullptr) {
      gather(batch);
      return;
    }
    const ExampleBatch parsed(*spec_, base_, begins_.data(), sizes_.data(), batch->count);
    for (size_t i = 0; i < spec_->columns().size(); ++i) {
      const ExampleColumn& asked = spec_->columns()[i];
      ParsedBatch::Column& column = batch->columns.emplace_back();
      column.type = asked.type;
      column.size = parsed.size(static_cast<int32_t>(i));
      const ColumnSize& size = column.size;
      const bool strings = asked.type == FeatureType::kBytes;
      column.elements[0] = strings ? size.bytes : size.values;
      if (strings) column.elements[1] = size.values + 1;
      if (asked.kind == ColumnKind::kSparse) {
        column.elements[2] = (asked.in_lists ? 3 : 2) * size.values;
      } else if (asked.kind == ColumnKind::kRagged) {
        column.elements[2] = batch->count + 1 + (asked.in_lists ? size.rows + 1 : 0);
      } else if (asked.in_lists) {
        column.elements[3] = batch->count;
      }
    }
    allocate(batch);
    for (size_t i = 0; i < batch->columns.size(); ++i) {
      parsed.fill(static_cast<int32_t>(i), batch->columns[i].memory);
    }
  }

  // Copies raw records to one column of strings.
  void gather(ParsedBatch* batch) const {
    ParsedBatch::Column& column = batch->columns.emplace_back();
    column.size.values = batch->count;
    for (const int64_t each : sizes_) column.size.bytes += each;
    column.elements[0] = column.size.bytes;
    column.elements[1] = batch->count + 1;
    allocate(batch);
    auto* out = static_cast<uint8_t*>(column.memory.values);
    int64_t* offsets = column.memory.offsets;
    *offsets = 0;
    for (size_t i = 0; i < sizes_.size(); ++i) {
      if (sizes_[i] > 0) std::memcpy(out, base_ + begins_[i], static_cast<size_t>(sizes_[i]));
      out += sizes_[i];
      offsets[i + 1] = offsets[i] + sizes_[i];
    }
  }

  // One block for all columns: a batch is one allocation, and one release.
  static void allocate(ParsedBatch* batch) {
    const auto each = [&](auto visit) {
      for (ParsedBatch::Column& column : batch->columns) {
        for (int part = 0; part < 4; ++part) {
          const bool bytes = part == 0 && column.type == FeatureType::kBytes;
          const bool floats = part == 0 && column.type == FeatureType::kFloat;
          visit(&column, part, aligned(column.elements[part] * (bytes ? 1 : floats ? 4 : 8)));
        }
      }
    };
    each([&](ParsedBatch::Column*, int, int64_t size) {
      if (__builtin_add_overflow(batch->bytes, size, &batch->bytes)) throw std::bad_alloc();
    });
    batch->memory = batch->pool->take(static_cast<size_t>(batch->bytes + kAlignment));
    uint8_t* at = batch->memory.data.get();
    at += (kAlignment - reinterpret_cast<uintptr_t>(at) % kAlignment) % kAlignment;
    each([&](ParsedBatch::Column* column, int part, int64_t size) {
      void* place = column->elements[part] == 0 && part > 0 ? nullptr : at;
      at += size;
      auto* numbers = static_cast<int64_t*>(place);
      if (part == 0) column->memory.values = place;
      if (part == 1) column->memory.offsets = numbers;
      if (part == 2) column->memory.index = numbers;
      if (part == 3) column->memory.lengths = numbers;
    });
  }

  // Finds the file, and the offset in it, of an offset from base_.
  void place(int64_t offset, ParsedBatch* batch) const {
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
  const uint8_t* base_ = nullptr;
  std::vector<int64_t> begins_;
  std::vector<int64_t> sizes_;
};

}  // namespace

BlockPool::Block BlockPool::take(size_t size) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (Block& block : free_) {
      // A much larger block would keep memory that batches no longer need.
      if (block.size < size || block.size / 2 > size) continue;
      std::swap(block, free_.back());
      Block found = std::move(free_.back());
      free_.pop_back();
      return found;
    }
    // No block fits, so the sizes of batches have changed.
    free_.clear();
  }
  const size_t rounded = size + size / 8;  // the next batch may be a little larger
  return {std::unique_ptr<uint8_t[]>(new uint8_t[rounded]), rounded};
}

void BlockPool::give(Block block) noexcept {
  constexpr size_t kKept = 4;
  if (block.data == nullptr) return;
  try {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (free_.size() < kKept) free_.push_back(std::move(block));
  } catch (const std::exception&) {
    // The block is freed, as without a pool.
  }
}

// The state that the threads share. Each thread holds a reference.
struct ExampleQueue::State {
  const ExampleSpec* spec;
  RecordFiles files;
  Options options;
  std::shared_ptr<BlockPool> pool = std::make_shared<BlockPool>();
  std::mutex mutex;
  std::condition_variable asked;
  std::condition_variable made;
  std::deque<std::shared_ptr<Job>> todo;
  std::deque<std::shared_ptr<Job>> order;  // all jobs that were not taken
  bool ends = false;
};

ExampleQueue::ExampleQueue(const ExampleSpec* spec, const RecordFiles& files, Options options)
    : state_(std::make_shared<State>()), process_(getpid()) {
  state_->spec = spec;
  state_->files = files;
  state_->options = options;
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
    // A thread that does not exist in this process may hold the mutex.
    new std::shared_ptr<State>(state_);
    new std::vector<std::thread>(std::move(threads_));
    return;
  }
  {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    state_->ends = true;
    state_->todo.clear();
  }
  state_->asked.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ExampleQueue::work(const std::shared_ptr<State>& state) {
  std::unique_lock<std::mutex> lock(state->mutex);
  while (true) {
    state->asked.wait(lock, [&] { return state->ends || !state->todo.empty(); });
    if (state->ends) return;
    const std::shared_ptr<Job> job = std::move(state->todo.front());
    state->todo.pop_front();
    lock.unlock();
    const Options& options = state->options;
    std::unique_ptr<ParsedBatch> made;
    try {
      made = BatchMaker(state->spec, state->files, options.verify, options.skip)
                 .make(job->numbers, state->pool);
    } catch (...) {
      // Only if there is no memory for the result itself. take() then throws std::bad_alloc.
    }
    lock.lock();
    job->made = std::move(made);
    job->done = true;
    state->made.notify_all();
  }
}

void ExampleQueue::submit(const int64_t* numbers, int64_t count) {
  auto job = std::make_shared<Job>();
  job->numbers.assign(numbers, numbers + count);
  {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    state_->order.push_back(job);
    state_->todo.push_back(std::move(job));
  }
  state_->asked.notify_one();
}

int64_t ExampleQueue::waiting() {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return static_cast<int64_t>(state_->order.size());
}

int64_t ExampleQueue::ready() {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return std::count_if(state_->order.begin(), state_->order.end(),
                       [](const std::shared_ptr<Job>& job) { return job->done; });
}

std::unique_ptr<ParsedBatch> ExampleQueue::take() {
  std::unique_lock<std::mutex> lock(state_->mutex);
  if (state_->order.empty()) return nullptr;
  const std::shared_ptr<Job> job = state_->order.front();
  state_->made.wait(lock, [&] { return job->done; });
  state_->order.pop_front();
  if (job->made == nullptr) throw std::bad_alloc();
  return std::move(job->made);
}

}  // namespace tensor_bridge
