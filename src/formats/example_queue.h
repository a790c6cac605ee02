// ExampleQueue: threads that read, check and parse whole batches of records ahead of the caller.
// Not for: choosing the records of a batch, files that are not in memory.
#ifndef TENSOR_BRIDGE_FORMATS_EXAMPLE_QUEUE_H_
#define TENSOR_BRIDGE_FORMATS_EXAMPLE_QUEUE_H_

#include <sys/types.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "formats/example.h"
#include "formats/tfrecord.h"

namespace tensor_bridge {

/// Blocks of memory that batches gave back and later batches use again. New memory costs a page
/// fault for every 4 kB, a third of a batch's time.
class BlockPool {
 public:
  struct Block {
    std::unique_ptr<uint8_t[]> data;
    size_t size = 0;
  };

  /// A block of at least `size` uninitialised bytes, which the caller owns. Throws std::bad_alloc.
  Block take(size_t size);
  /// Takes ownership of the block. Any thread may call it.
  void give(Block block) noexcept;

 private:
  std::mutex mutex_;
  std::vector<Block> free_;
};

/// A batch that a thread has parsed, or the reason why it could not.
struct ParsedBatch {
  ParsedBatch() = default;
  ParsedBatch(const ParsedBatch&) = delete;
  ParsedBatch& operator=(const ParsedBatch&) = delete;
  ~ParsedBatch() {
    if (pool != nullptr) pool->give(std::move(memory));
  }

  struct Column {
    FeatureType type = FeatureType::kBytes;
    ColumnSize size;
    ColumnMemory memory;       // within the batch's block
    int64_t elements[4] = {};  // sizes of values (bytes if strings), offsets, index, lengths
  };

  int64_t count = 0;            // records
  std::vector<Column> columns;  // raw records: one column of strings
  std::shared_ptr<BlockPool> pool;
  BlockPool::Block memory;      // one block for all columns
  int64_t bytes = 0;            // used in that block
  int64_t skipped_records = 0;  // damaged records that were left out
  int64_t skipped_bytes = 0;
  int64_t nanoseconds = 0;  // time that making it took
  // After a failure: the fault of a record, or a message from the parser or the system.
  bool failed = false;
  bool out_of_memory = false;
  RecordFault fault = RecordFault::kNone;
  int64_t file = -1;
  int64_t offset = -1;  // in that file
  std::string message;
};

/// Batches come out in the order of submission, whichever thread made them.
class ExampleQueue {
 public:
  struct Options {
    bool verify = true;  // compare the checksums of bytes
    bool skip = false;   // leave damaged records out
    int32_t threads = 1;
  };

  /// `spec` is null for raw records. The spec and the memory that `files` refers to must outlive
  /// the queue. Every file that has records must be in memory.
  ExampleQueue(const ExampleSpec* spec, const RecordFiles& files, Options options);
  /// Waits for the batches in work. In a forked child, which does not have the threads, it leaks
  /// the queue's state.
  ~ExampleQueue();
  ExampleQueue(const ExampleQueue&) = delete;
  ExampleQueue& operator=(const ExampleQueue&) = delete;

  /// Submits a batch of the records with these numbers, each below the last of the files' ends.
  void submit(const int64_t* numbers, int64_t count);
  /// Number of batches that were submitted and not taken.
  int64_t waiting();
  /// Number of those that are ready.
  int64_t ready();
  /// Waits for the oldest batch and returns it. Null if none was submitted and not taken.
  std::unique_ptr<ParsedBatch> take();

 private:
  struct Job {
    std::vector<int64_t> numbers;
    std::unique_ptr<ParsedBatch> made;
    bool done = false;
  };
  struct State;

  static void work(const std::shared_ptr<State>& state);

  std::shared_ptr<State> state_;
  std::vector<std::thread> threads_;
  pid_t process_;
};

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_FORMATS_EXAMPLE_QUEUE_H_
