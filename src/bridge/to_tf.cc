#include "bridge/to_tf.h"

#include <cstdio>
#include <cstring>
#include <memory>
#include <new>

#include "adapters/tensorflow/maker.h"
#include "adapters/tensorflow/owner.h"
#include "bridge/copy_policy.h"
#include "bridge/to_torch.h"
#include "bridge/torch_cuda.h"
#include "core/device.h"
#include "core/error.h"
#include "core/layout.h"
#include "core/narrow_dtypes.h"

namespace tensor_bridge {
namespace {

[[noreturn]] void throwObstacle(const TorchFacts& facts) {
  switch (facts.obstacle) {
    case Obstacle::kNotDense:
      throwError(ErrorCode::kUnsupportedType,
                 "expected a dense torch tensor, got layout %s; make it dense first (to_dense(), "
                 "or convert values() and the offsets of a nested tensor)",
                 facts.name);
    case Obstacle::kWrapped:
      throwError(ErrorCode::kUnsupportedType,
                 "expected a torch tensor with memory of its own, got one that a transform or a "
                 "subclass wraps (torch.func, functionalization, FakeTensor, DTensor, ...); "
                 "convert outside the transform, or the plain tensor inside (to_local(), ...)");
    case Obstacle::kMeta:
      throwError(ErrorCode::kUnsupportedDevice,
                 "expected a tensor with values, got one on the meta device, which has none");
    case Obstacle::kQuantized:
      throwError(ErrorCode::kUnsupportedDtype,
                 "got a %s tensor: TensorFlow would lose its scale and zero point. Convert "
                 "int_repr() for the integers (with dtype='qint8' and so on), or dequantize() for "
                 "the values",
                 facts.name);
    case Obstacle::kNoMemory:
      throwError(ErrorCode::kInvalidHandle,
                 "expected a tensor whose elements are in its storage, got one whose storage was "
                 "resized to fewer bytes; resize the storage back first");
    default:
      throwError(ErrorCode::kUnsupportedDtype, "TensorFlow has nothing for torch dtype %s",
                 facts.name);
  }
}

const char* copyReason(Obstacle obstacle) {
  switch (obstacle) {
    case Obstacle::kConjugate:
      return "the tensor is a lazy conjugate; its values are written out";
    case Obstacle::kNegative:
      return "the tensor is a lazy negation; its values are written out";
    case Obstacle::kZero:
      return "the tensor is an implicit zero without memory";
    case Obstacle::kMkldnn:
      return "the tensor has oneDNN's opaque layout";
    case Obstacle::kDevice:
      return "the tensor is not in host memory";
    case Obstacle::kStrided:
      return "the tensor is not row-major (a transpose, a slice or an expansion)";
    case Obstacle::kMisaligned:
      return "TensorFlow needs memory aligned to 64 bytes";
    case Obstacle::kSharedMemory:
      return "the memory is shared with other processes, which would see neither side's move";
    case Obstacle::kPinned:
      return "the memory is pinned; moving the tensor would lose that";
    case Obstacle::kLazyClone:
      return "the storage is a lazy clone of torch's";
    case Obstacle::kAliased:
      return "the memory is not torch's alone, others may write to it: it was converted with "
             "on_write=\"alias\", comes from a DLPack producer that does not call it read-only, or "
             "from at::from_blob without a deleter";
    case Obstacle::kHooked:
      return "something else watches the storage, or it was resized after it was shared";
    case Obstacle::kArray:
      return "a NumPy array, or another owner, may keep the address: Tensor.numpy() was called, or "
             "the memory came from elsewhere and was written to after it was shared";
    case Obstacle::kContended:
      return "two threads did the first write to the tensor at once; its writes can no longer be "
             "intercepted";
    default:
      return "";
  }
}

Dtype targetDtype(const TorchFacts& facts, const tb_convert_back_options& options) {
  const DtypeInfo& own = dtypeInfo(facts.dtype);
  if (options.tf_dtype == 0 || options.tf_dtype == own.tf_enum) {
    if (own.tf_enum == 0) {
      throwError(ErrorCode::kUnsupportedDtype, "got %s: %s", own.torch_name, own.reason);
    }
    return facts.dtype;
  }
  const Dtype target = dtypeFromTf(options.tf_dtype);
  if (target == Dtype::kUnknown) {
    throwError(ErrorCode::kInvalidOption, "dtype: TensorFlow's number %d is not known",
               options.tf_dtype);
  }
  const DtypeInfo& info = dtypeInfo(target);
  const bool lacking = info.kind == DtypeKind::kConverted || info.kind == DtypeKind::kViewed ||
                       info.kind == DtypeKind::kQuantized;
  if (!lacking) {
    throwError(ErrorCode::kInvalidOption,
               "dtype= is for dtypes that torch lacks (int4, uint4, int2, uint2, "
               "float8_e4m3b11fnuz, float4_e2m1fn, quantized ones), got %s; cast in torch first "
               "(Tensor.to)",
               info.name);
  }
  return target;
}

// Throws Error{kUnsupportedDtype} if the TensorFlow of this process is older than the dtype.
void requireTfDtype(Dtype dtype) {
  const TfApi* api = findTfApi();
  const DtypeInfo& info = dtypeInfo(dtype);
  if (__builtin_expect(api == nullptr || api->hasDtype(info.tf_enum), 1)) return;
  throwError(ErrorCode::kUnsupportedDtype,
             "this release of TensorFlow has no %s; update TensorFlow, or convert to another dtype "
             "in torch first",
             info.name);
}

// Plans how values of `facts.dtype` become `target`.
void planTarget(const TorchFacts& facts, Dtype target, ToTfPlan* plan) {
  const DtypeInfo& info = dtypeInfo(target);
  const DtypeInfo& own = dtypeInfo(facts.dtype);
  plan->dtype = target;
  requireTfDtype(target);
  if (target == facts.dtype) return;
  if (info.kind == DtypeKind::kQuantized) {
    if (facts.dtype != info.nearest) {
      throwError(ErrorCode::kInvalidOption,
                 "dtype='%s' takes the plain integers, expected a %s tensor, got %s", info.name,
                 dtypeInfo(info.nearest).torch_name, own.torch_name);
    }
    return;
  }
  const bool floating = own.dl.code == kDLFloat || own.dl.code == kDLBfloat;
  const bool integer =
      (own.dl.code == kDLInt || own.dl.code == kDLUInt) && facts.dtype != Dtype::kUInt64;
  if (encodesDoubles(target) ? !floating : !integer) {
    throwError(ErrorCode::kInvalidOption, "dtype='%s' takes a torch tensor of %s, got %s",
               info.name,
               encodesDoubles(target) ? "floating dtype (float8 cast to float16 first)"
                                      : "integer dtype (uint64 cast to int64 first)",
               own.torch_name);
  }
  if (info.kind == DtypeKind::kViewed && facts.dtype == Dtype::kUInt8) {
    plan->check_range = true;
    return;
  }
  plan->action = ToTfAction::kEncode;
  plan->reason = "torch lacks the dtype; every value is checked and written in TensorFlow's form";
}

TensorView viewOf(const TorchFacts& facts, Dtype dtype) {
  TensorView view{};
  view.dl.data = const_cast<void*>(facts.data);
  view.dl.device = facts.device;
  view.dl.ndim = facts.ndim;
  view.dl.dtype = dtypeInfo(dtype).dl;
  view.dl.shape = const_cast<int64_t*>(facts.shape);
  view.dtype = dtype;
  view.read_only = true;
  view.nbytes = facts.nbytes;
  return view;
}

[[noreturn]] void throwRange(Dtype dtype, int64_t index, double value) {
  throwError(
      ErrorCode::kValueOutOfRange,
      "element %lld is %g, which %s cannot hold; it holds %s. Use a wider dtype, or round and "
      "clamp the values first",
      static_cast<long long>(index), value, dtypeInfo(dtype).name, valueRange(dtype));
}

void checkRange(const void* data, int64_t nbytes, Dtype dtype) {
  const auto* bytes = static_cast<const uint8_t*>(data);
  const uint8_t high = dtype == Dtype::kUInt4 ? 15 : 3;
  for (int64_t i = 0; i < nbytes; ++i) {
    if (bytes[i] > high) throwRange(dtype, i, bytes[i]);
  }
}

void orThrow(tb_status status) {
  if (status != TB_OK) rethrowLastError();
}

TfTensor copyToTf(tb_torch_tensor* tensor, const TorchFacts& facts, const ToTfPlan& plan,
                  const TfApi& api, const TorchAdapter& adapter) {
  const DtypeInfo& info = dtypeInfo(plan.dtype);
  const int64_t count = facts.nbytes / dtypeInfo(facts.dtype).itemsize;
  void* data = nullptr;
  TfTensor result =
      allocateTensor(api, info.tf_enum, facts.shape, facts.ndim, count * info.itemsize, &data);
  if (count == 0) return result;
  if (plan.action != ToTfAction::kEncode) {
    orThrow(adapter.copyOut(tensor, data));
    if (plan.check_range) checkRange(data, facts.nbytes, plan.dtype);
    return result;
  }
  const bool doubles = encodesDoubles(plan.dtype);
  const std::unique_ptr<int64_t[]> values(new int64_t[static_cast<size_t>(count)]);
  orThrow(adapter.castOut(tensor, doubles, values.get()));
  const int64_t bad = encode(plan.dtype, values.get(), count, static_cast<uint8_t*>(data));
  if (bad >= 0) {
    double value = static_cast<double>(values[static_cast<size_t>(bad)]);
    if (doubles) std::memcpy(&value, &values[static_cast<size_t>(bad)], sizeof(value));
    throwRange(plan.dtype, bad, value);
  }
  return result;
}

[[gnu::no_stack_protector]] TfTensor shareToTf(tb_torch_tensor* tensor, HeldFacts* facts,
                                               const ToTfPlan& plan, const TfApi& api,
                                               const TorchAdapter& adapter) {
  TensorRef ref(viewOf(*facts, plan.dtype), nullptr, nullptr);
  if (facts->foreign_tag != OwnerTag::kNone) {
    ref.owner = facts->take();
    ref.release = facts->foreign_release;
    if (ref.owner != nullptr) countOwner(1);
  } else {
    const tb_status status = adapter.share(tensor, &ref.owner, &ref.release, &ref.dl.data);
    if (status != TB_OK && status != TB_COPY_REQUIRED) rethrowLastError();
  }
  // Another thread is writing, or has moved the tensor to unaligned memory since the plan was made.
  if (ref.owner == nullptr || !isAligned(ref.dl.data, kTensorFlowAlignment)) {
    requireCopyAllowed(plan.copy, "another thread is writing to the tensor");
    return copyToTf(tensor, *facts, plan, api, adapter);
  }
  // After the bytes are kept: a write on another thread now moves torch away.
  if (plan.check_range) checkRange(ref.dl.data, facts->nbytes, plan.dtype);
  if (plan.action == ToTfAction::kSame &&
      ownerShows(api, facts->foreign_tag, ref.owner, ref, facts->storage_bytes)) {
    return tensorOfOwner(api, facts->foreign_tag, ref.owner, ref);
  }
  // A part of a TensorFlow tensor, or torch's memory.
  return importShared(api, &ref);
}

}  // namespace

const tb_convert_back_options& checkedToTfOptions(const tb_convert_back_options* options) {
  static const tb_convert_back_options defaults{sizeof(tb_convert_back_options), TB_COPY_AUTO,
                                                TB_GRAD_DETACH, 0};
  if (options == nullptr) return defaults;
  if (options->struct_size != sizeof(tb_convert_back_options)) {
    throwError(ErrorCode::kInvalidOption,
               "tb_convert_back_options has struct_size %u, expected %zu; start from "
               "tb_convert_back_options_init()",
               options->struct_size, sizeof(tb_convert_back_options));
  }
  if (options->copy < TB_COPY_AUTO || options->copy > TB_COPY_ALWAYS) {
    throwError(ErrorCode::kInvalidOption, "copy must be TB_COPY_AUTO, NEVER or ALWAYS, got %d",
               options->copy);
  }
  if (options->grad != TB_GRAD_DETACH && options->grad != TB_GRAD_RAISE) {
    throwError(ErrorCode::kInvalidOption, "grad must be TB_GRAD_DETACH or RAISE, got %d",
               options->grad);
  }
  return *options;
}

ToTfPlan decideToTf(const TorchFacts& facts, const tb_convert_back_options& options,
                    const TorchAdapter& adapter) {
  if (facts.obstacle != Obstacle::kNone && facts.obstacle < Obstacle::kConjugate) {
    throwObstacle(facts);
  }
  if (!isHost(facts.device)) requireTorchCuda();
  if (facts.ndim > kMaxDims) {
    throwError(ErrorCode::kUnsupportedType, "TensorFlow's tensors have up to %d dimensions, got %d",
               kMaxDims, facts.ndim);
  }
  if (facts.requires_grad && options.grad == TB_GRAD_RAISE) {
    throwError(ErrorCode::kInvalidOption,
               "grad=\"raise\" and the tensor requires grad: TensorFlow would get only its "
               "values. detach() it, or use grad=\"detach\"");
  }
  ToTfPlan plan{ToTfAction::kShare,
                facts.dtype,
                false,
                options.copy,
                facts.requires_grad,
                "TensorFlow can use the memory as it is; the memory is shared"};
  planTarget(facts, targetDtype(facts, options), &plan);
  const char* forced = nullptr;
  if (plan.action == ToTfAction::kEncode) {
    forced = plan.reason;
  } else if (facts.nbytes == 0 || facts.data == nullptr) {
    // Nothing to share or copy: TensorFlow makes its own empty tensor.
    if (facts.nbytes == 0) {
      plan.action = ToTfAction::kCopy;
      plan.reason = "the tensor has no elements";
      return plan;
    }
    forced = copyReason(facts.obstacle);
  } else if (facts.obstacle != Obstacle::kNone) {
    forced = copyReason(facts.obstacle);
  } else if (facts.foreign_tag == OwnerTag::kWritableDlpack) {
    forced = copyReason(Obstacle::kAliased);
  } else if (facts.foreign_tag == OwnerTag::kNone && !adapter.shares) {
    forced = adapter.copies
                 ? "writes cannot be intercepted in this release of torch"
                 : "writes to torch's own tensors cannot be intercepted before torch 2.13";
  }
  if (forced != nullptr) {
    requireCopyAllowed(options.copy, forced);
    if (plan.action != ToTfAction::kEncode) plan.action = ToTfAction::kCopy;
    plan.reason = forced;
    return plan;
  }
  if (options.copy == TB_COPY_ALWAYS) {
    plan.action = ToTfAction::kCopy;
    plan.reason = "copy=True";
  } else if (isTensorFlowOwner(facts.foreign_tag)) {
    plan.action = ToTfAction::kSame;
    plan.reason = "the memory is TensorFlow's own and was not written to; it goes back as it is";
  }
  return plan;
}

[[gnu::no_stack_protector]] TfTensor executeToTf(tb_torch_tensor* tensor, HeldFacts* facts,
                                                 const ToTfPlan& plan, const TfApi& api,
                                                 const TorchAdapter& adapter) {
  switch (plan.action) {
    case ToTfAction::kSame:
    case ToTfAction::kShare:
      return shareToTf(tensor, facts, plan, api, adapter);
    case ToTfAction::kCopy:
    case ToTfAction::kEncode:
      break;
  }
  return copyToTf(tensor, *facts, plan, api, adapter);
}

[[gnu::no_stack_protector]] TfeHandle sameHandle(HeldFacts* facts, const ToTfPlan& plan,
                                                 const TfApi& api) {
  if (plan.action != ToTfAction::kSame || plan.check_range) return {};
  const TensorView view = viewOf(*facts, plan.dtype);
  const OwnerTag tag = facts->foreign_tag;
  if (facts->foreign_owner == nullptr ||
      !ownerShows(api, tag, facts->foreign_owner, view, facts->storage_bytes)) {
    return {};
  }
  return handleOfOwner(api, tag, facts->take(), view);
}

void explainToTf(const TorchFacts& facts, const tb_convert_back_options* options,
                 const TorchAdapter& adapter, tb_explanation* out) noexcept {
  try {
    const ToTfPlan plan = decideToTf(facts, checkedToTfOptions(options), adapter);
    const DtypeInfo& info = dtypeInfo(plan.dtype);
    const bool copied = plan.action == ToTfAction::kCopy || plan.action == ToTfAction::kEncode;
    *out = tb_explanation{};
    out->struct_size = sizeof(*out);
    out->action = copied ? TB_ACTION_COPIED : TB_ACTION_SHARED;
    out->status = TB_OK;
    out->on_write = -1;
    out->tf_dtype = info.name;
    out->torch_dtype = dtypeInfo(facts.dtype).torch_name;
    out->nbytes = facts.nbytes / dtypeInfo(facts.dtype).itemsize * info.itemsize;
    std::snprintf(out->device, sizeof(out->device), "CPU:0");
    std::snprintf(out->reason, sizeof(out->reason), "%s%s", plan.reason,
                  plan.detached ? "; detached: the values go without the autograd graph" : "");
  } catch (...) {
    const tb_status status = setLastErrorFromException();
    explainRefused(Dtype::kUnknown, status, out);
    if (facts.dtype != Dtype::kUnknown) out->torch_dtype = dtypeInfo(facts.dtype).torch_name;
  }
  out->ndim = facts.shape == nullptr ? -1 : facts.ndim;
}

}  // namespace tensor_bridge
