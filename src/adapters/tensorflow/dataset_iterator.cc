#include "adapters/tensorflow/dataset_iterator.h"

#include <utility>

#include "adapters/tensorflow/run_op.h"
#include "core/error.h"

namespace tensor_bridge {
namespace {

// The variant of IteratorGetNext that runs on the calling thread (TensorFlow 2.12 to 2.21).
// IteratorGetNext itself hands the work to its own thread pool and waits, which graphs need.
constexpr const char* kNextOp = "IteratorGetNextSync";

// TensorFlow would decode variants on a visible GPU, but elements are on the host.
constexpr const char* kDecodeDevice = "/job:localhost/replica:0/task:0/device:CPU:0";

}  // namespace

void HandleList::clear() noexcept {
  for (TFE_TensorHandle* handle : handles_) {
    if (handle != nullptr) api_.TFE_DeleteTensorHandle(handle);
  }
  handles_.clear();
}

TFE_TensorHandle** HandleList::resize(size_t count) {
  clear();
  handles_.resize(count, nullptr);
  return handles_.data();
}

SyncExecutor::SyncExecutor(const TfApi& api, TFE_Context* context)
    : api_(api),
      context_(context),
      previous_(owned(api, api.TFE_ContextGetExecutorForThread(context))) {
  if (__builtin_expect(!api_.TFE_ExecutorIsAsync(previous_.get()), 1)) return;
  executor_ = owned(api, api.TFE_NewExecutor(/*is_async=*/false, /*streaming=*/true, 0));
  api_.TFE_ContextSetExecutorForThread(context, executor_.get());
}

SyncExecutor::~SyncExecutor() {
  if (executor_ != nullptr) api_.TFE_ContextSetExecutorForThread(context_, previous_.get());
}

DatasetIterator::DatasetIterator(const TfApi& api, TFE_Context* context, TFE_TensorHandle* resource,
                                 std::vector<int> dtypes)
    : api_(api),
      context_(context),
      dtypes_(std::move(dtypes)),
      // Unknown rank: the iterator checked its dataset's shapes when it was initialised.
      dims_(dtypes_.size(), nullptr),
      ranks_(dtypes_.size(), -1) {
  if (api.TFE_OpReset == nullptr) {
    throwError(ErrorCode::kFramework,
               "the TensorFlow of this process lacks functions that iterating over a dataset needs "
               "(TFE_OpReset, TFE_NewCancellationManager, ...); install TensorFlow 2.12 to 2.21");
  }
  TF_Status* status = threadStatus(api);
  resource_ = owned(api, api.TFE_TensorHandleCopySharingTensor(resource, status));
  if (resource_ == nullptr) throwStatus(api, status, "no reference to the iterator");
  cancellation_ = owned(api, api.TFE_NewCancellationManager());
}

TFE_Op* DatasetIterator::reset(TfeOp* op, const char* name, const char* device) {
  TF_Status* status = threadStatus(api_);
  const bool made = *op == nullptr;
  if (made) *op = owned(api_, api_.TFE_NewOp(context_, name, status));
  if (*op == nullptr) throwStatus(api_, status, name);
  if (!made || device != nullptr) api_.TFE_OpReset(op->get(), name, device, status);
  check(api_, status, name);
  return op->get();
}

DatasetIterator::Step DatasetIterator::next(HandleList* outputs, int* code, std::string* message) {
  TF_Status* status = threadStatus(api_);
  TFE_Op* op = reset(&next_op_, kNextOp, /*device=*/nullptr);
  const int count = static_cast<int>(dtypes_.size());
  api_.TFE_OpAddInput(op, resource_.get(), status);
  if (api_.TF_GetCode(status) == kTfOk) {
    api_.TFE_OpSetAttrTypeList(op, "output_types", dtypes_.data(), count);
    api_.TFE_OpSetAttrShapeList(op, "output_shapes", dims_.data(), ranks_.data(), count, status);
  }
  if (api_.TF_GetCode(status) == kTfOk) {
    api_.TFE_OpSetCancellationManager(op, cancellation_.get(), status);
  }
  if (api_.TF_GetCode(status) == kTfOk) {
    runOp(api_, context_, op, outputs->resize(dtypes_.size()), count, status);
  }
  *code = api_.TF_GetCode(status);
  if (__builtin_expect(*code == kTfOk, 1)) return Step::kElement;
  *message = api_.TF_Message(status);
  resetStatus(api_, status);
  // TensorFlow turns every other OUT_OF_RANGE of a pipeline into another code.
  return *code == kTfOutOfRange ? Step::kEnd : Step::kFailure;
}

void DatasetIterator::cancel() noexcept {
  api_.TFE_CancellationManagerStartCancel(cancellation_.get());
}

void DatasetIterator::decode(TFE_Op* op, size_t count, HandleList* parts) {
  TF_Status* status = threadStatus(api_);
  constexpr const char* kWhat = "a variant of the dataset's";
  check(api_, status, kWhat);
  runOp(api_, context_, op, parts->resize(count), static_cast<int>(count), status);
  check(api_, status, kWhat);
}

void DatasetIterator::decodeRagged(TFE_TensorHandle* variant, int ragged_rank, int values_dtype,
                                   int splits_dtype, HandleList* parts) {
  TF_Status* status = threadStatus(api_);
  const int dims = api_.TFE_TensorHandleNumDims(variant, status);
  if (dims < 0) throwStatus(api_, status, "a ragged value of the dataset's");
  TFE_Op* op = reset(&decode_op_, "RaggedTensorFromVariant", kDecodeDevice);
  api_.TFE_OpAddInput(op, variant, status);
  // Each dimension of the variant stands for one partition.
  api_.TFE_OpSetAttrInt(op, "input_ragged_rank", ragged_rank - dims);
  api_.TFE_OpSetAttrInt(op, "output_ragged_rank", ragged_rank);
  api_.TFE_OpSetAttrType(op, "Tvalues", values_dtype);
  api_.TFE_OpSetAttrType(op, "Tsplits", splits_dtype);
  HandleList splits_first(api_);
  const auto rank = static_cast<size_t>(ragged_rank);
  decode(op, rank + 1, &splits_first);
  TFE_TensorHandle** out = parts->resize(rank + 1);
  out[0] = splits_first.take(rank).release();
  for (size_t i = 0; i < rank; ++i) out[i + 1] = splits_first.take(i).release();
}

void DatasetIterator::decodeSparse(TFE_TensorHandle* variant, int values_dtype, HandleList* parts) {
  TF_Status* status = threadStatus(api_);
  TFE_Op* op = reset(&decode_op_, "DeserializeSparse", kDecodeDevice);
  api_.TFE_OpAddInput(op, variant, status);
  api_.TFE_OpSetAttrType(op, "dtype", values_dtype);
  constexpr int kVariant = 21;
  api_.TFE_OpSetAttrType(op, "Tserialized", kVariant);
  decode(op, 3, parts);
}

}  // namespace tensor_bridge
