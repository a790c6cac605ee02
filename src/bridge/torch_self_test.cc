#include "bridge/torch_self_test.h"

#include <atomic>
#include <new>

namespace tensor_bridge {
namespace {

constexpr int kCount = 16;

struct Probe {
  alignas(64) float bytes[kCount];
  std::atomic<int> releases{0};
  std::atomic<bool> let_go{false};
};

void releaseProbe(void* probe) { static_cast<Probe*>(probe)->releases.fetch_add(1); }
// A separate function with its own address: OwnerKind::release_taken.
void releaseTakenProbe(void* probe) { releaseProbe(probe); }

bool holds(const void* data, float first) {
  const auto* values = static_cast<const float*>(data);
  for (int i = 0; i < kCount; ++i) {
    if (values[i] != first + static_cast<float>(i)) return false;
  }
  return true;
}

void fill(void* data, float first) {
  auto* values = static_cast<float*>(data);
  for (int i = 0; i < kCount; ++i) values[i] = first + static_cast<float>(i);
}

TensorRef referTo(Probe* probe, int64_t* shape) {
  TensorView view{};
  view.dl.data = probe->bytes;
  view.dl.device = DLDevice{kDLCPU, 0};
  view.dl.ndim = 2;
  view.dl.dtype = DLDataType{kDLFloat, 32, 1};
  view.dl.shape = shape;
  view.dtype = Dtype::kFloat32;
  view.read_only = true;
  view.nbytes = sizeof(probe->bytes);
  return TensorRef(view, probe, releaseProbe);
}

WrapSpec specOf(WrapAction action) {
  WrapSpec spec{};
  spec.action = action;
  spec.on_write = TB_ON_WRITE_COPY;
  spec.dtype = Dtype::kFloat32;
  return spec;
}

// The address of the tensor's elements; null if it is not the requested tensor.
const void* elementsOf(const TorchAdapter& adapter, tb_torch_tensor* tensor) {
  int64_t shape[kMaxDims];
  int64_t strides[kMaxDims];
  TensorRef ref;
  if (adapter.view(tensor, shape, strides, &ref) != TB_OK) return nullptr;
  const bool right = ref.dl.ndim == 2 && shape[0] == 4 && shape[1] == 4 && strides[0] == 4 &&
                     strides[1] == 1 && ref.dtype == Dtype::kFloat32;
  return right ? ref.dl.data : nullptr;
}

const char* testSharing(const TorchAdapter& adapter, Probe* probe) {
  int64_t shape[] = {4, 4};
  TensorRef ref = referTo(probe, shape);
  const WrapSpec spec = specOf(WrapAction::kShare);
  tb_torch_tensor* tensor = nullptr;
  probe->releases = 0;
  if (adapter.wrap(&ref, &spec, &tensor) != TB_OK) return "memory cannot be wrapped";
  if (elementsOf(adapter, tensor) != probe->bytes) return "wrapped memory is not shared";
  void* own = nullptr;
  if (adapter.mutableData(tensor, &own) != TB_OK) return "a wrapped tensor cannot be written to";
  if (own == nullptr || own == probe->bytes) return "a write is not intercepted";
  if (!holds(own, 0)) return "a write loses the values";
  fill(own, 100);
  if (elementsOf(adapter, tensor) != own) return "a write does not move the tensor";
  if (!holds(probe->bytes, 0)) return "a write reaches the source";
  if (probe->releases != 0) return "the source is released too early";
  adapter.release(tensor);
  return probe->releases == 1 ? nullptr : "the source is not released";
}

// Bytes that nobody else holds at the first write. An adapter may copy them nevertheless.
const char* testTakingOver(const TorchAdapter& adapter, Probe* probe) {
  int64_t shape[] = {4, 4};
  TensorRef ref = referTo(probe, shape);
  const WrapSpec spec = specOf(WrapAction::kShare);
  tb_torch_tensor* tensor = nullptr;
  probe->releases = 0;
  probe->let_go = true;
  if (adapter.wrap(&ref, &spec, &tensor) != TB_OK) return "memory cannot be wrapped";
  void* own = nullptr;
  if (adapter.mutableData(tensor, &own) != TB_OK) return "a wrapped tensor cannot be written to";
  if (own == nullptr || !holds(own, 0)) return "a write to bytes that were let go loses the values";
  void* again = nullptr;
  if (adapter.mutableData(tensor, &again) != TB_OK || again != own ||
      elementsOf(adapter, tensor) != own) {
    return "a tensor that took bytes over moves";
  }
  if (probe->releases != 0) return "bytes that were taken over are released too early";
  adapter.release(tensor);
  return probe->releases == 1 ? nullptr : "bytes that were taken over are not released";
}

const char* testCopying(const TorchAdapter& adapter, Probe* probe) {
  int64_t shape[] = {4, 4};
  TensorRef ref = referTo(probe, shape);
  const WrapSpec spec = specOf(WrapAction::kCopy);
  tb_torch_tensor* tensor = nullptr;
  if (adapter.wrap(&ref, &spec, &tensor) != TB_OK) return "memory cannot be copied";
  const void* own = elementsOf(adapter, tensor);
  if (own == nullptr || own == probe->bytes || !holds(own, 0)) return "a copy has other values";
  float copied[kCount];
  if (adapter.copyOut(tensor, copied) != TB_OK || !holds(copied, 0)) {
    return "a tensor cannot be read";
  }
  if (adapter.shares) {
    void* owner = nullptr;
    ReleaseFn release = nullptr;
    void* shared = nullptr;
    if (adapter.share(tensor, &owner, &release, &shared) != TB_OK) {
      return "torch's memory cannot be shared";
    }
    if (shared != own) return "torch's memory is not shared";
    void* moved = nullptr;
    if (adapter.mutableData(tensor, &moved) != TB_OK) return "a shared tensor cannot be written to";
    if (moved == shared) return "a write to a shared tensor is not intercepted";
    fill(moved, 100);
    if (!holds(shared, 0)) return "a write reaches the other side";
    release(owner);
  }
  adapter.release(tensor);
  return probe->releases == 0 ? nullptr : "a copy releases its source";
}

}  // namespace

const OwnerKind kProbeOwner = {
    OwnerTag::kProbe,
    releaseProbe,
    [](void*) noexcept -> void* { return nullptr; },
    [](void** probe, ReleaseFn*) noexcept { return static_cast<Probe*>(*probe)->let_go.load(); },
    releaseTakenProbe,
};

const char* selfTest(const TorchAdapter& adapter) noexcept {
  // Not freed after a failure: something may still refer to it.
  auto* probe = new (std::nothrow) Probe;
  if (probe == nullptr) return "no memory";
  fill(probe->bytes, 0);
  const char* failure = testCopying(adapter, probe);
  if (failure == nullptr && adapter.protects) failure = testSharing(adapter, probe);
  if (failure == nullptr && adapter.protects) failure = testTakingOver(adapter, probe);
  if (failure == nullptr) delete probe;
  return failure;
}

}  // namespace tensor_bridge
