// The Python family of the C ABI. No Python header and no Python symbol: objects are opaque, the
// GIL is released through the two functions that the caller passed in.

#include <algorithm>
#include <atomic>
#include <optional>
#include <string>
#include <utility>

#include "adapters/tensorflow/gpu.h"
#include "adapters/tensorflow/maker.h"
#include "adapters/tensorflow/reader.h"
#include "adapters/tensorflow/variable.h"
#include "bridge/to_tf.h"
#include "bridge/to_torch.h"
#include "bridge/torch_loader.h"
#include "c_api/barrier.h"
#include "c_api/eager.h"
#include "c_api/gil.h"
#include "c_api/private_api.h"
#include "core/device.h"

using namespace tensor_bridge;  // NOLINT: every function below is one call into it

namespace {

Source exportVariable(const TfApi& api, _object* handle, void* py_context, int32_t tf_dtype,
                      bool look_for_copies, int64_t* shape, TensorRef* ref) {
  TFE_TensorHandle* resource = handleOf(api, handle);
  auto* context = static_cast<TFE_Context*>(py_context);
  if (context == nullptr) throwError(ErrorCode::kInvalidHandle, "expected a TFE_Context, got null");
  // The read runs an op, which may wait for ops that need the GIL.
  GilRelease without_gil(true);
  // Only for a variable on a GPU: looking for a missing CUDA driver takes 3 us.
  std::optional<KeptGpu> kept;
  DLDevice device;
  const char* name = api.TFE_TensorHandleDeviceName(resource, threadStatus(api));
  if (!parseDeviceName(name, &device) || !isHost(device)) kept.emplace();
  const TfeHandle value = readVariable(api, context, resource, tf_dtype);
  const bool copied =
      look_for_copies && copiedAtRead(api, context, resource, tf_dtype, value.get());
  exportHandle(api, value.get(), shape, ref);
  return copied ? Source::kCopiedVariable : Source::kVariable;
}

TfTensor executeWithoutGil(tb_torch_tensor* tensor, HeldFacts* facts, const ToTfPlan& plan,
                           const TfApi& api, const TorchAdapter& adapter) {
  const bool copies = plan.action == ToTfAction::kCopy || plan.action == ToTfAction::kEncode;
  // From a GPU torch waits for its stream, however few the bytes are.
  GilRelease without_gil(copies && (facts->nbytes > kGilFreeBytes || !isHost(facts->device)));
  return executeToTf(tensor, facts, plan, api, adapter);
}

// An explanation's struct, and the place of its shape.
void requireExplanation(const tb_explanation* out, const int64_t* shape, int32_t capacity) {
  checkStructSize(out, "tb_explanation");
  if (capacity > 0) require(shape, "a place for the shape");
}

void copyShape(const int64_t* from, int32_t ndim, int64_t* shape, int32_t capacity) {
  if (ndim > 0 && capacity > 0) std::copy_n(from, std::min(ndim, capacity), shape);
}

}  // namespace

void tb_py_set_gil_functions(void* (*save)(void), void (*restore)(void*)) {
  // Only one of them would release the GIL forever, or restore it without a release.
  const bool both = save != nullptr && restore != nullptr;
  g_restore_thread.store(both ? restore : nullptr, std::memory_order_release);
  g_save_thread.store(both ? save : nullptr, std::memory_order_release);
}

void tb_py_set_copying_torch(tb_py_adapter_entry entry) {
  setCopyingTorch(reinterpret_cast<TorchAdapterEntry>(entry));
}

tb_status tb_py_use_torch(int32_t major, int32_t minor, int32_t proven) {
  return guarded([&] { useTorchOrCopy(major, minor, proven != 0); });
}

const char* tb_py_copying_reason(void) { return copyingReason(); }

int32_t tb_py_is_eager_tensor(_object* object) {
  const TfApi* api = findTfApi();
  return api != nullptr && api->EagerTensor_CheckExact != nullptr &&
         !isNull(object, "a Python object") && api->EagerTensor_CheckExact(object);
}

int32_t tb_py_has_handle(_object* tensor) {
  return tb_py_is_eager_tensor(tensor) != 0 && findTfApi()->EagerTensor_Handle(tensor) != nullptr;
}

[[gnu::no_stack_protector]] tb_status tb_py_tf_to_torch(_object* tensor,
                                                        const tb_convert_options* options,
                                                        _object** out) {
  return guarded([&]() -> tb_status {
    require(out, "a place for the result");
    const tb_convert_options& checked = checkedOptions(options);
    const TfApi& api = requireEagerApi();
    const TorchAdapter& adapter = torchAdapter();
    int64_t shape[kMaxDims];
    TensorRef ref;
    TFE_TensorHandle* handle = handleOf(api, tensor);
    if (__builtin_expect(!api.isReady(handle) || !exportReadyHandle(api, handle, shape, &ref), 0)) {
      // No exception, which costs 9 us, and no new text: the caller then calls the functions for
      // strings.
      if (handleDtype(api, handle) == Dtype::kString) {
        static const std::string message = noElementsMessage(Dtype::kString);
        return setLastError(TB_UNSUPPORTED_DTYPE, message.c_str());
      }
      exportPossiblyPending(api, handle, shape, &ref);
    }
    if (options == nullptr) {
      if (const WrapSpec* spec = commonPlan(ref, adapter)) {
        _object* object = adapter.sharePython(&ref, spec);
        if (object == nullptr) rethrowLastError();
        *out = object;
        return TB_OK;
      }
    }
    *out = toPython(&ref, checked, Source::kTensor);
    return TB_OK;
  });
}

tb_status tb_py_tf_explain(_object* tensor, const tb_convert_options* options, tb_explanation* out,
                           int64_t* shape, int32_t capacity) {
  return guarded([&] {
    requireExplanation(out, shape, capacity);
    const TfApi& api = requireEagerApi();
    static_cast<void>(torchAdapter());
    Dtype dtype = Dtype::kUnknown;
    const tb_status status = guarded([&] {
      TFE_TensorHandle* handle = handleOf(api, tensor);
      dtype = handleDtype(api, handle);
      const tb_convert_options& checked = checkedOptions(options);
      int64_t dims[kMaxDims];
      TensorRef ref;
      exportPossiblyPending(api, handle, dims, &ref);
      explainView(&ref, checked, Source::kTensor, out);
      copyShape(ref.dl.shape, ref.dl.ndim, shape, capacity);
    });
    if (status != TB_OK) explainRefused(dtype, status, out);
  });
}

tb_status tb_py_variable_to_torch(_object* handle, void* context, int32_t tf_dtype,
                                  const tb_convert_options* options, _object** out) {
  return guarded([&] {
    require(out, "a place for the result");
    const tb_convert_options& checked = checkedOptions(options);
    int64_t shape[kMaxDims];
    TensorRef ref;
    const Source source = exportVariable(requireEagerApi(), handle, context, tf_dtype,
                                         checked.copy == TB_COPY_NEVER, shape, &ref);
    *out = toPython(&ref, checked, source);
  });
}

tb_status tb_py_variable_explain(_object* handle, void* context, int32_t tf_dtype,
                                 const tb_convert_options* options, tb_explanation* out,
                                 int64_t* shape, int32_t capacity) {
  return guarded([&] {
    requireExplanation(out, shape, capacity);
    const TfApi& api = requireEagerApi();
    static_cast<void>(torchAdapter());
    const tb_status status = guarded([&] {
      const tb_convert_options& checked = checkedOptions(options);
      int64_t dims[kMaxDims];
      TensorRef ref;
      const Source source = exportVariable(api, handle, context, tf_dtype,
                                           /*look_for_copies=*/true, dims, &ref);
      explainView(&ref, checked, source, out);
      copyShape(ref.dl.shape, ref.dl.ndim, shape, capacity);
    });
    if (status != TB_OK) explainRefused(dtypeFromTf(tf_dtype), status, out);
  });
}

tb_status tb_py_torch_to_tf(_object* tensor, const tb_convert_back_options* options,
                            _object** out) {
  return guarded([&] {
    require(tensor, "a torch.Tensor");
    require(out, "a place for the result");
    const tb_convert_back_options& checked = checkedToTfOptions(options);
    const TfApi& api = requireEagerApi();
    if (api.EagerTensorFromHandle == nullptr) throwNoPython();
    const TorchAdapter& adapter = torchAdapter();
    tb_torch_tensor* source = adapter.fromPython(tensor);
    HeldFacts facts(adapter, source);
    const ToTfPlan plan = decideToTf(facts, checked, adapter);
    if (TfeHandle same = sameHandle(&facts, plan, api)) {
      *out = eagerTensor(api, std::move(same));
      return;
    }
    const TfTensor result = executeWithoutGil(source, &facts, plan, api, adapter);
    *out = eagerTensor(api, makeHandle(api, result.get()));
  });
}

tb_status tb_py_torch_explain(_object* tensor, const tb_convert_back_options* options,
                              tb_explanation* out, int64_t* shape, int32_t capacity) {
  return guarded([&] {
    requireExplanation(out, shape, capacity);
    require(tensor, "a torch.Tensor");
    const TorchAdapter& adapter = torchAdapter();
    TorchFacts facts;
    adapter.describe(adapter.fromPython(tensor), /*hold=*/false, &facts);
    explainToTf(facts, options, adapter, out);
    copyShape(facts.shape, out->ndim, shape, capacity);
  });
}

tb_status tb_py_torch_release_previous(_object* tensor, int32_t* out) {
  return guarded([&] {
    require(tensor, "a torch.Tensor");
    require(out, "a place for the result");
    const TorchAdapter& adapter = torchAdapter();
    void* owner = nullptr;
    ReleaseFn release = nullptr;
    const tb_status status = adapter.takePrevious(adapter.fromPython(tensor), &owner, &release);
    if (status != TB_OK) rethrowLastError();
    if (owner != nullptr) {
      // Releasing 1 GB to the system takes 50 ms.
      const GilRelease without_gil(true);
      release(owner);
    }
    *out = owner != nullptr ? 1 : 0;
  });
}

tb_status tb_py_tf_address(_object* tensor, const void** out) {
  return guarded([&] {
    require(out, "a place for the result");
    const TfApi& api = requireEagerApi();
    int64_t shape[kMaxDims];
    TensorRef ref;
    exportPossiblyPending(api, handleOf(api, tensor), shape, &ref);
    *out = ref.dl.data;
  });
}
