#include "adapters/torch/maker.h"

#include <ATen/EmptyTensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <ATen/quantized/QTensorImpl.h>
#include <ATen/quantized/Quantizer.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/TensorImpl.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "adapters/torch/copy_on_write.h"
#include "adapters/torch/cuda_streams.h"
#include "adapters/torch/dispatch.h"
#include "adapters/torch/gpu.h"
#include "adapters/torch/kept_memory.h"
#include "adapters/torch/list_writers.h"
#include "adapters/torch/torch_dtype.h"

namespace tensor_bridge {
namespace {

// Below this a plain memcpy beats torch's dispatcher and threads.
constexpr int64_t kSmallCopy = 64 * 1024;

c10::Device torchDevice(DLDevice device) {
  switch (device.device_type) {
    case kDLCPU:
      return c10::Device(c10::kCPU);
    case kDLCUDA:
    case kDLROCM:
      return c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(device.device_id));
    default:
      TORCH_CHECK(false, "tensor_bridge has no name for DLPack device type ",
                  static_cast<int>(device.device_type));
  }
}

c10::IntArrayRef shapeOf(const TensorView& view) {
  return {view.dl.shape, static_cast<size_t>(view.dl.ndim)};
}

c10::DispatchKeySet denseKey(c10::Device device) {
  return c10::DispatchKeySet(device.is_cpu() ? c10::DispatchKey::CPU : c10::DispatchKey::CUDA);
}

// Access to TensorImpl's protected fields (torch 2.6 to 2.15); no object of this class exists.
struct TensorFields : c10::TensorImpl {
  static constexpr auto kSizesAndStrides = &TensorFields::sizes_and_strides_;
  static constexpr auto kNumel = &TensorFields::numel_;
};

// Whether row-major memory of this shape may be channels-last memory too: rank 4 and 5 with one
// channel, with one pixel, or empty.
bool mayBeChannelsLast(const TensorView& view) {
  const int ndim = view.dl.ndim;
  if (__builtin_expect(ndim != 4 && ndim != 5, 1)) return false;
  const int64_t* shape = view.dl.shape;
  if (view.nbytes == 0 || shape[1] == 1) return true;
  bool one_pixel = true;
  for (int i = 2; i < ndim; ++i) one_pixel = one_pixel && shape[i] == 1;
  return one_pixel;
}

// layout->resize(), without its two calls of memset for a rank above 1. A new layout has rank 1.
void setRank(int ndim, c10::impl::SizesAndStrides* layout) {
  if (ndim <= 1) {
    layout->resize(static_cast<size_t>(ndim));
    return;
  }
  using Layouts = std::array<c10::impl::SizesAndStrides, C10_SIZES_AND_STRIDES_MAX_INLINE_SIZE + 1>;
  static const Layouts layouts = [] {
    Layouts made;
    for (size_t i = 0; i < made.size(); ++i) made[i].resize(i);
    return made;
  }();
  const auto rank = static_cast<size_t>(ndim);
  if (__builtin_expect(rank < layouts.size(), 1)) {
    *layout = layouts[rank];
  } else {
    layout->resize(rank);
  }
}

// set_sizes_contiguous() for a new tensor. torch's own computes all layout flags again, although
// they are usually those of the constructor: contiguous, dense, not channels-last.
void setContiguous(c10::TensorImpl* impl, const TensorView& view) {
  const int ndim = view.dl.ndim;
  if (mayBeChannelsLast(view)) {
    impl->set_sizes_contiguous(shapeOf(view));
    return;
  }
  c10::impl::SizesAndStrides& layout = impl->*TensorFields::kSizesAndStrides;
  setRank(ndim, &layout);
  uint64_t numel = 1;
  int64_t stride = 1;
  for (int i = ndim - 1; i >= 0; --i) {
    const int64_t size = view.dl.shape[i];
    layout.size_at_unchecked(static_cast<size_t>(i)) = size;
    layout.stride_at_unchecked(static_cast<size_t>(i)) = stride;
    numel *= static_cast<uint64_t>(size);
    // Only an empty tensor gets here with sizes so large; torch refuses them.
    if (__builtin_mul_overflow(stride, std::max<int64_t>(size, 1), &stride)) {
      impl->set_sizes_contiguous(shapeOf(view));
      return;
    }
  }
  impl->*TensorFields::kNumel = static_cast<int64_t>(numel);
}

at::Tensor denseTensor(c10::Storage storage, c10::Device device, caffe2::TypeMeta type) {
  return at::detail::make_tensor<c10::TensorImpl>(std::move(storage), denseKey(device), type);
}

// The common case: row-major, not quantized, on the CPU, and outside inference mode, in which
// tensors have other keys and no version counter. Uses the constructor that takes the keys as
// given.
bool isOrdinary(const TensorView& view, const WrapSpec& spec) {
  return view.dl.device.device_type == kDLCPU && view.dl.strides == nullptr &&
         spec.quant.count == 0 && !c10::InferenceMode::is_enabled();
}

at::Tensor ordinaryTensor(c10::intrusive_ptr<c10::StorageImpl> storage, const TensorView& view,
                          const WrapSpec& spec) {
  auto impl = c10::make_intrusive<c10::TensorImpl>(
      c10::TensorImpl::VIEW, c10::Storage(std::move(storage)), ordinaryCpuKeys(),
      c10::scalarTypeToTypeMeta(scalarType(spec.dtype)));
  setContiguous(impl.get(), view);
  return at::Tensor(std::move(impl));
}

// Memory that the caller fills. at::detail::empty_cpu() and a second tensor over its storage would
// take twice as long.
at::Tensor blankTensor(const TensorView& view, const WrapSpec& spec) {
  c10::Allocator* allocator = c10::GetAllocator(c10::kCPU);
  c10::DataPtr memory = view.nbytes < kLeastKept
                            ? allocator->allocate(static_cast<size_t>(view.nbytes))
                            : largeMemory(view.nbytes);
  return ordinaryTensor(c10::make_intrusive<c10::StorageImpl>(
                            c10::StorageImpl::use_byte_size_t(), c10::SymInt(view.nbytes),
                            std::move(memory), allocator, /*resizable=*/true),
                        view, spec);
}

at::QuantizerPtr makeQuantizer(const QuantParams& quant, c10::ScalarType type) {
  if (!quant.per_channel) {
    return at::make_per_tensor_affine_quantizer(quant.scale[0], quant.zero_point[0], type);
  }
  at::Tensor scales = at::empty({quant.count}, at::kDouble);
  at::Tensor zero_points = at::empty({quant.count}, at::kLong);
  const size_t bytes = static_cast<size_t>(quant.count) * 8;
  std::memcpy(scales.mutable_data_ptr(), quant.scale, bytes);
  std::memcpy(zero_points.mutable_data_ptr(), quant.zero_point, bytes);
  return at::make_per_channel_affine_quantizer(scales, zero_points, quant.axis, type);
}

// The tensor object over `storage`, contiguous with the view's shape.
at::Tensor tensorOver(c10::Storage storage, c10::Device device, const TensorView& view,
                      const WrapSpec& spec) {
  const c10::ScalarType type = scalarType(spec.dtype);
  at::Tensor tensor;
  if (__builtin_expect(spec.quant.count == 0, 1)) {
    tensor = denseTensor(std::move(storage), device, c10::scalarTypeToTypeMeta(type));
  } else {
    const BelowModes guard;
    tensor = at::detail::make_tensor<at::QTensorImpl>(
        std::move(storage),
        c10::DispatchKeySet(device.is_cpu() ? c10::DispatchKey::QuantizedCPU
                                            : c10::DispatchKey::QuantizedCUDA),
        c10::scalarTypeToTypeMeta(type), makeQuantizer(spec.quant, type));
  }
  if (__builtin_expect(view.dl.strides == nullptr, 1)) {
    tensor.unsafeGetTensorImpl()->set_sizes_contiguous(shapeOf(view));
  } else {
    tensor.unsafeGetTensorImpl()->set_sizes_and_strides(
        shapeOf(view), {view.dl.strides, static_cast<size_t>(view.dl.ndim)});
  }
  return tensor;
}

// A one-dimensional tensor over memory that the caller keeps alive and nobody writes to.
at::Tensor borrowed(const void* data, int64_t count, c10::ScalarType type, c10::Device device) {
  return at::for_blob(const_cast<void*>(data), {count})
      .options(at::TensorOptions().device(device).dtype(type))
      .target_device(device)
      .make_tensor();
}

template <typename Element>
void lookUp(const TensorView& view, const void* table, void* out) {
  const auto* bytes = static_cast<const uint8_t*>(view.dl.data);
  const auto* entries = static_cast<const Element*>(table);
  auto* elements = static_cast<Element*>(out);
  for (int64_t i = 0; i < view.nbytes; ++i) elements[i] = entries[bytes[i]];
}

at::Tensor lookedUp(const TensorView& view, const WrapSpec& spec, c10::Device source) {
  const c10::ScalarType type = scalarType(spec.dtype);
  if (!source.is_cpu()) {
    at::Tensor table = borrowed(spec.lookup, 256, type, c10::kCPU).to(source);
    at::Tensor index = borrowed(view.dl.data, view.nbytes, at::kByte, source).to(at::kInt);
    return at::index_select(table, 0, index);
  }
  at::Tensor out = at::detail::empty_cpu({view.nbytes}, at::TensorOptions().dtype(type));
  void* data = out.mutable_data_ptr();
  switch (out.element_size()) {
    case 1:
      lookUp<uint8_t>(view, spec.lookup, data);
      break;
    case 2:
      lookUp<uint16_t>(view, spec.lookup, data);
      break;
    default:
      lookUp<uint32_t>(view, spec.lookup, data);
  }
  return out;
}

}  // namespace

[[gnu::no_stack_protector]] at::Tensor sharedTensor(TensorRef* ref, const WrapSpec& spec,
                                                    bool take) {
  c10::Device device(c10::kCPU);
  if (__builtin_expect(isOrdinary(*ref, spec), 1)) {
    return ordinaryTensor(makeForeignStorage(ref, device, spec.on_write, take), *ref, spec);
  }
  device = torchDevice(ref->dl.device);
  if (!device.is_cpu()) guardListWriters();
  return tensorOver(c10::Storage(makeForeignStorage(ref, device, spec.on_write, take)), device,
                    *ref, spec);
}

at::Tensor copiedTensor(const TensorView& view, const WrapSpec& spec) {
  if (view.dl.data == nullptr && isOrdinary(view, spec) && !spec.move) {
    return blankTensor(view, spec);
  }
  c10::Device device = torchDevice(view.dl.device);
  // On a GPU the copy is only queued when this returns: releaseLater().
  if (!device.is_cpu()) refuseCapture(device);
  at::Tensor flat;
  {
    const BelowModes guard;
    const c10::ScalarType bytes = at::kByte;
    if (view.nbytes == 0 && !device.is_cpu()) {
      flat = at::empty({0}, at::TensorOptions().device(device).dtype(bytes));
    } else if (spec.action == WrapAction::kLookup) {
      flat = lookedUp(view, spec, device);
    } else if (device.is_cpu()) {
      const c10::Device target = spec.move ? torchDevice(spec.device) : device;
      if (target.is_cpu()) {
        flat = at::detail::empty_cpu({view.nbytes}, at::TensorOptions().dtype(bytes));
        if (view.dl.data == nullptr || view.nbytes == 0) {
          // Empty, or the caller fills it, as for blankTensor().
        } else if (view.nbytes <= kSmallCopy) {
          std::memcpy(flat.mutable_data_ptr(), view.dl.data, view.nbytes);
        } else {
          flat.copy_(borrowed(view.dl.data, view.nbytes, bytes, device));
        }
      } else {
        flat = borrowed(view.dl.data, view.nbytes, bytes, device);
      }
    } else {
      flat = borrowed(view.dl.data, view.nbytes, bytes, device);
      if (!spec.move) flat = flat.clone();
    }
    if (spec.move) {
      const c10::Device target = torchDevice(spec.device);
      // Blocking: borrowed host memory may be released as soon as this function returns.
      if (flat.device() != target) flat = flat.to(target, /*non_blocking=*/false, /*copy=*/true);
    }
    // The result may be used on any stream, like shared memory.
    if (!device.is_cpu() && flat.is_cuda()) orderOtherStreams(flat.device().index());
    device = flat.device();
  }
  return tensorOver(flat.storage(), device, view, spec);
}

}  // namespace tensor_bridge
