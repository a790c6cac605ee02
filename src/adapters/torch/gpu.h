// GPU memory of TensorFlow's under torch: which ordinal it has, copying it on the current stream,
// and releasing it only after torch's streams are done with it. Links no CUDA library: everything
// goes through torch's generic accelerator functions. Not for: CPU tensors.
//
// Note [GPU ordering]
// Into torch: TFE_TensorHandleDevicePointer blocks the host until TensorFlow's compute stream is
// idle (device->Sync(), tensorflow/c/eager/c_api.cc), so the bytes are ready for any stream.
// Back to TensorFlow's allocator: torch's record_stream ignores foreign memory, so nobody knows
// which streams still read it. A reaper thread synchronises the device and then releases; the
// thread that dropped the tensor does not wait.
// Read from source; not run on a GPU yet.
#ifndef TENSOR_BRIDGE_ADAPTERS_TORCH_GPU_H_
#define TENSOR_BRIDGE_ADAPTERS_TORCH_GPU_H_

#include <c10/core/Allocator.h>

#include "core/tensor_view.h"

namespace tensor_bridge {

/// Whether torch can place a tensor on devices of this DLPack type in this process.
bool torchHasDevice(int32_t device_type) noexcept;

/// Index of this thread's current GPU, where there is one.
int32_t currentGpu();

/// torch's device for a pointer to GPU memory. Throws c10::Error without a CUDA build of torch.
c10::Device deviceOfPointer(void* data);

/// A DataPtr whose deleter is releaseGpuOwner. `owner`, the view's or null for later, is taken over
/// in any case.
c10::DataPtr gpuDataPtr(const TensorView& view, c10::Device device, void* owner);
void attachGpuOwner(c10::DataPtr& data, const TensorView& view) noexcept;
bool gpuOwner(void* context, ReleaseFn* release, void** owner) noexcept;

/// Queues the owner for release once the device is idle. The deleter of gpuDataPtr's result.
void releaseGpuOwner(void* context);

void replaceGpuOwner(c10::DataPtr& data, void* owner, ReleaseFn release) noexcept;
/// Makes memory of releaseGpuOwner's torch's own, once the device is idle. False, with nothing
/// done, where nobody can wait for that.
bool takeGpuOwner(c10::DataPtr& data) noexcept;
void releaseTakenGpuOwner(void* context);

/// Blocks until what is queued on the current stream of `device` is done, so that what it read may
/// be released.
void waitForCurrentStream(c10::Device device);

/// A copy in torch's own memory, made on the current stream of `device`.
c10::DataPtr cloneOnDevice(const void* data, size_t nbytes, c10::Device device);

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TORCH_GPU_H_
