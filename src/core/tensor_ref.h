// TensorView describes a tensor and its memory. TensorRef, which the adapters exchange, also keeps
// that memory alive; it is on the stack, without allocation. Not for: storing; a TensorRef that
// outlives a call becomes a tb_tensor or a torch storage.
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

/// Owns nothing.
struct TensorView {
  /// `shape` (and `strides`, null for row-major) point into memory of whoever made the view and
  /// are valid only during the call that it is handed to. byte_offset is always 0.
  DLTensor dl;
  Dtype dtype;
  /// The memory must not be written to; true for every view of TensorFlow's memory.
  bool read_only;
  int64_t nbytes;
};

/// A view whose memory lives as long as the reference, which can be moved but not copied. A
/// function that takes over the owner says so; otherwise the owner is released with the reference.
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
  /// Hands the owner to the caller.
  void* take() noexcept { return std::exchange(owner, nullptr); }

  /// Null if somebody else keeps the memory alive.
  void* owner = nullptr;
  ReleaseFn release = nullptr;
};

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_CORE_TENSOR_REF_H_
