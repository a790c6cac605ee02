#include "c_api/eager.h"

#include "bridge/torch_loader.h"
#include "c_api/barrier.h"
#include "c_api/gil.h"
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

void exportPossiblyPending(const TfApi& api, TFE_TensorHandle* handle, int64_t* shape,
                           TensorView* view) {
  if (__builtin_expect(api.isReady(handle), 1)) {
    if (__builtin_expect(exportReadyHandle(api, handle, shape, view), 1)) return;
    exportHandle(api, handle, shape, view);
    return;
  }
  GilRelease without_gil(true);
  exportHandle(api, handle, shape, view);
}

[[gnu::no_stack_protector]] _object* toPython(TensorView* view, const tb_convert_options& options,
                                              Source source) {
  ViewGuard guard(view);
  const TorchAdapter& adapter = torchAdapter();
  resolveDevice(view, adapter);
  const Plan plan = decide(*view, options, source, adapter);
  _object* object;
  if (plan.spec.action == WrapAction::kShare) {
    guard.taken();
    object = adapter.sharePython(view, &plan.spec);
  } else {
    tb_torch_tensor* tensor;
    {
      GilRelease without_gil(view->nbytes > kGilFreeBytes);
      tensor = execute(*view, plan, adapter);
    }
    object = adapter.toPython(tensor);
  }
  if (object == nullptr) rethrowLastError();
  return object;
}

}  // namespace tensor_bridge
