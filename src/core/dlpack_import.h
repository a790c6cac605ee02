// From a foreign DLPack structure to a TensorRef: every field is checked before it is used. Not
// for: structures that we make (managed_tensor.h).
#ifndef TENSOR_BRIDGE_CORE_DLPACK_IMPORT_H_
#define TENSOR_BRIDGE_CORE_DLPACK_IMPORT_H_

#include "core/owner_kinds.h"
#include "core/tensor_ref.h"

namespace tensor_bridge {

/// The row for DLPack's dtype. Throws Error{kUnsupportedDtype}.
Dtype dtypeFromDlpack(DLDataType type);

/// Refers to `managed`. The result's owner is a tb_tensor that owns `managed`: its release runs
/// managed's deleter, which may be null. Its shape and strides live as long as the owner. Strides
/// are null for row-major memory, else as the producer gave them, never negative; nbytes is the
/// extent of the memory. Takes `managed` over on success; on an Error it is still the caller's.
/// Throws Error{kInvalidHandle} for another major version or an inconsistent structure,
/// {kUnsupportedDtype}, {kUnsupportedDevice}.
void importDlpack(DLManagedTensorVersioned* managed, TensorRef* ref);

/// A structure of the current version around one of the old kind, which cannot say whether its
/// memory may be written to. Takes `managed` over.
DLManagedTensorVersioned* fromUnversioned(DLManagedTensor* managed);
/// Whether `managed` was made by fromUnversioned().
bool isFromUnversioned(const DLManagedTensorVersioned* managed) noexcept;

/// The release function of views of read-only structures. It is not known whether their producer
/// has let go of the memory.
void releaseManaged(void* owner);
extern const OwnerKind kManagedOwner;

/// The release function of views of all other structures.
void releaseWritable(void* owner);
extern const OwnerKind kWritableOwner;

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_CORE_DLPACK_IMPORT_H_
