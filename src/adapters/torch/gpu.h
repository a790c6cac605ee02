// TensorFlow's GPU memory in torch: its ordinal, its copy on the current stream, and its owner
// until it goes back. Not for: CPU tensors.
//
// Note [GPU ordering]
// Into torch: TFE_TensorHandleDevicePointer blocks the host until TensorFlow's compute stream is
// idle (device->Sync(), tensorflow/c/eager/c_api.cc), so the bytes are ready for any stream. Back
// to TensorFlow's allocator: Note [GPU memory goes back]. The first write copies, even if
// TensorFlow has let go of the memory: it drops its references once its kernels are queued, and
// whether these have read the memory cannot be told without waiting. The copy is queued on the
// current stream, and torch's other streams are ordered after it, because not every move is a write
// whose user would order it (data_ptr()). While the current stream is captured into a CUDA graph,
// first writes and copies are refused: the graph would read TensorFlow's memory again at each
// replay.
#ifndef TENSOR_BRIDGE_ADAPTERS_TORCH_GPU_H_
#define TENSOR_BRIDGE_ADAPTERS_TORCH_GPU_H_

#include <c10/core/Allocator.h>

#include "core/tensor_ref.h"

namespace tensor_bridge {

/// Whether torch can place a tensor on devices of this DLPack type in this process.
bool torchHasDevice(int32_t device_type) noexcept;

/// torch's device for a pointer to GPU memory. Throws c10::Error without a CUDA build of torch.
c10::Device deviceOfPointer(void* data);

/// A DataPtr whose deleter is releaseGpuOwner. With `take` the owner is taken over, even on an
/// exception; otherwise attachGpuOwner() takes it later.
c10::DataPtr gpuDataPtr(TensorRef* ref, c10::Device device, bool take);
void attachGpuOwner(c10::DataPtr& data, TensorRef* ref) noexcept;
bool gpuOwner(void* context, ReleaseFn* release, void** owner) noexcept;

/// Releases the owner once torch's streams have finished with the memory. The deleter of
/// gpuDataPtr's result.
void releaseGpuOwner(void* context);

/// Makes the owner one that releaseGpuOwner() releases. `ref->dl.device` is torch's device. On an
/// exception nothing has changed.
void releaseLater(TensorRef* ref);

/// Throws c10::Error if the current stream of `device` is captured into a CUDA graph.
void refuseCapture(c10::Device device);

/// A copy in torch's own memory, made on the current stream of `device`; later work on torch's
/// other streams is ordered after it.
c10::DataPtr cloneOnDevice(const void* data, size_t nbytes, c10::Device device);

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TORCH_GPU_H_
