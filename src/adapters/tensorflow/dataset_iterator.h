// DatasetIterator: the next outputs of a tf.data iterator, and the parts of a ragged or sparse one,
// through TensorFlow's C API. Not for: threads and queues, or torch (bridge/dataset_stream.h).
#ifndef TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_DATASET_ITERATOR_H_
#define TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_DATASET_ITERATOR_H_

#include <string>
#include <utility>
#include <vector>

#include "adapters/tensorflow/handles.h"

namespace tensor_bridge {

/// Handles that are deleted with the vector.
class HandleList {
 public:
  explicit HandleList(const TfApi& api) : api_(api) {}
  ~HandleList() { clear(); }
  HandleList(const HandleList&) = delete;
  HandleList& operator=(const HandleList&) = delete;

  void clear() noexcept;
  /// Room for `count` handles, all null.
  TFE_TensorHandle** resize(size_t count);
  size_t size() const { return handles_.size(); }
  TFE_TensorHandle* operator[](size_t i) const { return handles_[i]; }
  TfeHandle take(size_t i) { return owned(api_, std::exchange(handles_[i], nullptr)); }

 private:
  const TfApi& api_;
  std::vector<TFE_TensorHandle*> handles_;
};

/// While it lives, the operations of this thread finish before they return, even if the executor of
/// the thread, or of the context, is asynchronous.
class SyncExecutor {
 public:
  SyncExecutor(const TfApi& api, TFE_Context* context);
  ~SyncExecutor();
  SyncExecutor(const SyncExecutor&) = delete;
  SyncExecutor& operator=(const SyncExecutor&) = delete;

 private:
  const TfApi& api_;
  TFE_Context* context_;
  const TfOwned<TFE_Executor> previous_;  // owns the reference, not the executor
  TfOwned<TFE_Executor> executor_;        // null if the previous one is synchronous
};

class DatasetIterator {
 public:
  enum class Step { kElement, kEnd, kFailure };

  /// Holds a reference to `resource`, an initialised iterator with outputs of these TF_DataTypes.
  /// Throws Error{kFramework} for a TensorFlow without the functions that this needs.
  DatasetIterator(const TfApi& api, TFE_Context* context, TFE_TensorHandle* resource,
                  std::vector<int> dtypes);

  /// The next outputs. Waits for TensorFlow; hold no lock that the pipeline may want (the GIL). On
  /// kFailure `code` and `message` are TensorFlow's. One call at a time.
  Step next(HandleList* outputs, int* code, std::string* message);

  /// From any thread: the running call, and every later one, fails with kTfCancelled.
  void cancel() noexcept;

  /// Values and row splits (outermost first) behind a ragged variant of the iterator's. Throws
  /// Error.
  void decodeRagged(TFE_TensorHandle* variant, int ragged_rank, int values_dtype, int splits_dtype,
                    HandleList* parts);

  /// Indices, values and dense shape behind a sparse variant of the iterator's. Throws Error.
  void decodeSparse(TFE_TensorHandle* variant, int values_dtype, HandleList* parts);

  const TfApi& api() const { return api_; }
  TFE_Context* context() const { return context_; }

 private:
  TFE_Op* reset(TfeOp* op, const char* name, const char* device);
  void decode(TFE_Op* op, size_t count, HandleList* parts);

  const TfApi& api_;
  TFE_Context* context_;
  TfOwned<TFE_CancellationManager> cancellation_;
  TfeHandle resource_;
  // Kept between calls: a reset is cheaper than a new op.
  TfeOp next_op_;
  TfeOp decode_op_;
  std::vector<int> dtypes_;
  std::vector<const int64_t*> dims_;
  std::vector<int> ranks_;
};

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_DATASET_ITERATOR_H_
