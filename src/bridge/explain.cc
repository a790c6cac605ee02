#include "bridge/explain.h"

#include <cstdio>

#include "bridge/torch_loader.h"
#include "core/device.h"
#include "core/error.h"

namespace tensor_bridge {

void explainRefused(Dtype dtype, tb_status status, tb_explanation* out) noexcept {
  *out = tb_explanation{};
  out->struct_size = sizeof(*out);
  out->action = TB_ACTION_REFUSED;
  out->status = status;
  out->on_write = -1;
  out->ndim = -1;
  out->nbytes = -1;
  out->tf_dtype = dtype == Dtype::kUnknown ? "" : dtypeInfo(dtype).name;
  out->torch_dtype = "";
  std::snprintf(out->reason, sizeof(out->reason), "%s", lastError());
}

void explainView(TensorView* view, const tb_convert_options& options, Source source,
                 tb_explanation* out) {
  const TorchAdapter& adapter = torchAdapter();
  const Dtype dtype = view->dtype;
  try {
    resolveDevice(view, adapter);
    const Plan plan = decide(*view, options, source, adapter);
    const bool shared = plan.spec.action == WrapAction::kShare;
    const int64_t itemsize = dtypeInfo(plan.spec.dtype).itemsize;
    *out = tb_explanation{};
    out->struct_size = sizeof(*out);
    out->action = shared && !plan.copied_by_tensorflow ? TB_ACTION_SHARED : TB_ACTION_COPIED;
    out->status = TB_OK;
    out->on_write = shared ? plan.spec.on_write : -1;
    out->tf_dtype = dtypeInfo(dtype).name;
    out->torch_dtype = dtypeInfo(plan.spec.dtype).torch_name;
    out->nbytes = view->nbytes / dtypeInfo(dtype).itemsize * itemsize;
    deviceName(plan.spec.move ? plan.spec.device : view->dl.device, out->device,
               sizeof(out->device));
    std::snprintf(out->reason, sizeof(out->reason), "%s", plan.reason);
  } catch (...) {
    explainRefused(dtype, setLastErrorFromException(), out);
  }
  out->ndim = view->dl.ndim;
}

}  // namespace tensor_bridge
