// What keeps TensorFlow's memory alive for torch: owners of three kinds. Not for: memory that torch
// gave to TensorFlow.
#ifndef TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_OWNER_H_
#define TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_OWNER_H_

#include "adapters/tensorflow/handles.h"
#include "core/owner_kinds.h"
#include "core/tensor_ref.h"

namespace tensor_bridge {

/// The owner is a TFE_TensorHandle, from which the tensor goes back to TensorFlow in 4 ns. A handle
/// lives in TensorFlow's eager runtime and holds two references to the buffer. At the first write
/// it is exchanged for the buffer, which can tell whether TensorFlow has let it go.
void releaseHandle(void* owner);
/// A TensorBuffer (tensor_layout.h): from a TF_Tensor that the caller keeps.
void releaseBuffer(void* owner);
/// A TF_Tensor: one that was handed over, or one whose layout is not proved.
void releaseTensor(void* owner);

/// The three kinds.
constexpr int kTensorFlowOwnerKinds = 3;
extern const OwnerKind kTensorFlowOwners[kTensorFlowOwnerKinds];

/// Whether `owner`, which was exported with this number of `bytes`, refers to exactly this memory:
/// then it can stand for the tensor itself.
bool ownerShows(const TfApi& api, OwnerTag tag, void* owner, const TensorView& view, int64_t bytes);

/// For an owner of the memory of `view`: a TF_Tensor over its buffer. Throws Error.
TfTensor tensorOfOwner(const TfApi& api, OwnerTag tag, void* owner, const TensorView& view);

/// The same as an eager handle. Takes over the owner, which was not counted yet, even if it throws.
TfeHandle handleOfOwner(const TfApi& api, OwnerTag tag, void* owner, const TensorView& view);

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_OWNER_H_
