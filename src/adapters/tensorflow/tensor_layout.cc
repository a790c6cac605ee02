#include "adapters/tensorflow/tensor_layout.h"

#include "adapters/tensorflow/tf_api.h"

namespace tensor_bridge {
namespace {

struct Sample {
  int tf_enum;
  int itemsize;
  int ndim;
  int64_t shape[6];
};

// Each way of keeping sizes with few and with all of its dimensions, several dtypes, and the
// boundaries between the ways (65534 is the last size that fits in the first).
constexpr Sample kSamples[] = {
    {1, 4, 0, {}},           {9, 8, 1, {5}},
    {4, 1, 1, {65534}},      {10, 1, 1, {65535}},
    {6, 1, 2, {70000, 3}},   {19, 2, 3, {2, 70001, 1}},
    {2, 8, 4, {2, 3, 4, 5}}, {22, 4, 6, {1, 2, 3, 4, 5, 6}},
    {1, 4, 2, {0, 7}},
};

bool agrees(const TfApi& api, const Sample& sample, TF_Status* status) {
  int64_t count = 1;
  for (int i = 0; i < sample.ndim; ++i) count *= sample.shape[i];
  TF_Tensor* made = api.TF_AllocateTensor(sample.tf_enum, sample.shape, sample.ndim,
                                          static_cast<size_t>(count * sample.itemsize));
  if (made == nullptr) return false;
  TFE_TensorHandle* handle = api.TFE_NewTensorHandle(made, status);
  bool same = handle != nullptr;
  if (same) {
    const void* tensor = api.localTensor(handle);
    int64_t shape[6];
    TensorFields fields;
    // A layout that cannot be read at all must not be used; one sample kind more is no loss.
    same = tensor != nullptr && readTensorFields(tensor, shape, &fields) &&
           fields.tf_enum == api.TFE_TensorHandleDataType(handle) &&
           fields.ndim == api.TFE_TensorHandleNumDims(handle, status) &&
           fields.num_elements == count;
    for (int i = 0; same && i < sample.ndim; ++i) {
      same = shape[i] == api.TFE_TensorHandleDim(handle, i, status);
    }
    same = same && (count == 0 || fields.data == api.TFE_TensorHandleDevicePointer(handle, status));
    api.TFE_DeleteTensorHandle(handle);
  }
  api.TF_DeleteTensor(made);
  return same;
}

}  // namespace

bool tensorLayoutAgrees(const TfApi& api) noexcept {
  TF_Status* status = api.TF_NewStatus();
  bool same = true;
  for (const Sample& sample : kSamples) same = same && agrees(api, sample, status);
  api.TF_DeleteStatus(status);
  return same;
}

}  // namespace tensor_bridge
