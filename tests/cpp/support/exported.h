// Exported: the result of exportTensor() for a tensor of the real TensorFlow. Not for: the fake
// TensorFlow, whose fixture has its own view.
#ifndef TENSOR_BRIDGE_TESTS_SUPPORT_EXPORTED_H_
#define TENSOR_BRIDGE_TESTS_SUPPORT_EXPORTED_H_

#include <algorithm>
#include <vector>

#include "adapters/tensorflow/owner.h"
#include "adapters/tensorflow/reader.h"

namespace tensor_bridge::testing {

using Dims = std::vector<int64_t>;

constexpr int kFloat = 1;

inline const OwnerKind& kindOf(ReleaseFn release) {
  return *std::find_if(kTensorFlowOwners, kTensorFlowOwners + kTensorFlowOwnerKinds,
                       [release](const OwnerKind& kind) { return kind.release == release; });
}

/// Keeps the shape that the view points to.
struct Exported {
  Exported(TF_Tensor* tensor, bool take) {
    exportTensor(requireTfApi(), tensor, take, shape, &view);
  }
  Dims dims() const { return Dims(shape, shape + view.dl.ndim); }
  OwnerTag tag() const { return kindOf(view.release).tag; }
  bool letGo() { return kindOf(view.release).letGo(&view.owner, &view.release); }
  void release() { view.reset(); }

  int64_t shape[kMaxDims];
  TensorRef view;
};

}  // namespace tensor_bridge::testing

#endif  // TENSOR_BRIDGE_TESTS_SUPPORT_EXPORTED_H_
