// TensorView: the currency between the adapters. A DLTensor, flags, and an owner with its release;
// on the stack, no allocation. Not for: keeping; a TensorView that outlives a call becomes a
// ManagedTensor or a torch storage.
#ifndef TENSOR_BRIDGE_CORE_TENSOR_VIEW_H_
#define TENSOR_BRIDGE_CORE_TENSOR_VIEW_H_

#include <cstdint>

#include "core/dtype.h"
#include "dlpack/dlpack.h"

namespace tensor_bridge {

/// TensorFlow's TensorShape::MaxDimensions().
constexpr int kMaxDims = 254;

/// Runs exactly once for each owner, on any thread, with or without the GIL, also while the
/// process exits. It must not throw and must not touch Python.
using ReleaseFn = void (*)(void* owner);

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

#endif  // TENSOR_BRIDGE_CORE_TENSOR_VIEW_H_
