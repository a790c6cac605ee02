#include "c_api/eager.h"

#include "bridge/torch_loader.h"
#include "c_api/barrier.h"
#include "c_api/gil.h"
#include "core/device.h"
#include "core/error.h"

namespace tensor_bridge {

void throwNoPython() {
  throwError(ErrorCode::kFramework,
             "the TensorFlow of this process was loaded without its Python extension");
}

TFE_TensorHandle* handleOf(const TfApi& api, const _object* tensor) {
  if (api.EagerTensor_CheckExact == nullptr) {
    throwNoPython();
  }
  require(tensor, "an eager tf.Tensor");
  if (!api.EagerTensor_CheckExact(tensor)) {
    throwError(ErrorCode::kUnsupportedType, "expected an eager tf.Tensor");
  }
  TFE_TensorHandle* handle = api.EagerTensor_Handle(tensor);
  if (handle == nullptr) {
    throwError(ErrorCode::kInvalidHandle,
               "the tf.Tensor has no handle: it was deleted or never initialised");
  }
  return handle;
}

[[gnu::no_stack_protector]] _object* eagerTensor(const TfApi& api, TfeHandle handle) {
  _object* object = api.EagerTensorFromHandle(handle.release(), /*is_packed=*/false);
  if (object == nullptr) {
    throwError(ErrorCode::kTensorFlow, "TensorFlow could not make a Python object");
  }
  return object;
}

namespace {

bool isOnHost(const TfApi& api, TFE_TensorHandle* handle) {
  TF_Status* status = threadStatus(api);
  const char* name = api.TFE_TensorHandleBackingDeviceName(handle, status);
  if (name == nullptr) resetStatus(api, status);
  DLDevice device;
  return parseDeviceName(name, &device) && isHost(device);
}

}  // namespace

void exportPossiblyPending(const TfApi& api, TFE_TensorHandle* handle, int64_t* shape,
                           TensorRef* ref) {
  const bool ready = api.isReady(handle);
  if (__builtin_expect(ready && exportReadyHandle(api, handle, shape, ref), 1)) return;
  // A tensor on a GPU is ready once its kernel is queued.
  GilRelease without_gil(!ready || !isOnHost(api, handle));
  exportHandle(api, handle, shape, ref);
}

[[gnu::no_stack_protector]] _object* toPython(TensorRef* ref, const tb_convert_options& options,
                                              Source source) {
  const TorchAdapter& adapter = torchAdapter();
  const bool on_host = isHost(ref->dl.device);
  resolveDevice(ref, adapter);
  const Plan plan = decide(*ref, options, source, adapter);
  if (!on_host) {
    GilRelease without_gil(true);
    adapter.waitForReleases();
  }
  _object* object;
  if (plan.spec.action == WrapAction::kShare) {
    object = adapter.sharePython(ref, &plan.spec);
  } else {
    tb_torch_tensor* tensor;
    {
      if (!on_host) releaseLater(ref, adapter);
      // To and from a GPU torch waits for its stream, however few the bytes are.
      GilRelease without_gil(ref->nbytes > kGilFreeBytes || !on_host || plan.spec.move);
      tensor = execute(ref, plan, adapter);
    }
    object = adapter.toPython(tensor);
  }
  if (object == nullptr) rethrowLastError();
  return object;
}

}  // namespace tensor_bridge
