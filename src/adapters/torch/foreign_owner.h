// The owner of a storage's foreign memory, found by the deleter and context that torch keeps; and
// giving an owner to a storage. Not for: what a write does (copy_on_write.h).
#ifndef TENSOR_BRIDGE_ADAPTERS_TORCH_FOREIGN_OWNER_H_
#define TENSOR_BRIDGE_ADAPTERS_TORCH_FOREIGN_OWNER_H_

#include <c10/core/StorageImpl.h>

#include <utility>

#include "adapters/torch/gpu.h"
#include "adapters/torch_abi.h"
#include "core/owner_kinds.h"

namespace tensor_bridge {

/// The bridge's functions for adapters. Set once, before the first storage is made.
extern const TorchHost* g_host;

/// The kind of an owner with this release function; null if it does not own foreign memory.
inline const OwnerKind* kindOf(ReleaseFn release) noexcept {
  for (const OwnerKind* kind = g_host->owner_kinds; kind->tag != OwnerTag::kNone; ++kind) {
    if (kind->release == release) return kind;
  }
  return nullptr;
}

/// Foreign memory that a storage shows: its owner and the kind of it.
struct Foreign {
  const OwnerKind* kind = nullptr;
  void* owner = nullptr;
};
inline Foreign foreignBehind(const c10::DataPtr& data) noexcept {
  ReleaseFn release = data.get_deleter();
  Foreign foreign{kindOf(release), data.get_context()};
  if (foreign.kind == nullptr && release == releaseGpuOwner &&
      gpuOwner(foreign.owner, &release, &foreign.owner)) {
    foreign.kind = kindOf(release);
  }
  return foreign;
}

/// `foreign.kind`; `held`, if given, becomes a new reference to the memory, or null if there can be
/// none.
inline const OwnerKind* kindHeld(const Foreign& foreign, void** held) noexcept {
  if (foreign.kind != nullptr && held != nullptr) *held = foreign.kind->retain(foreign.owner);
  return foreign.kind;
}
/// Releases a reference from kindHeld() or foreignKind().
void dropHeld(ReleaseFn release, void* held) noexcept;

/// A storage over the memory of `ref`, not yet guarded; `take` as for makeForeignStorage().
inline c10::intrusive_ptr<c10::StorageImpl> unguardedStorage(TensorRef* ref, c10::Device device,
                                                             bool take) {
  c10::DataPtr data = device.is_cpu() ? c10::DataPtr(ref->dl.data, take ? ref->take() : nullptr,
                                                     ref->release, device)
                                      : gpuDataPtr(ref, device, take);
  return c10::make_intrusive<c10::StorageImpl>(
      c10::StorageImpl::use_byte_size_t(), c10::SymInt(ref->nbytes), std::move(data),
      c10::GetAllocator(device.type()), /*resizable=*/true);
}

/// Gives the owner of `ref` to a storage that was made without it.
inline void giveOwner(c10::StorageImpl* storage, TensorRef* ref) noexcept {
  c10::DataPtr& current = storage->_mutable_data_ptr_no_checks();
  const c10::Device device = current.device();
  if (device.is_cpu()) {
    current = c10::DataPtr(ref->dl.data, ref->take(), ref->release, device);
  } else {
    attachGpuOwner(current, ref);
  }
}

/// The deleter of torch's ordinary allocations in host memory.
c10::DeleterFnPtr ordinaryDeleter();

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TORCH_FOREIGN_OWNER_H_
