// TensorView: the currency between the adapters. A DLTensor, flags, and an owner with its release;
// on the stack, no allocation. Not for: keeping; a TensorView that outlives a call becomes a
// ManagedTensor or a torch storage.
#ifndef TENSOR_BRIDGE_CORE_TENSOR_REF_H_
#define TENSOR_BRIDGE_CORE_TENSOR_REF_H_

#include <cstdint>

#include "core/dtype.h"
#include "dlpack/dlpack.h"

namespace tensor_bridge {

/// TensorFlow's TensorShape::MaxDimensions().
constexpr int kMaxDims = 254;

/// Runs exactly once for each owner, on any thread, with or without the GIL, also while the
/// process exits. It must not throw and must not touch Python.
using ReleaseFn = void (*)(void* owner);

/// A kind of owner of foreign memory, known by its release function.
struct OwnerKind {
  ReleaseFn release;
  /// One more reference to the memory, as an owner of this kind; null if there can be none now. Not
  /// yet counted: whoever keeps it calls countOwner(1), for the release counts it off.
  void* (*retain)(void* owner) noexcept;
  /// Whether the caller's is the last reference to memory that nobody else can get at, and that may
  /// be written to. Null where nobody can tell. It may replace the owner, by one of another kind
  /// over the same memory, in either case. See Note [Memory that TensorFlow let go].
  bool (*letGo)(void** owner, ReleaseFn* release) noexcept;
  /// `release` under an address of its own: by it memory is known that torch took over. Null for a
  /// kind that is never let go as it is.
  ReleaseFn release_taken;
};

struct TensorView {
  /// `shape` (and `strides`, null for row-major) point into memory of whoever made the view and
  /// are valid only during the call that it is handed to. byte_offset is always 0.
  DLTensor dl;
  Dtype dtype;
  /// The memory must not be written to: every view of TensorFlow's memory.
  bool read_only;
  int64_t nbytes;
  /// Keeps the memory alive until `release(owner)`. Whoever holds the view owns it; a function
  /// that takes the view over says so, and takes it only on success.
  void* owner;
  ReleaseFn release;
};

/// Releases the owner unless someone took it.
class ViewGuard {
 public:
  explicit ViewGuard(TensorView* view) : view_(view) {}
  ~ViewGuard() {
    if (view_ != nullptr && view_->owner != nullptr) view_->release(view_->owner);
  }
  ViewGuard(const ViewGuard&) = delete;
  ViewGuard& operator=(const ViewGuard&) = delete;
  void taken() { view_ = nullptr; }

 private:
  TensorView* view_;
};

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_CORE_TENSOR_REF_H_
