// The one list of the kinds of owners of memory that torch uses and did not allocate, with the
// operations on each kind. A row, with tag and release beside each other, is in the file that makes
// the owner, because core knows no framework; bridge/torch_loader.cc passes all rows to the torch
// adapter. Not for: owners that need no recognition, whose release is private to the file that
// makes them (a reference to a torch tensor, bytes of a torch storage, plain malloc).
#ifndef TENSOR_BRIDGE_CORE_OWNER_KINDS_H_
#define TENSOR_BRIDGE_CORE_OWNER_KINDS_H_

#include <cstdint>

#include "core/tensor_ref.h"

namespace tensor_bridge {

/// Passed by value between binaries, in which functions have different addresses.
enum class OwnerTag : int32_t {
  kNone,
  kTfHandle,        // a TFE_TensorHandle; adapters/tensorflow/owner.cc, as the next two
  kTfBuffer,        // a TensorBuffer, from a TF_Tensor that stays its caller's
  kTfTensor,        // a TF_Tensor that was handed over, or whose layout is not proved
  kReadOnlyDlpack,  // a tb_tensor over a structure that says READ_ONLY; core/dlpack_import.cc
  kWritableDlpack,  // over any other structure: its producer may write, TensorFlow must not see it
  kProbe,           // the bytes that the self-test shares; bridge/torch_self_test.cc
};

inline bool isTensorFlowOwner(OwnerTag tag) noexcept {
  return tag == OwnerTag::kTfHandle || tag == OwnerTag::kTfBuffer || tag == OwnerTag::kTfTensor;
}

struct OwnerKind {
  OwnerTag tag;
  /// Unique to the kind: torch keeps only an owner and its release, so the release identifies a
  /// storage that is still over foreign memory.
  ReleaseFn release;
  /// One more reference to the memory, as an owner of this kind; null if there can be none now. Not
  /// yet counted: its keeper calls countOwner(1), because the release subtracts 1.
  void* (*retain)(void* owner) noexcept;
  /// Whether the caller has the last reference to the memory, nobody else can get one, and the
  /// memory may be written to. A null function if this cannot be told. Whatever the answer, it may
  /// replace the owner by one of another kind over the same memory. See Note [Memory that
  /// TensorFlow let go].
  bool (*letGo)(void** owner, ReleaseFn* release) noexcept;
  /// Does the same as `release`, at its own address, which identifies memory that torch took over.
  /// Null for a kind that is never let go without a copy.
  ReleaseFn release_taken;
};

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_CORE_OWNER_KINDS_H_
