// ExampleQueue: threads that read, check and parse whole batches of records ahead of the caller.
// Not for: files that are not in memory, a batch's memory (formats/parsed_batch.h).
#ifndef TENSOR_BRIDGE_FORMATS_EXAMPLE_QUEUE_H_
#define TENSOR_BRIDGE_FORMATS_EXAMPLE_QUEUE_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "formats/parsed_batch.h"

namespace tensor_bridge {

/// Which records are read, and in what order.
struct RecordOrder {
  /// With numbers: these records, each below the last of the files' ends.
  const int64_t* numbers = nullptr;
  int64_t count = 0;
  /// Without: every `step`-th record from `first` on, in the order of the files. Neither `ends` nor
  /// `offsets` of the files are needed: the records are found while they are read.
  int64_t first = 0;
  int64_t step = 1;
};

/// Batches come out in order, whichever thread made them.
class ExampleQueue {
 public:
  struct Options {
    bool verify = true;      // compare the checksums of bytes
    bool skip = false;       // leave damaged records out
    bool drop_last = false;  // leave out a last batch that is not full
    int32_t threads = 1;
    int64_t batch_size = 1;
    int64_t ahead = 4;  // batches that are made and not taken
  };

  /// `spec` is null for raw records. The spec, and the memory that `files` and `order` refer to,
  /// must outlive the queue. Every file that has records must be in memory.
  ExampleQueue(const ExampleSpec* spec, const RecordFiles& files, const RecordOrder& order,
               const Options& options);
  /// Waits for the batches in work. In a forked child, which does not have the threads, it leaks
  /// the queue's state.
  ~ExampleQueue();
  ExampleQueue(const ExampleQueue&) = delete;
  ExampleQueue& operator=(const ExampleQueue&) = delete;

  /// Number of batches that are ready.
  int64_t ready();
  /// Waits for the next batch and returns it; null at the end. Throws std::bad_alloc.
  std::unique_ptr<ParsedBatch> take();

 private:
  struct State;

  static void work(const std::shared_ptr<State>& state);

  std::shared_ptr<State> state_;
  std::vector<std::thread> threads_;
  pid_t process_;
};

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_FORMATS_EXAMPLE_QUEUE_H_
