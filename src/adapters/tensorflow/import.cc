#include "adapters/tensorflow/import.h"

#include <sys/sysinfo.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <string>

#include "adapters/tensorflow/export.h"
#include "adapters/tensorflow/tensor_layout.h"
#include "core/error.h"
#include "core/layout.h"
#include "core/owner_counter.h"
#include "core/shutdown.h"

namespace tensor_bridge {
namespace {

struct ImportedOwner {
  void* owner;
  ReleaseFn release;
};

// TensorFlow's deallocator: on any thread, with or without the GIL.
void releaseImported(void*, size_t, void* argument) {
  auto* imported = static_cast<ImportedOwner*>(argument);
  if (!processExiting()) imported->release(imported->owner);
  delete imported;
}

// The release function of the first tensor that was shared: torch's, mostly the only one there is.
// Its owners go to TensorFlow as they are, which saves an allocation each.
std::atomic<ReleaseFn> g_usual_release{nullptr};

bool isUsual(ReleaseFn release) noexcept {
  ReleaseFn usual = g_usual_release.load(std::memory_order_acquire);
  return usual == release ||
         (usual == nullptr && g_usual_release.compare_exchange_strong(usual, release));
}

void releaseUsual(void*, size_t, void* owner) {
  if (!processExiting()) g_usual_release.load(std::memory_order_acquire)(owner);
}

[[noreturn]] void throwStatus(const TfApi& api, TF_Status* status, const char* what) {
  const std::string message = api.TF_Message(status);
  resetStatus(api, status);
  throwError(ErrorCode::kTensorFlow, "%s: %s", what, message.c_str());
}

// With oneDNN, TensorFlow's allocator waits 10 s before it gives up on what the machine cannot
// have.
bool isMoreThanThereIs(int64_t nbytes) noexcept {
  if (nbytes < (int64_t{1} << 30)) return false;
  struct sysinfo info;
  if (sysinfo(&info) != 0) return false;
  const auto units = static_cast<uint64_t>(info.totalram) + info.totalswap;
  return static_cast<uint64_t>(nbytes) / info.mem_unit > units;
}

}  // namespace

TF_Tensor* importShared(const TfApi& api, const TensorView& view) {
  // TF_NewTensor copies misaligned memory and calls the deallocator at once (2.12 to 2.21).
  if (!isAligned(view.dl.data, kTensorFlowAlignment)) {
    throwError(ErrorCode::kInvalidHandle, "TensorFlow needs memory aligned to %zu bytes",
               kTensorFlowAlignment);
  }
  const bool usual = isUsual(view.release);
  std::unique_ptr<ImportedOwner> imported;
  if (!usual) imported.reset(new ImportedOwner{view.owner, view.release});
  TF_Tensor* tensor =
      api.TF_NewTensor(dtypeInfo(view.dtype).tf_enum, view.dl.shape, view.dl.ndim, view.dl.data,
                       static_cast<size_t>(view.nbytes), usual ? releaseUsual : releaseImported,
                       usual ? view.owner : imported.get());
  if (tensor == nullptr) throwError(ErrorCode::kOutOfMemory, "TF_NewTensor returned null");
  static_cast<void>(imported.release());
  return tensor;
}

TF_Tensor* allocateTensor(const TfApi& api, int tf_enum, const int64_t* shape, int ndim,
                          int64_t nbytes, void** data) {
  TF_Tensor* tensor =
      isMoreThanThereIs(nbytes)
          ? nullptr
          : api.TF_AllocateTensor(tf_enum, shape, ndim, static_cast<size_t>(nbytes));
  *data = tensor == nullptr ? nullptr : api.TF_TensorData(tensor);
  if (tensor == nullptr || (*data == nullptr && nbytes > 0)) {
    if (tensor != nullptr) api.TF_DeleteTensor(tensor);
    throwError(ErrorCode::kOutOfMemory, "TensorFlow could not allocate %lld bytes",
               static_cast<long long>(nbytes));
  }
  return tensor;
}

bool isTensorFlowOwner(ReleaseFn release) noexcept {
  return release == releaseHandle || release == releaseTensor || release == releaseTensorAlias;
}

void* retainOwner(const TfApi& api, ReleaseFn release, void* owner) {
  TF_Status* status = threadStatus(api);
  void* retained;
  if (release == releaseHandle) {
    retained = api.TFE_TensorHandleCopySharingTensor(static_cast<TFE_TensorHandle*>(owner), status);
    if (retained == nullptr) throwStatus(api, status, "TFE_TensorHandleCopySharingTensor");
  } else if (release == releaseTensorAlias) {
    retained = makeAlias(owner, static_cast<TensorAlias*>(owner)->destroy);
    if (retained == nullptr) throwError(ErrorCode::kOutOfMemory, "no memory for an alias");
  } else {
    retained = aliasTensor(api, static_cast<TF_Tensor*>(owner));
  }
  countOwner(1);
  return retained;
}

namespace {

// The tensorflow::Tensor of an owner, where its layout is known. Its handle was ready when it was
// exported.
const void* ownersTensor(const TfApi& api, ReleaseFn release, const void* owner) {
  if (release == releaseHandle) {
    return api.localTensor(static_cast<const TFE_TensorHandle*>(owner));
  }
  const bool known = release == releaseTensorAlias || api.Tensor_destroy != nullptr;
  return known ? tensorInside(owner) : nullptr;
}

}  // namespace

bool ownerShows(const TfApi& api, ReleaseFn release, void* owner, const TensorView& view) {
  const int tf_enum = dtypeInfo(view.dtype).tf_enum;
  if (const void* tensor = ownersTensor(api, release, owner)) {
    int64_t shape[kMaxDims];
    TensorFields fields;
    if (readTensorFields(tensor, shape, &fields)) {
      return fields.tf_enum == tf_enum && fields.ndim == view.dl.ndim &&
             fields.data == view.dl.data && std::equal(shape, shape + fields.ndim, view.dl.shape);
    }
  }
  if (release == releaseHandle) {
    auto* handle = static_cast<TFE_TensorHandle*>(owner);
    if (api.TFE_TensorHandleDataType(handle) != tf_enum) return false;
    TF_Status* status = threadStatus(api);
    if (api.TFE_TensorHandleNumDims(handle, status) != view.dl.ndim) return false;
    for (int i = 0; i < view.dl.ndim; ++i) {
      if (api.TFE_TensorHandleDim(handle, i, status) != view.dl.shape[i]) return false;
    }
    return api.TFE_TensorHandleDevicePointer(handle, status) == view.dl.data;
  }
  auto* tensor = static_cast<TF_Tensor*>(owner);
  if (api.TF_TensorType(tensor) != tf_enum || api.TF_NumDims(tensor) != view.dl.ndim) return false;
  for (int i = 0; i < view.dl.ndim; ++i) {
    if (api.TF_Dim(tensor, i) != view.dl.shape[i]) return false;
  }
  return api.TF_TensorData(tensor) == view.dl.data;
}

TF_Tensor* tensorOfOwner(const TfApi& api, ReleaseFn release, void* owner) {
  if (release != releaseHandle) return aliasTensor(api, static_cast<TF_Tensor*>(owner));
  TF_Status* status = threadStatus(api);
  TF_Tensor* tensor = api.TFE_TensorHandleResolve(static_cast<TFE_TensorHandle*>(owner), status);
  if (tensor == nullptr) throwStatus(api, status, "TFE_TensorHandleResolve");
  return tensor;
}

TFE_TensorHandle* makeHandle(const TfApi& api, TF_Tensor* tensor) {
  TF_Status* status = threadStatus(api);
  TFE_TensorHandle* handle = api.TFE_NewTensorHandle(tensor, status);
  if (handle == nullptr) throwStatus(api, status, "TFE_NewTensorHandle");
  return handle;
}

}  // namespace tensor_bridge
