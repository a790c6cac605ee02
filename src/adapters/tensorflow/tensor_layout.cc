#include "adapters/tensorflow/tensor_layout.h"

#include <cstdlib>

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

// The number of references to the buffer of a tensorflow::Tensor.
int64_t* referencesOf(const void* tensor) {
  uint8_t* buffer;
  std::memcpy(&buffer, static_cast<const uint8_t*>(tensor) + 24, sizeof(buffer));
  return buffer == nullptr ? nullptr : reinterpret_cast<int64_t*>(buffer + sizeof(void*));
}

bool shows(const TfApi& api, const void* tf_tensor, const Sample& sample, const void* data) {
  const auto* tensor = static_cast<const TF_Tensor*>(tf_tensor);
  int64_t shape[6];
  TensorFields fields;
  bool same = readTensorFields(tensorInside(tensor), shape, &fields) &&
              fields.tf_enum == sample.tf_enum && fields.ndim == sample.ndim &&
              fields.data == data && api.TF_TensorType(tensor) == sample.tf_enum &&
              api.TF_NumDims(tensor) == sample.ndim && api.TF_TensorData(tensor) == data;
  for (int i = 0; same && i < sample.ndim; ++i) {
    same = shape[i] == sample.shape[i] && api.TF_Dim(tensor, i) == sample.shape[i];
  }
  return same;
}

bool aliasAgrees(const TfApi& api, const Sample& sample) {
  int64_t count = 1;
  for (int i = 0; i < sample.ndim; ++i) count *= sample.shape[i];
  const auto bytes = static_cast<size_t>(count * sample.itemsize);
  void* memory = nullptr;
  if (posix_memalign(&memory, 64, bytes + 64) != 0) return false;
  bool freed = false;
  TF_Tensor* made = api.TF_NewTensor(
      sample.tf_enum, sample.shape, sample.ndim, memory, bytes,
      [](void*, size_t, void* flag) { *static_cast<bool*>(flag) = true; }, &freed);
  bool same = made != nullptr && shows(api, made, sample, memory);
  if (same) {
    const int64_t* references = referencesOf(tensorInside(made));
    same = references != nullptr && *references == 1;
  }
  TensorAlias* alias = same ? makeAlias(made, api.Tensor_destroy) : nullptr;
  if (made != nullptr) api.TF_DeleteTensor(made);
  if (alias != nullptr) {
    same = !freed && shows(api, alias, sample, memory);
    releaseAlias(alias);
    same = same && freed;
  } else {
    same = false;
  }
  // TensorFlow still has it if it was not given back.
  if (freed) std::free(memory);
  return same;
}

}  // namespace

TensorAlias* makeAlias(const void* tf_tensor, void (*destroy)(void* tensor)) noexcept {
  auto* alias = static_cast<TensorAlias*>(std::malloc(sizeof(TensorAlias)));
  if (alias == nullptr) return nullptr;
  const auto* tensor = static_cast<const uint8_t*>(tensorInside(tf_tensor));
  alias->interface = &alias->interface_vtable;
  std::memcpy(&alias->interface_vtable, tensor - sizeof(void*), sizeof(void*));
  std::memcpy(alias->tensor, tensor, sizeof(alias->tensor));
  alias->destroy = destroy;
  if (int64_t* references = referencesOf(alias->tensor)) {
    __atomic_fetch_add(references, 1, __ATOMIC_RELAXED);
  }
  return alias;
}

void releaseAlias(TensorAlias* alias) noexcept {
  alias->destroy(alias->tensor);
  std::free(alias);
}

bool tensorAliasAgrees(const TfApi& api) noexcept {
  bool same = true;
  for (const Sample& sample : kSamples) same = same && aliasAgrees(api, sample);
  return same;
}

bool tensorLayoutAgrees(const TfApi& api) noexcept {
  TF_Status* status = api.TF_NewStatus();
  bool same = true;
  for (const Sample& sample : kSamples) same = same && agrees(api, sample, status);
  api.TF_DeleteStatus(status);
  return same;
}

}  // namespace tensor_bridge
