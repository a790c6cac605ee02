// The kinds of owners of memory that torch may show and did not allocate: the one list of them, and
// what can be done with each. A row, tag and release beside each other, stands where the owner is
// made, since core knows no framework; bridge/torch_loader.cc hands all rows to the torch adapter.
// Not for: owners that nobody has to recognise, whose release is private to the file that makes
// them (a reference to a torch tensor, bytes of a torch storage, plain malloc).
#ifndef TENSOR_BRIDGE_CORE_OWNER_KINDS_H_
#define TENSOR_BRIDGE_CORE_OWNER_KINDS_H_

#include <cstdint>

#include "core/tensor_ref.h"

namespace tensor_bridge {

/// Travels by value between binaries, where addresses of functions are not the same.
enum class OwnerTag : int32_t {
  kNone,
  kTfHandle,        // a TFE_TensorHandle; adapters/tensorflow/owner.cc, as the next two
  kTfBuffer,        // a TensorBuffer, from a TF_Tensor that stays its caller's
  kTfTensor,        // a TF_Tensor that was handed over, or whose layout is not proved
  kReadOnlyDlpack,  // a tb_tensor over a structure that says READ_ONLY; core/dlpack_import.cc
  kWritableDlpack,  // over any other structure: its producer may write, TensorFlow must not see it
  kProbe,           // what the self-test shares; bridge/torch_self_test.cc
};

inline bool isTensorFlowOwner(OwnerTag tag) noexcept {
  return tag == OwnerTag::kTfHandle || tag == OwnerTag::kTfBuffer || tag == OwnerTag::kTfTensor;
}

struct OwnerKind {
  OwnerTag tag;
  /// Of one kind only: torch keeps an owner with its release and nothing else, so a storage that
  /// still shows foreign memory is known by it.
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

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_CORE_OWNER_KINDS_H_
