// DataStream: the elements of a DatasetIterator one after the other, made by a thread that keeps a
// bounded queue filled, or one for each that is asked for. Not for: Python, or what an element is
// (dataset_element.h).
//
// Note [The thread of a DataStream]
// The thread shares the stream's state with its owner, so that it may outlive it: a tf.py_function
// that never returns cannot be cancelled, and must not keep close() from returning. It makes an
// element only when the queue has room for it, so at most `prefetch` elements exist that were not
// delivered; with 0 it makes one when somebody waits for it, so that the wait can be left (Ctrl-C)
// and the element is there for the next call. Where the caller comes back sooner than a thread is
// woken (it only drains the stream) or nothing is made ahead, and elements are cheap, the caller
// makes them itself and the thread sleeps: on 2 cores that took 18 us an element of two small
// tensors, against 27 us handed over. While it is paused it is between two elements, and the
// iterator resource stands just behind the last one that is in the queue.
#ifndef TENSOR_BRIDGE_BRIDGE_DATASET_STREAM_H_
#define TENSOR_BRIDGE_BRIDGE_DATASET_STREAM_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "bridge/dataset_element.h"

namespace tensor_bridge {

using ElementPointer = std::unique_ptr<tb_data_element>;

/// An element, a failure in its place, or the end.
struct DataItem {
  int64_t ordinal = 0;
  ElementPointer element;
  tb_status status = TB_OK;
  int tf_code = 0;
  std::string message;
  bool is_end() const { return element == nullptr && status == TB_OK; }
};

class DataStream {
 public:
  enum class Wait { kItem, kTimeout };

  /// `adaptive`: the caller may make elements itself although there is a thread; next() then does
  /// not keep to its limit.
  DataStream(std::unique_ptr<DatasetIterator> iterator, DataPlan plan, int prefetch, bool adaptive);
  /// close() was called, or the process is a forked child.
  ~DataStream();
  DataStream(const DataStream&) = delete;
  DataStream& operator=(const DataStream&) = delete;

  /// Whether next() would return at once: whoever holds the GIL need not release it.
  bool hasItem() const;
  /// The next item; the end for good once it was reached. Hold no lock that the pipeline may want
  /// (the GIL), unless hasItem().
  Wait next(std::chrono::milliseconds limit, DataItem* item);

  void pause();
  void resume() noexcept;
  void cancel() noexcept;
  /// Cancels and waits for the thread; false if it did not end within `limit` and was left alone.
  bool close(std::chrono::milliseconds limit) noexcept;

  /// Whether this process made it; a child of fork() has the memory, but not the thread.
  bool isHere() const noexcept;

  tb_data_stats stats() const;

 private:
  struct State;
  static void run(const std::shared_ptr<State>& state);

  const std::shared_ptr<State> state_;
  std::thread thread_;
  const int64_t process_;
};

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_BRIDGE_DATASET_STREAM_H_
