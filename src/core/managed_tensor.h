// tb_tensor: a TensorRef that outlives its call, on the heap, with counted references; and the
// DLPack structure made from it. Not for: the hot path, which needs no heap structure.
#ifndef TENSOR_BRIDGE_CORE_MANAGED_TENSOR_H_
#define TENSOR_BRIDGE_CORE_MANAGED_TENSOR_H_

#include <atomic>
#include <memory>
#include <vector>

#include "core/tensor_ref.h"
#include "tensor_bridge/c_api.h"

struct tb_tensor {
  tensor_bridge::TensorRef ref;
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;
  std::atomic<int64_t> references;
};

namespace tensor_bridge {

/// Drops one reference; the last one releases the owner. Null is ignored.
void dropReference(tb_tensor* tensor) noexcept;
struct ReferenceDropper {
  void operator()(tb_tensor* tensor) const noexcept { dropReference(tensor); }
};
using ManagedPointer = std::unique_ptr<tb_tensor, ReferenceDropper>;

/// Takes over the owner; on an exception `ref` keeps it. The result has one reference.
ManagedPointer makeManagedTensor(TensorRef* ref);

/// An independent copy of a host view's elements, row-major, in memory of its own, which is not
/// read-only: the flags say IS_COPIED. Throws Error{kUnsupportedDtype}, std::bad_alloc.
DLManagedTensorVersioned* copyToDlpack(const TensorView& view);

/// A structure over new host memory for `prototype`'s dtype and shape, not filled. Throws Error.
DLManagedTensorVersioned* allocateDlpack(const DLTensor& prototype);

/// A structure with its own reference. Throws Error{kUnsupportedDtype} for a dtype that DLPack
/// lacks.
DLManagedTensorVersioned* toDlpack(tb_tensor* tensor);

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_CORE_MANAGED_TENSOR_H_
