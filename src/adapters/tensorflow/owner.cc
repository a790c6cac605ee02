#include "adapters/tensorflow/owner.h"

#include <algorithm>

#include "adapters/tensorflow/maker.h"
#include "adapters/tensorflow/reader.h"
#include "adapters/tensorflow/tensor_layout.h"
#include "core/error.h"
#include "core/exit.h"
#include "core/owner_counter.h"

namespace tensor_bridge {

void releaseBuffer(void* owner) {
  if (processExiting()) return;
  dropBuffer(*findTfApi(), static_cast<TensorBuffer*>(owner));
  countOwner(-1);
}

void releaseTensor(void* owner) {
  if (processExiting()) return;
  findTfApi()->TF_DeleteTensor(static_cast<TF_Tensor*>(owner));
  countOwner(-1);
}

void releaseHandle(void* owner) {
  if (processExiting()) return;
  findTfApi()->TFE_DeleteTensorHandle(static_cast<TFE_TensorHandle*>(owner));
  countOwner(-1);
}

namespace {

// Separate functions with their own addresses: OwnerKind::release_taken.
void releaseTakenBuffer(void* owner) { releaseBuffer(owner); }
void releaseTakenTensor(void* owner) { releaseTensor(owner); }

void* retainedBuffer(void* owner) noexcept {
  retainBuffer(static_cast<TensorBuffer*>(owner));
  return owner;
}

void* retainedTensor(void* owner) noexcept {
  try {
    return aliasTensor(*findTfApi(), static_cast<TF_Tensor*>(owner)).release();
  } catch (...) {
    return nullptr;
  }
}

void* retainedHandle(void* owner) noexcept {
  const TfApi& api = *findTfApi();
  TF_Status* status = threadStatus(api);
  void* retained =
      api.TFE_TensorHandleCopySharingTensor(static_cast<TFE_TensorHandle*>(owner), status);
  if (__builtin_expect(retained == nullptr, 0)) resetStatus(api, status);
  return retained;
}

bool letGoOfBuffer(void** owner, ReleaseFn*) noexcept {
  return bufferLetGo(*findTfApi(), static_cast<const TensorBuffer*>(*owner));
}

bool letGoOfTensor(void** owner, ReleaseFn*) noexcept {
  const TfApi& api = *findTfApi();
  if (api.Tensor_RefCountIsOne == nullptr) return false;
  const TensorBuffer* buffer = bufferOf(tensorInside(*owner));
  return buffer != nullptr && bufferLetGo(api, buffer);
}

// Exchanges our reference to the handle for a reference to its buffer.
bool letGoOfHandle(void** owner, ReleaseFn* release) noexcept {
  const TfApi& api = *findTfApi();
  auto* handle = static_cast<TFE_TensorHandle*>(*owner);
  if (processExiting() || api.Tensor_RefCountIsOne == nullptr || !api.isReady(handle)) return false;
  const void* tensor = api.localTensor(handle);
  TensorBuffer* buffer = tensor == nullptr ? nullptr : bufferOf(tensor);
  if (buffer == nullptr) return false;
  retainBuffer(buffer);
  api.TFE_DeleteTensorHandle(handle);
  *owner = buffer;
  *release = releaseBuffer;
  return bufferLetGo(api, buffer);
}

}  // namespace

const OwnerKind kTensorFlowOwners[kTensorFlowOwnerKinds] = {
    {OwnerTag::kTfHandle, releaseHandle, retainedHandle, letGoOfHandle, nullptr},
    {OwnerTag::kTfBuffer, releaseBuffer, retainedBuffer, letGoOfBuffer, releaseTakenBuffer},
    {OwnerTag::kTfTensor, releaseTensor, retainedTensor, letGoOfTensor, releaseTakenTensor},
};

namespace {

// Only if the layout of `tensor` can be read.
__attribute__((always_inline)) inline bool readShows(const void* tensor, const TensorView& view,
                                                     bool* shows) {
  int64_t shape[kMaxDims];
  TensorFields fields;
  if (tensor == nullptr || !readTensorFields(tensor, shape, &fields)) return false;
  *shows = fields.tf_enum == dtypeInfo(view.dtype).tf_enum && fields.ndim == view.dl.ndim &&
           fields.data == view.dl.data && std::equal(shape, shape + fields.ndim, view.dl.shape);
  return true;
}

bool tensorShows(const TfApi& api, const TF_Tensor* tensor, const TensorView& view) {
  bool shows;
  if (api.Tensor_destroy != nullptr && readShows(tensorInside(tensor), view, &shows)) return shows;
  if (api.TF_TensorType(tensor) != dtypeInfo(view.dtype).tf_enum) return false;
  if (api.TF_NumDims(tensor) != view.dl.ndim) return false;
  for (int i = 0; i < view.dl.ndim; ++i) {
    if (api.TF_Dim(tensor, i) != view.dl.shape[i]) return false;
  }
  return api.TF_TensorData(tensor) == view.dl.data;
}

bool handleShows(const TfApi& api, TFE_TensorHandle* handle, const TensorView& view) {
  bool shows;
  // The tensor was ready when it was exported.
  if (readShows(api.localTensor(handle), view, &shows)) return shows;
  if (api.TFE_TensorHandleDataType(handle) != dtypeInfo(view.dtype).tf_enum) return false;
  TF_Status* status = threadStatus(api);
  if (api.TFE_TensorHandleNumDims(handle, status) != view.dl.ndim) return false;
  for (int i = 0; i < view.dl.ndim; ++i) {
    if (api.TFE_TensorHandleDim(handle, i, status) != view.dl.shape[i]) return false;
  }
  return api.TFE_TensorHandleDevicePointer(handle, status) == view.dl.data;
}

// A TF_Tensor of `view`'s shape over the buffer with its memory.
TfTensor tensorOver(const TfApi& api, const TensorBuffer* buffer, const TensorView& view) {
  const DtypeInfo& info = dtypeInfo(view.dtype);
  BorrowedTensor borrowed;
  // TF_TensorBitcastFrom() reads only dtype and number of elements (Tensor::BitcastFrom).
  BorrowedTensor::makeFlat(api, info.tf_enum, view.nbytes / info.itemsize, buffer, &borrowed);
  return aliasTensor(api, reinterpret_cast<const TF_Tensor*>(&borrowed), info.tf_enum,
                     view.dl.shape, view.dl.ndim);
}

}  // namespace

bool ownerShows(const TfApi& api, OwnerTag tag, void* owner, const TensorView& view,
                int64_t bytes) {
  if (tag == OwnerTag::kTfHandle) {
    return handleShows(api, static_cast<TFE_TensorHandle*>(owner), view);
  }
  if (tag == OwnerTag::kTfTensor) return tensorShows(api, static_cast<TF_Tensor*>(owner), view);
  return view.nbytes == bytes && static_cast<TensorBuffer*>(owner)->data == view.dl.data;
}

[[gnu::no_stack_protector]] TfTensor tensorOfOwner(const TfApi& api, OwnerTag tag, void* owner,
                                                   const TensorView& view) {
  if (tag == OwnerTag::kTfBuffer) return tensorOver(api, static_cast<TensorBuffer*>(owner), view);
  if (tag == OwnerTag::kTfTensor) return aliasTensor(api, static_cast<TF_Tensor*>(owner));
  auto* handle = static_cast<TFE_TensorHandle*>(owner);
  TF_Status* status = threadStatus(api);
  TfTensor tensor = owned(api, api.TFE_TensorHandleResolve(handle, status));
  if (tensor == nullptr) throwHandleStatus(api, handle, status);
  return tensor;
}

[[gnu::no_stack_protector]] TfeHandle handleOfOwner(const TfApi& api, OwnerTag tag, void* owner,
                                                    const TensorView& view) {
  if (tag == OwnerTag::kTfHandle) return owned(api, static_cast<TFE_TensorHandle*>(owner));
  countOwner(1);
  const TensorRef kept(view, owner, tag == OwnerTag::kTfBuffer ? releaseBuffer : releaseTensor);
  if (tag == OwnerTag::kTfBuffer) {
    BorrowedTensor borrowed;
    if (BorrowedTensor::make(api, dtypeInfo(view.dtype).tf_enum, view.dl.shape, view.dl.ndim,
                             static_cast<TensorBuffer*>(owner), &borrowed)) {
      return makeHandle(api, reinterpret_cast<TF_Tensor*>(&borrowed));
    }
  }
  return makeHandle(api, tensorOfOwner(api, tag, owner, view).get());
}

}  // namespace tensor_bridge
