// The neutral family of the C ABI, and the entries that both families share.

#include "tensor_bridge/c_api.h"

#include "adapters/tensorflow/reader.h"
#include "bridge/to_tf.h"
#include "bridge/to_torch.h"
#include "bridge/torch_loader.h"
#include "c_api/barrier.h"
#include "core/managed_tensor.h"
#include "core/owner_counter.h"
#include "tensor_bridge/version.h"

using namespace tensor_bridge;  // NOLINT: every function below is one call into it

namespace {

tb_status tfToTorch(TF_Tensor* tensor, bool take, const tb_convert_options* options,
                    tb_torch_tensor** out) {
  return guarded([&] {
    require(out, "a place for the result");
    const tb_convert_options& checked = checkedOptions(options);
    const TfApi& api = requireTfApi();
    int64_t shape[kMaxDims];
    TensorRef ref;
    exportTensor(api, tensor, take, shape, &ref);
    try {
      *out = convert(&ref, checked, Source::kTensor);
    } catch (...) {
      // The caller keeps its tensor if the call fails.
      if (take && ref.take() != nullptr) countOwner(-1);
      throw;
    }
  });
}

}  // namespace

const char* tb_last_error(void) { return lastError(); }

const char* tb_status_name(tb_status status) { return statusName(status); }

const char* tb_version(void) { return TENSOR_BRIDGE_VERSION; }

void tb_convert_options_init(tb_convert_options* options) {
  if (!isNull(options, "tb_convert_options")) *options = defaultOptions();
}

tb_status tb_use_tensorflow(void* dlopen_handle) {
  return guarded([&] { useTensorFlowHandle(dlopen_handle); });
}

tb_status tb_use_torch(int32_t major, int32_t minor) {
  return guarded([&] { useTorch(major, minor); });
}

tb_status tb_tensor_from_tf(TF_Tensor* tensor, tb_tensor** out) {
  return guarded([&] {
    require(out, "a place for the result");
    const TfApi& api = requireTfApi();
    int64_t shape[kMaxDims];
    TensorRef ref;
    exportTensor(api, tensor, /*take=*/false, shape, &ref);
    *out = makeManagedTensor(&ref).release();
  });
}

const void* tb_tensor_data(const tb_tensor* tensor) {
  return isNull(tensor, "a tensor") ? nullptr : tensor->ref.dl.data;
}

int32_t tb_tensor_ndim(const tb_tensor* tensor) {
  return isNull(tensor, "a tensor") ? 0 : tensor->ref.dl.ndim;
}

const int64_t* tb_tensor_shape(const tb_tensor* tensor) {
  return isNull(tensor, "a tensor") ? nullptr : tensor->shape.data();
}

const int64_t* tb_tensor_strides(const tb_tensor* tensor) {
  return isNull(tensor, "a tensor") ? nullptr : tensor->strides.data();
}

const char* tb_tensor_dtype(const tb_tensor* tensor) {
  return isNull(tensor, "a tensor") ? nullptr : dtypeInfo(tensor->ref.dtype).name;
}

int64_t tb_tensor_nbytes(const tb_tensor* tensor) {
  return isNull(tensor, "a tensor") ? 0 : tensor->ref.nbytes;
}

uint64_t tb_tensor_flags(const tb_tensor* tensor) {
  return !isNull(tensor, "a tensor") && tensor->ref.read_only ? TB_FLAG_READ_ONLY : 0;
}

void tb_tensor_device(const tb_tensor* tensor, int32_t* device_type, int32_t* device_id) {
  if (isNull(tensor, "a tensor")) return;
  const DLDevice& device = tensor->ref.dl.device;
  if (device_type != nullptr) *device_type = static_cast<int32_t>(device.device_type);
  if (device_id != nullptr) *device_id = device.device_id;
}

tb_status tb_tensor_to_dlpack(const tb_tensor* tensor, DLManagedTensorVersioned** out) {
  return guarded([&] {
    require(tensor, "a tensor");
    require(out, "a place for the result");
    *out = toDlpack(const_cast<tb_tensor*>(tensor));
  });
}

void tb_tensor_release(tb_tensor* tensor) { dropReference(tensor); }

tb_status tb_tf_to_torch(TF_Tensor* tensor, const tb_convert_options* options,
                         tb_torch_tensor** out) {
  return tfToTorch(tensor, /*take=*/false, options, out);
}

tb_status tb_tf_to_torch_consume(TF_Tensor* tensor, const tb_convert_options* options,
                                 tb_torch_tensor** out) {
  return tfToTorch(tensor, /*take=*/true, options, out);
}

tb_status tb_torch_tensor_view(tb_torch_tensor* tensor, tb_tensor** out) {
  return guarded([&] {
    require(tensor, "a tensor");
    require(out, "a place for the result");
    const TorchAdapter& adapter = torchAdapter();
    int64_t shape[kMaxDims];
    int64_t strides[kMaxDims];
    TensorRef ref;
    if (adapter.view(tensor, shape, strides, &ref) != TB_OK) rethrowLastError();
    *out = makeManagedTensor(&ref).release();
  });
}

tb_status tb_torch_tensor_mutable_data(tb_torch_tensor* tensor, void** out) {
  return guarded([&] {
    require(tensor, "a tensor");
    require(out, "a place for the result");
    const tb_status status = torchAdapter().mutableData(tensor, out);
    if (status != TB_OK) rethrowLastError();
  });
}

tb_status tb_torch_tensor_release_previous(tb_torch_tensor* tensor, int32_t* out) {
  return guarded([&] {
    require(tensor, "a tensor");
    require(out, "a place for the result");
    void* owner = nullptr;
    ReleaseFn release = nullptr;
    const tb_status status = torchAdapter().takePrevious(tensor, &owner, &release);
    if (status != TB_OK) rethrowLastError();
    if (owner != nullptr) release(owner);
    *out = owner != nullptr ? 1 : 0;
  });
}

void tb_torch_tensor_release(tb_torch_tensor* tensor) {
  if (tensor == nullptr) return;
  guarded([&] { torchAdapter().release(tensor); });
}

tb_status tb_tf_explain(TF_Tensor* tensor, const tb_convert_options* options, tb_explanation* out) {
  return guarded([&] {
    checkStructSize(out, "tb_explanation");
    const TfApi& api = requireTfApi();
    static_cast<void>(torchAdapter());
    Dtype dtype = tensor == nullptr ? Dtype::kUnknown : dtypeFromTf(api.TF_TensorType(tensor));
    const tb_status status = guarded([&] {
      const tb_convert_options& checked = checkedOptions(options);
      int64_t shape[kMaxDims];
      TensorRef ref;
      exportTensor(api, tensor, /*take=*/false, shape, &ref);
      explainView(&ref, checked, Source::kTensor, out);
    });
    if (status != TB_OK) explainRefused(dtype, status, out);
  });
}

void tb_convert_back_options_init(tb_convert_back_options* options) {
  if (!isNull(options, "tb_convert_back_options")) *options = checkedToTfOptions(nullptr);
}

tb_status tb_torch_to_tf(tb_torch_tensor* tensor, const tb_convert_back_options* options,
                         TF_Tensor** out) {
  return guarded([&] {
    require(tensor, "a tensor");
    require(out, "a place for the result");
    const tb_convert_back_options& checked = checkedToTfOptions(options);
    const TfApi& api = requireTfApi();
    const TorchAdapter& adapter = torchAdapter();
    HeldFacts facts(adapter, tensor);
    *out = executeToTf(tensor, &facts, decideToTf(facts, checked, adapter), api, adapter).release();
  });
}

tb_status tb_dtype_row_get(int32_t index, tb_dtype_row* out) {
  return guarded([&] {
    checkStructSize(out, "tb_dtype_row");
    if (index < 0 || index >= static_cast<int32_t>(Dtype::kCount)) {
      throwError(ErrorCode::kInvalidOption, "the dtype table has rows 0 to %d, got %d",
                 static_cast<int>(Dtype::kCount) - 1, index);
    }
    const DtypeInfo& info = dtypeInfo(static_cast<Dtype>(index));
    *out = tb_dtype_row{};
    out->struct_size = sizeof(*out);
    out->tf_enum = info.tf_enum;
    out->torch_scalar = info.torch_scalar;
    out->itemsize = info.itemsize;
    out->name = info.name;
    out->torch_name = info.torch_name;
    out->kind = dtypeKindName(info.kind);
    const bool has_nearest = info.kind != DtypeKind::kRefused && info.kind != DtypeKind::kTorchOnly;
    out->nearest = has_nearest ? dtypeInfo(info.nearest).torch_name : "";
    out->reason = info.reason;
  });
}

int64_t tb_live_owners(void) { return liveOwners(); }
