// ExampleQueue: threads that read, check and parse whole batches of records ahead of the caller.
// Not for: which records a batch has, files that are not in memory.
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

/// Blocks of memory that batches gave back, for the next ones: new memory costs a page fault for
/// every 4 kB, a third of the time that a batch takes.
class BlockPool {
 public:
  struct Block {
    std::unique_ptr<uint8_t[]> data;
    size_t size = 0;
  };

  /// At least `size` bytes, uninitialised. Throws std::bad_alloc.
  Block take(size_t size);
  /// On any thread.
  void give(Block block) noexcept;

 private:
  std::mutex mutex_;
  std::vector<Block> free_;
};

/// A batch that a thread has parsed, or why it could not.
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
    ColumnMemory memory;       // in the batch's
    int64_t elements[4] = {};  // of values (bytes, if strings), offsets, index, lengths
  };

  int64_t count = 0;            // records
  std::vector<Column> columns;  // raw records are one, of strings
  std::shared_ptr<BlockPool> pool;
  BlockPool::Block memory;      // one block for all columns
  int64_t bytes = 0;            // of that block
  int64_t skipped_records = 0;  // of damaged records that were left out
  int64_t skipped_bytes = 0;
  int64_t nanoseconds = 0;  // that it took
  // A failure: a fault of a record's frame, or a message of the parser or of the system.
  bool failed = false;
  bool out_of_memory = false;
  RecordFault fault = RecordFault::kNone;
  int64_t file = -1;
  int64_t offset = -1;  // in that file
  std::string message;
};

/// Batches come out in the order in which they were asked for, whichever thread made them.
class ExampleQueue {
 public:
  struct Options {
    bool verify = true;  // compare the checksums of bytes
    bool skip = false;   // leave damaged records out
    int32_t threads = 1;
  };

  /// `spec` may be null for raw records. It and what `files` refers to outlive the queue. All files
  /// that have records are in memory.
  ExampleQueue(const ExampleSpec* spec, const RecordFiles& files, Options options);
  /// Waits for batches that are being made; in a forked child, which has no threads, it leaks them.
  ~ExampleQueue();
  ExampleQueue(const ExampleQueue&) = delete;
  ExampleQueue& operator=(const ExampleQueue&) = delete;

  /// Asks for a batch of the records with these numbers, each below the last of the files' ends.
  void submit(const int64_t* numbers, int64_t count);
  /// Batches that were asked for and not taken; and those of them that are ready.
  int64_t waiting();
  int64_t ready();
  /// Waits for the oldest of them. Null if there is none.
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
