// TensorView says what a tensor is and where its memory is. TensorRef, the currency between the
// adapters, keeps that memory alive too; on the stack, no allocation. Not for: keeping; a TensorRef
// that outlives a call becomes a tb_tensor or a torch storage.
#ifndef TENSOR_BRIDGE_CORE_TENSOR_REF_H_
#define TENSOR_BRIDGE_CORE_TENSOR_REF_H_

#include <cstdint>
#include <utility>

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

/// Owns nothing.
struct TensorView {
  /// `shape` (and `strides`, null for row-major) point into memory of whoever made the view and
  /// are valid only during the call that it is handed to. byte_offset is always 0.
  DLTensor dl;
  Dtype dtype;
  /// The memory must not be written to: every view of TensorFlow's memory.
  bool read_only;
  int64_t nbytes;
};

/// A view whose memory lives as long as the reference, which moves and is never copied. A function
/// that takes the owner over says so; what it has not taken is released with the reference.
struct TensorRef : TensorView {
  TensorRef() noexcept {}
  TensorRef(const TensorView& view, void* its_owner, ReleaseFn its_release) noexcept
      : TensorView(view), owner(its_owner), release(its_release) {}
  TensorRef(TensorRef&& other) noexcept
      : TensorView(other), owner(other.take()), release(other.release) {}
  TensorRef& operator=(TensorRef&& other) noexcept {
    if (this != &other) {
      reset();
      static_cast<TensorView&>(*this) = other;
      owner = other.take();
      release = other.release;
    }
    return *this;
  }
  ~TensorRef() { reset(); }

  /// Releases the memory now.
  void reset() noexcept {
    if (owner != nullptr) release(take());
  }
  /// The owner, which is the caller's from now on.
  void* take() noexcept { return std::exchange(owner, nullptr); }

  /// Null: the memory is somebody else's care.
  void* owner = nullptr;
  ReleaseFn release = nullptr;
};

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_CORE_TENSOR_REF_H_
