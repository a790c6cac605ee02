#include "bridge/to_torch.h"

#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>

#include "bridge/copy_policy.h"
#include "bridge/torch_cuda.h"
#include "bridge/torch_loader.h"
#include "core/device.h"
#include "core/error.h"
#include "core/narrow_dtypes.h"

namespace tensor_bridge {
namespace {

// torch's QScheme stores zero points as the quantized integers themselves.
void zeroPointRange(Dtype dtype, int64_t* low, int64_t* high) {
  if (dtype == Dtype::kQInt8) {
    *low = -128;
    *high = 127;
  } else if (dtype == Dtype::kQUInt8) {
    *low = 0;
    *high = 255;
  } else {
    *low = std::numeric_limits<int32_t>::min();
    *high = std::numeric_limits<int32_t>::max();
  }
}

QuantParams quantParams(const TensorView& view, const tb_convert_options& options) {
  const DtypeInfo& info = dtypeInfo(view.dtype);
  if (info.torch_scalar < 0) {
    throwError(ErrorCode::kUnsupportedDtype,
               "torch has no quantized dtype for TensorFlow's %s; raw=True gives its integers",
               info.name);
  }
  QuantParams quant{options.num_scales, options.scale, options.zero_point, options.has_axis != 0,
                    options.axis};
  if (quant.per_channel) {
    const int64_t ndim = view.dl.ndim;
    if (quant.axis < -ndim || quant.axis >= ndim) {
      throwError(ErrorCode::kInvalidOption,
                 "axis must be a dimension of the tensor, expected %lld to %lld, got %lld",
                 static_cast<long long>(-ndim), static_cast<long long>(ndim - 1),
                 static_cast<long long>(quant.axis));
    }
    if (quant.axis < 0) quant.axis += ndim;
    if (quant.count != view.dl.shape[quant.axis]) {
      throwError(ErrorCode::kInvalidOption,
                 "expected one scale for each of the %lld channels along axis %lld, got %lld",
                 static_cast<long long>(view.dl.shape[quant.axis]),
                 static_cast<long long>(quant.axis), static_cast<long long>(quant.count));
    }
  } else if (quant.count != 1) {
    throwError(ErrorCode::kInvalidOption,
               "expected one scale and one zero point, got %lld; name the channel axis with axis=",
               static_cast<long long>(quant.count));
  }
  int64_t low;
  int64_t high;
  zeroPointRange(view.dtype, &low, &high);
  for (int64_t i = 0; i < quant.count; ++i) {
    if (!std::isfinite(quant.scale[i]) || quant.scale[i] <= 0) {
      throwError(ErrorCode::kInvalidOption, "scale must be positive and finite, got %g",
                 quant.scale[i]);
    }
    if (quant.zero_point[i] < low || quant.zero_point[i] > high) {
      throwError(ErrorCode::kInvalidOption, "zero_point of a %s must be %lld to %lld, got %lld",
                 info.name, static_cast<long long>(low), static_cast<long long>(high),
                 static_cast<long long>(quant.zero_point[i]));
    }
  }
  return quant;
}

// Plans the result's dtype, and how the bytes become it.
void planDtype(const TensorView& view, const tb_convert_options& options, Plan* plan) {
  const DtypeInfo& info = dtypeInfo(view.dtype);
  const bool has_scale = options.num_scales > 0;
  if (has_scale && info.kind != DtypeKind::kQuantized) {
    throwError(ErrorCode::kInvalidOption,
               "scale, zero_point and axis are for quantized dtypes, got a tensor of dtype %s; "
               "leave them out",
               info.name);
  }
  WrapSpec& spec = plan->spec;
  spec.dtype = info.nearest;
  switch (info.kind) {
    case DtypeKind::kShared:
      plan->reason = "both frameworks have the dtype; the memory is shared";
      return;
    case DtypeKind::kViewed:
      plan->reason = "the stored bytes are the values as uint8; the memory is shared";
      return;
    case DtypeKind::kConverted:
      if (options.raw != 0) {
        spec.dtype = Dtype::kUInt8;
        plan->reason = "raw=True: the stored bytes, shared as uint8";
        return;
      }
      spec.action = WrapAction::kLookup;
      spec.lookup = lookupTable(view.dtype);
      plan->reason = info.reason;
      return;
    case DtypeKind::kQuantized:
      if (options.raw != 0 && has_scale) {
        throwError(ErrorCode::kInvalidOption,
                   "raw=True gives the plain integers, scale and zero_point a quantized tensor; "
                   "expected one of the two, got both");
      }
      if (options.raw != 0) {
        plan->reason = "raw=True: the quantized values as plain integers, shared";
        return;
      }
      if (!has_scale && info.torch_scalar < 0) {
        throwError(ErrorCode::kUnsupportedDtype,
                   "got TensorFlow dtype %s: %s. raw=True gives its plain integers", info.name,
                   info.reason);
      }
      if (!has_scale) {
        throwError(ErrorCode::kUnsupportedDtype,
                   "got TensorFlow dtype %s: %s. Give scale= and zero_point= (and axis=) for a "
                   "torch quantized tensor, or raw=True for the plain integers",
                   info.name, info.reason);
      }
      spec.quant = quantParams(view, options);
      spec.dtype = view.dtype;
      plan->reason = "a torch quantized tensor over the shared integers";
      return;
    case DtypeKind::kTorchOnly:
      // From another DLPack producer; TensorFlow has no such tensors.
      plan->reason = "the memory is shared";
      return;
    case DtypeKind::kRefused:
      throwError(ErrorCode::kUnsupportedDtype, "TensorFlow dtype %s has no torch form: %s",
                 info.name, info.reason);
  }
}

void planDevice(const TensorView& view, const tb_convert_options& options,
                const TorchAdapter& adapter, Plan* plan) {
  if (!isHost(view.dl.device) && !adapter.hasDevice(view.dl.device.device_type)) {
    throwError(ErrorCode::kUnsupportedDevice,
               "the tensor is on a GPU that this torch cannot see (a CPU build, or no visible "
               "device); install a CUDA build of torch, or copy the tensor to the host first: "
               "with tf.device('CPU:0'): t = tf.identity(t)");
  }
  if (options.has_device == 0) return;
  DLDevice target{static_cast<DLDeviceType>(options.device_type), options.device_id};
  const DLDevice here = view.dl.device;
  if (!isHost(target)) requireTorchCuda();
  if (!adapter.hasDevice(target.device_type)) {
    char name[32];
    deviceName(target, name, sizeof(name));
    throwError(ErrorCode::kUnsupportedDevice,
               "device=%s is not available to torch in this process; expected cpu, or cuda with a "
               "CUDA build of torch and a visible GPU",
               name);
  }
  // "cuda" is the current device, as in Tensor.to().
  if (!isHost(target) && target.device_id < 0) target.device_id = adapter.currentDevice();
  if (target.device_type == here.device_type &&
      (isHost(target) || target.device_id == here.device_id)) {
    return;
  }
  plan->spec.move = true;
  plan->spec.device = target;
  if (plan->spec.action == WrapAction::kShare) plan->spec.action = WrapAction::kCopy;
  plan->reason = "device= moves the tensor to another device";
}

}  // namespace

const tb_convert_options& defaultOptions() noexcept {
  static const tb_convert_options defaults = [] {
    tb_convert_options options{};
    options.struct_size = sizeof(options);
    options.copy = TB_COPY_AUTO;
    options.on_write = TB_ON_WRITE_COPY;
    options.device_id = -1;
    return options;
  }();
  return defaults;
}

const tb_convert_options& checkedOptions(const tb_convert_options* options) {
  if (options == nullptr) return defaultOptions();
  if (options->struct_size != sizeof(tb_convert_options)) {
    throwError(ErrorCode::kInvalidOption,
               "tb_convert_options has struct_size %u, expected %zu; start from "
               "tb_convert_options_init()",
               options->struct_size, sizeof(tb_convert_options));
  }
  if (options->copy < TB_COPY_AUTO || options->copy > TB_COPY_ALWAYS) {
    throwError(ErrorCode::kInvalidOption, "copy must be TB_COPY_AUTO, NEVER or ALWAYS, got %d",
               options->copy);
  }
  if (options->on_write < TB_ON_WRITE_COPY || options->on_write > TB_ON_WRITE_ALIAS) {
    throwError(ErrorCode::kInvalidOption,
               "on_write must be TB_ON_WRITE_COPY, RAISE or ALIAS, got %d", options->on_write);
  }
  if (options->num_scales < 0 ||
      (options->num_scales > 0 && (options->scale == nullptr || options->zero_point == nullptr))) {
    throwError(ErrorCode::kInvalidOption,
               "expected as many scales as zero points, both given or neither");
  }
  if (options->has_axis != 0 && options->num_scales == 0) {
    throwError(ErrorCode::kInvalidOption, "axis needs scale and zero_point");
  }
  return *options;
}

Plan decide(const TensorView& view, const tb_convert_options& options, Source source,
            const TorchAdapter& adapter) {
  Plan plan{};
  plan.spec.action = WrapAction::kShare;
  plan.spec.on_write = options.on_write;
  if (source != Source::kTensor && options.on_write == TB_ON_WRITE_ALIAS) {
    throwError(ErrorCode::kInvalidOption,
               "on_write=\"alias\" on a variable: the conversion is a snapshot, a write would "
               "reach whatever shares the variable's buffer and not follow the variable; use "
               "on_write=\"copy\", and variable.assign() to change it");
  }
  planDtype(view, options, &plan);
  planDevice(view, options, adapter, &plan);
  if (plan.spec.action == WrapAction::kLookup) {
    requireCopyAllowed(options.copy, plan.reason, "raw=True shares the stored bytes as uint8");
  }
  if (plan.spec.move) {
    requireCopyAllowed(options.copy, plan.reason, "Leave device= out, or allow the copy");
  }
  if (source == Source::kCopiedVariable) {
    requireCopyAllowed(
        options.copy,
        "TensorFlow copies this variable at each read since it had a scatter or slice update");
  }
  if (options.copy == TB_COPY_ALWAYS && plan.spec.action == WrapAction::kShare) {
    plan.spec.action = WrapAction::kCopy;
    plan.reason = "copy=True";
  }
  const bool host = isHost(view.dl.device);
  if (!(host ? adapter.protects : adapter.protects_gpu) && plan.spec.action == WrapAction::kShare &&
      (adapter.copies || options.on_write != TB_ON_WRITE_ALIAS)) {
    if (options.on_write == TB_ON_WRITE_ALIAS) {
      throwError(ErrorCode::kInvalidOption,
                 "on_write=\"alias\" needs shared memory, and with this release of torch every "
                 "conversion copies; use a release listed in the README");
    }
    const char* advice = "Use a release listed in the README, or on_write=\"alias\"";
    plan.reason = "writes cannot be intercepted in this release of torch";
    if (adapter.copies) {
      advice = "Use a release listed in the README";
    } else if (adapter.protects) {
      advice = "Use torch 2.13 or newer, or on_write=\"alias\"";
      plan.reason = "writes to memory on a GPU cannot be intercepted in this release of torch";
    }
    requireCopyAllowed(options.copy, plan.reason, advice);
    plan.spec.action = WrapAction::kCopy;
  }
  if (source == Source::kCopiedVariable && plan.spec.action == WrapAction::kShare) {
    plan.copied_by_tensorflow = true;
    plan.reason =
        "copied by TensorFlow: it copies this variable at each read since it had a scatter or "
        "slice update";
  }
  return plan;
}

const WrapSpec* commonPlan(const TensorView& view, const TorchAdapter& adapter) noexcept {
  static const std::array<WrapSpec, static_cast<size_t>(Dtype::kCount)> specs = [] {
    std::array<WrapSpec, static_cast<size_t>(Dtype::kCount)> result{};
    for (size_t i = 0; i < result.size(); ++i) {
      result[i].action = WrapAction::kShare;
      result[i].on_write = TB_ON_WRITE_COPY;
      result[i].dtype = static_cast<Dtype>(i);
    }
    return result;
  }();
  if (dtypeInfo(view.dtype).kind != DtypeKind::kShared || !isHost(view.dl.device) ||
      !adapter.protects) {
    return nullptr;
  }
  return &specs[static_cast<size_t>(view.dtype)];
}

void resolveDevice(TensorView* view, const TorchAdapter& adapter) {
  if (isHost(view->dl.device)) return;
  requireTorchCuda();
  if (!adapter.hasDevice(view->dl.device.device_type)) return;
  if (adapter.resolveDevice(view) != TB_OK) rethrowLastError();
}

void releaseLater(TensorRef* ref, const TorchAdapter& adapter) {
  if (isHost(ref->dl.device) || !adapter.hasDevice(ref->dl.device.device_type)) return;
  if (adapter.releaseLater(ref) != TB_OK) rethrowLastError();
}

tb_torch_tensor* execute(TensorRef* ref, const Plan& plan, const TorchAdapter& adapter) {
  tb_torch_tensor* tensor = nullptr;
  if (adapter.wrap(ref, &plan.spec, &tensor) != TB_OK) rethrowLastError();
  return tensor;
}

tb_torch_tensor* convert(TensorRef* ref, const tb_convert_options& options, Source source) {
  const TorchAdapter& adapter = torchAdapter();
  resolveDevice(ref, adapter);
  const Plan plan = decide(*ref, options, source, adapter);
  if (!isHost(ref->dl.device)) {
    adapter.waitForReleases();
    if (plan.spec.action != WrapAction::kShare) releaseLater(ref, adapter);
  }
  return execute(ref, plan, adapter);
}

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
