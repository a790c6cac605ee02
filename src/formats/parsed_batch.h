// ParsedBatch: records parsed into columns that share one block of memory. Not for: the columns'
// contents (formats/example.h), the threads that make batches (formats/example_queue.h).
#ifndef TENSOR_BRIDGE_FORMATS_PARSED_BATCH_H_
#define TENSOR_BRIDGE_FORMATS_PARSED_BATCH_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "formats/example.h"
#include "formats/tfrecord.h"

namespace tensor_bridge {

/// Blocks of memory that batches gave back and later batches use again. New memory costs a page
/// fault for every 4 kB, a third of a batch's time. A forked child may use it even if a thread of
/// its parent held the mutex: nobody waits for the mutex.
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
  size_t free_bytes_ = 0;
};

/// A batch of parsed records, or the reason why there is none.
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

  int64_t count = 0;                // records
  std::vector<Column> columns;      // raw records: one column of strings
  std::shared_ptr<BlockPool> pool;  // null: the block is of malloc
  BlockPool::Block memory;          // one block for all columns
  int64_t bytes = 0;                // used in that block
  int64_t skipped_records = 0;      // damaged records that were left out
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

/// Parses `count` records into `batch`, whose pool is set: record i is the `sizes[i]` bytes at
/// `base + begins[i]`. `scratch` is used for it. Throws FormatError and std::bad_alloc.
void parseRecords(ExampleBatch* scratch, const uint8_t* base, const int64_t* begins,
                  const int64_t* sizes, int64_t count, ParsedBatch* batch);

/// Makes a batch of a few records at a time, while these are in the processor's cache. Where all
/// records have as many values, the memory of a batch is known before they are parsed.
class BatchBuilder {
 public:
  /// Whether a batch of `count` records, together `bytes` bytes, can be built in this way. A null
  /// spec stands for raw records.
  static bool fits(const ExampleSpec* spec, int64_t bytes, int64_t count);

  /// Allocates memory for at most `count` records, together `bytes` bytes. `scratch` is null for
  /// raw records; the pool of `batch` is set. Throws std::bad_alloc.
  BatchBuilder(ExampleBatch* scratch, int64_t bytes, int64_t count, ParsedBatch* batch);

  /// Adds records as parseRecords() takes them. Throws FormatError.
  void add(const uint8_t* base, const int64_t* begins, const int64_t* sizes, int64_t count);
  /// After the last one.
  void finish();

 private:
  void addRaw(const uint8_t* base, const int64_t* begins, const int64_t* sizes, int64_t count);

  ExampleBatch* scratch_;
  ParsedBatch& batch_;
};

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_FORMATS_PARSED_BATCH_H_
