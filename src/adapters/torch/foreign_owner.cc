#include "adapters/torch/foreign_owner.h"

#include "adapters/torch/gpu.h"

namespace tensor_bridge {

const TorchHost* g_host = nullptr;

const OwnerKind* kindOf(ReleaseFn release) noexcept {
  for (const OwnerKind* kind = g_host->owner_kinds; kind->tag != OwnerTag::kNone; ++kind) {
    if (kind->release == release) return kind;
  }
  return nullptr;
}

Foreign foreignBehind(const c10::DataPtr& data) noexcept {
  ReleaseFn release = data.get_deleter();
  Foreign foreign{kindOf(release), data.get_context()};
  if (foreign.kind == nullptr && release == releaseGpuOwner &&
      gpuOwner(foreign.owner, &release, &foreign.owner)) {
    foreign.kind = kindOf(release);
  }
  return foreign;
}

const OwnerKind* kindHeld(const Foreign& foreign, void** held) noexcept {
  if (foreign.kind != nullptr && held != nullptr) *held = foreign.kind->retain(foreign.owner);
  return foreign.kind;
}

void dropHeld(ReleaseFn release, void* held) noexcept {
  g_host->countOwner(1);
  release(held);
}

c10::DeleterFnPtr ordinaryDeleter() {
  static const c10::DeleterFnPtr deleter = c10::GetAllocator(c10::kCPU)->raw_deleter();
  return deleter;
}

}  // namespace tensor_bridge
