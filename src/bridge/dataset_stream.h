// DataStream: the elements of a DatasetIterator in order, made by a thread that keeps a bounded
// queue filled, or one by one on request. Not for: Python, or the form of an element
// (dataset_element.h).
//
// Note [The thread of a DataStream]
// The thread and the stream's owner share the stream's state, so that the thread may outlive the
// owner: a tf.py_function that never returns cannot be cancelled, and must not keep close() from
// returning. The thread makes an element only when the queue has room for it, so at most `prefetch`
// undelivered elements exist. With a prefetch of 0 it makes an element when somebody waits for it,
// so that the wait can be interrupted (Ctrl-C) and the element is ready for the next call. If
// elements are cheap, and nothing is made ahead or the caller returns before a thread could be
// woken (it only drains the stream), the caller makes the elements itself and the thread sleeps: on
// 2 cores that took 18 us per element of two small tensors, against 27 us handed over. A paused
// thread is between two elements, and the iterator resource is just after the last queued element.
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

  /// `adaptive`: the caller may make elements itself although there is a thread; next() may then
  /// exceed its time limit.
  DataStream(std::unique_ptr<DatasetIterator> iterator, DataPlan plan, int prefetch, bool adaptive);
  /// close() was called, or the process is a forked child.
  ~DataStream();
  DataStream(const DataStream&) = delete;
  DataStream& operator=(const DataStream&) = delete;

  /// Whether next() would return at once, so that the caller need not release the GIL.
  bool hasItem() const;
  /// The next item; after the end, always the end. Hold no lock that the pipeline may want
  /// (the GIL), unless hasItem().
  Wait next(std::chrono::milliseconds limit, DataItem* item);

  void pause();
  void resume() noexcept;
  void cancel() noexcept;
  /// Cancels, and waits for the thread; false if it did not end within `limit` and was abandoned.
  bool close(std::chrono::milliseconds limit) noexcept;

  /// Whether this process made the stream; a child of fork() has its memory, but not its thread.
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
