#include "adapters/tensorflow/maker.h"

#include <sys/sysinfo.h>

#include <atomic>
#include <memory>

#include "core/error.h"
#include "core/exit.h"
#include "core/layout.h"

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

// The release function of the first tensor that was shared: torch's, and usually the only one. Its
// owners go to TensorFlow unwrapped, which saves an allocation each.
std::atomic<ReleaseFn> g_usual_release{nullptr};

bool isUsual(ReleaseFn release) noexcept {
  ReleaseFn usual = g_usual_release.load(std::memory_order_acquire);
  return usual == release ||
         (usual == nullptr && g_usual_release.compare_exchange_strong(usual, release));
}

void releaseUsual(void*, size_t, void* owner) {
  if (!processExiting()) g_usual_release.load(std::memory_order_acquire)(owner);
}

// With oneDNN, TensorFlow's allocator waits 10 s before it refuses more memory than the machine can
// have.
bool isMoreThanThereIs(int64_t nbytes) noexcept {
  if (nbytes < (int64_t{1} << 30)) return false;
  struct sysinfo info;
  if (sysinfo(&info) != 0) return false;
  const auto units = static_cast<uint64_t>(info.totalram) + info.totalswap;
  return static_cast<uint64_t>(nbytes) / info.mem_unit > units;
}

}  // namespace

[[gnu::no_stack_protector]] TfTensor importShared(const TfApi& api, TensorRef* ref) {
  // TF_NewTensor copies misaligned memory and calls the deallocator at once (2.12 to 2.21).
  if (!isAligned(ref->dl.data, kTensorFlowAlignment)) {
    throwError(ErrorCode::kInvalidHandle, "TensorFlow needs memory aligned to %zu bytes",
               kTensorFlowAlignment);
  }
  const bool usual = isUsual(ref->release);
  std::unique_ptr<ImportedOwner> imported;
  if (!usual) imported.reset(new ImportedOwner{ref->owner, ref->release});
  TfTensor tensor =
      owned(api, api.TF_NewTensor(dtypeInfo(ref->dtype).tf_enum, ref->dl.shape, ref->dl.ndim,
                                  ref->dl.data, static_cast<size_t>(ref->nbytes),
                                  usual ? releaseUsual : releaseImported,
                                  usual ? ref->owner : imported.get()));
  if (tensor == nullptr) throwError(ErrorCode::kOutOfMemory, "TF_NewTensor returned null");
  static_cast<void>(ref->take());
  static_cast<void>(imported.release());
  return tensor;
}

TfTensor allocateTensor(const TfApi& api, int tf_enum, const int64_t* shape, int ndim,
                        int64_t nbytes, void** data) {
  TfTensor tensor =
      owned(api, isMoreThanThereIs(nbytes)
                     ? nullptr
                     : api.TF_AllocateTensor(tf_enum, shape, ndim, static_cast<size_t>(nbytes)));
  *data = tensor == nullptr ? nullptr : api.TF_TensorData(tensor.get());
  if (tensor == nullptr || (*data == nullptr && nbytes > 0)) {
    throwError(ErrorCode::kOutOfMemory,
               "expected memory for a copy, but TensorFlow could not allocate %lld bytes; free "
               "other tensors first, or convert a part at a time",
               static_cast<long long>(nbytes));
  }
  return tensor;
}

}  // namespace tensor_bridge
