#include "adapters/torch/gpu.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <torch/cuda.h>

#include "adapters/torch/cuda_streams.h"
#include "adapters/torch/dispatch.h"
#include "adapters/torch/give_back.h"

namespace tensor_bridge {

bool torchHasDevice(int32_t device_type) noexcept {
  if (device_type == kDLCPU) return true;
  if (device_type != kDLCUDA && device_type != kDLROCM) return false;
  try {
    // The guard's count is not used: without a GPU, torch's fake tensors set a guard that counts 1.
    return torch::cuda::is_available();
  } catch (...) {
    return false;
  }
}

c10::Device deviceOfPointer(void* data) {
  requireCudaRuntime();
  // Without a target device from_blob asks the accelerator whose memory it is.
  return at::for_blob(data, {0})
      .options(at::TensorOptions().device(c10::kCUDA).dtype(at::kByte))
      .make_tensor()
      .device();
}

c10::DataPtr gpuDataPtr(TensorRef* ref, c10::Device device, bool take) {
  auto* context = new GpuOwner{nullptr, ref->release, device.index(), ref->nbytes};
  if (take) context->owner = ref->take();
  return c10::DataPtr(ref->dl.data, context, releaseGpuOwner, device);
}

void attachGpuOwner(c10::DataPtr& data, TensorRef* ref) noexcept {
  static_cast<GpuOwner*>(data.get_context())->owner = ref->take();
}

bool gpuOwner(void* context, ReleaseFn* release, void** owner) noexcept {
  *release = static_cast<GpuOwner*>(context)->release;
  *owner = static_cast<GpuOwner*>(context)->owner;
  return *owner != nullptr;
}

void releaseGpuOwner(void* context) {
  auto* owner = static_cast<GpuOwner*>(context);
  if (owner->owner == nullptr) {
    delete owner;
  } else {
    giveBack(owner);
  }
}

void releaseLater(TensorRef* ref) {
  const auto device = static_cast<c10::DeviceIndex>(ref->dl.device.device_id);
  ref->owner = new GpuOwner{ref->owner, ref->release, device, ref->nbytes};
  ref->release = releaseGpuOwner;
}

void refuseCapture(c10::Device device) {
  const CudaCalls calls(device.index());
  TORCH_CHECK(
      !isCapturing(currentStream(device.index())),
      "expected no CUDA graph to be captured, got a capture on the current stream: the copy "
      "of a tensor that shares memory with TensorFlow would become part of the graph and "
      "read that memory at each replay, after it was given back. Write to the tensor once, "
      "or clone() it, before the capture begins");
}

c10::DataPtr cloneOnDevice(const void* data, size_t nbytes, c10::Device device) {
  refuseCapture(device);
  // torch may allocate, which would end another thread's capture.
  const CudaCalls calls(device.index());
  const BelowModes guard;
  const auto options = at::TensorOptions().device(device).dtype(at::kByte);
  const auto size = static_cast<int64_t>(nbytes);
  // A foreign allocator's clone need not run on the current stream; copy_ does.
  at::Tensor source = at::for_blob(const_cast<void*>(data), {size})
                          .options(options)
                          .target_device(device)
                          .make_tensor();
  at::Tensor copy = at::empty({size}, options);
  copy.copy_(source);
  orderOtherStreams(device.index());
  return copy.storage().set_data_ptr(c10::DataPtr(nullptr, device));
}

}  // namespace tensor_bridge
