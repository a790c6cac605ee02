// Which owner of foreign memory a storage has, by what torch keeps of it: a deleter and a context.
// Not for: what a write does (copy_on_write.h).
#ifndef TENSOR_BRIDGE_ADAPTERS_TORCH_FOREIGN_OWNER_H_
#define TENSOR_BRIDGE_ADAPTERS_TORCH_FOREIGN_OWNER_H_

#include <c10/core/StorageImpl.h>

#include "adapters/torch_abi.h"
#include "core/owner_kinds.h"

namespace tensor_bridge {

/// What the bridge offers. Set once, before the first storage is made.
extern const TorchHost* g_host;

/// The kind of an owner with this release function; null if it is none of foreign memory.
const OwnerKind* kindOf(ReleaseFn release) noexcept;

/// Foreign memory that a storage shows: its owner and the kind of it.
struct Foreign {
  const OwnerKind* kind = nullptr;
  void* owner = nullptr;
};
Foreign foreignBehind(const c10::DataPtr& data) noexcept;

/// `foreign.kind`; `held`, if given, becomes a new reference to the memory, or null if there can be
/// none.
const OwnerKind* kindHeld(const Foreign& foreign, void** held) noexcept;
/// Gives back a reference that kindHeld() or foreignKind() gave.
void dropHeld(ReleaseFn release, void* held) noexcept;

/// The deleter of torch's ordinary allocations in host memory.
c10::DeleterFnPtr ordinaryDeleter();

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TORCH_FOREIGN_OWNER_H_
