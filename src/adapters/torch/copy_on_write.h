// Storages over foreign memory that intercept the first write: copy_on_write_hook.cc from
// torch 2.13 on, copy_on_write_guard.cc before. Not for: deciding which policy applies (bridge).
#ifndef TENSOR_BRIDGE_ADAPTERS_TORCH_COPY_ON_WRITE_H_
#define TENSOR_BRIDGE_ADAPTERS_TORCH_COPY_ON_WRITE_H_

#include <c10/core/StorageImpl.h>

#include "adapters/torch_abi.h"
#include "core/tensor_ref.h"

namespace tensor_bridge {

/// A storage over the memory of `ref` on `device`, guarded according to `on_write`
/// (TB_ON_WRITE_*). With `take` the owner is taken over, and released if this throws after that;
/// without it nothing is taken before attachOwner().
c10::intrusive_ptr<c10::StorageImpl> makeForeignStorage(TensorRef* ref, c10::Device device,
                                                        int32_t on_write, bool take);

/// Gives the owner to the storage, which keeps it beyond the first write, so that a pointer taken
/// before that write stays valid.
void attachOwner(c10::StorageImpl* storage, TensorRef* ref) noexcept;

/// Whether this release of torch lets an existing storage keep its bytes for someone else.
bool canShareStorage() noexcept;

/// Makes `storage` keep its bytes for someone else; returns a new reference to them, released with
/// releaseSharedBytes(), and their address in `*bytes`. The next write moves torch onto a copy, or
/// keeps the bytes if nobody else has them any more. Null if the storage has a hook of another
/// kind, if another thread is in the middle of its first write, or if two threads were once. Throws
/// std::bad_alloc.
void* shareStorage(c10::StorageImpl* storage, void** bytes);
void releaseSharedBytes(void* shared);

/// Hands the memory that `storage` kept after moving away from it to the caller; returns its
/// release function, or null if there is none. Allowed only when every operator that began before
/// the move has finished: see Note [What a storage keeps after a move].
ReleaseFn takePreviousOf(c10::StorageImpl* storage, void** previous) noexcept;

/// The obstacle to shareStorage() for a storage of torch's own memory.
Obstacle sharingObstacle(const c10::StorageImpl* storage) noexcept;

/// Whether the storage's hook, if any, is that of shareStorage().
bool isSharedStorage(const c10::StorageImpl* storage) noexcept;

/// Whether a write to a storage over foreign memory is intercepted (not on_write="alias").
bool isProtected(const c10::StorageImpl* storage) noexcept;

/// Whether something else watches access to the storage (another materializer).
bool isHooked(const c10::StorageImpl* storage) noexcept;

/// If `storage` is still over foreign memory: the kind of its owner, else null. `held`, if given,
/// becomes a new reference to that memory, or null if there can be none.
const OwnerKind* foreignKind(const c10::StorageImpl* storage, void** held = nullptr) noexcept;

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TORCH_COPY_ON_WRITE_H_
