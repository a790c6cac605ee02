#include "adapters/torch/export.h"

#include <algorithm>

#include "adapters/torch/torch_dtype.h"

namespace tensor_bridge {
namespace {

void releaseTorchTensor(void* owner) {
  c10::intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>::reclaim(
      static_cast<c10::TensorImpl*>(owner));
}

}  // namespace

void viewTensor(const at::Tensor& tensor, int64_t* shape, int64_t* strides, TensorView* view) {
  TORCH_CHECK(tensor.layout() == at::kStrided && tensor.has_storage() && !tensor.is_meta(),
              "expected a dense tensor with memory of its own, got layout ", tensor.layout(),
              " on ", tensor.device());
  const Dtype dtype = dtypeFromScalarType(tensor.scalar_type());
  TORCH_CHECK(dtype != Dtype::kUnknown, "torch dtype ", tensor.scalar_type(),
              " has no row in tensor_bridge's dtype table");
  std::copy(tensor.sizes().begin(), tensor.sizes().end(), shape);
  std::copy(tensor.strides().begin(), tensor.strides().end(), strides);
  view->dl.data = const_cast<void*>(tensor.const_data_ptr());
  view->dl.device =
      tensor.is_cuda() ? DLDevice{kDLCUDA, tensor.device().index()} : DLDevice{kDLCPU, 0};
  view->dl.ndim = static_cast<int32_t>(tensor.dim());
  view->dl.dtype = dlDataType(dtype);
  view->dl.shape = shape;
  view->dl.strides = strides;
  view->dl.byte_offset = 0;
  view->dtype = dtype;
  view->read_only = true;
  view->nbytes = static_cast<int64_t>(tensor.nbytes());
  at::Tensor reference = tensor;
  view->owner = reference.unsafeReleaseTensorImpl();
  view->release = releaseTorchTensor;
}

}  // namespace tensor_bridge
