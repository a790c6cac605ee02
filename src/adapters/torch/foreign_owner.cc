#include "adapters/torch/foreign_owner.h"

namespace tensor_bridge {

const TorchHost* g_host = nullptr;

void dropHeld(ReleaseFn release, void* held) noexcept {
  g_host->countOwner(1);
  release(held);
}

c10::DeleterFnPtr ordinaryDeleter() {
  static const c10::DeleterFnPtr deleter = c10::GetAllocator(c10::kCPU)->raw_deleter();
  return deleter;
}

}  // namespace tensor_bridge
