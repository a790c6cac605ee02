// Which GPU TensorFlow's memory is on, as CUDA numbers them for this process. TensorFlow's own
// number is a logical one: set_visible_devices and virtual devices make the two differ (tensorflow
// #47866). Links no CUDA library. Not for: torch's memory.
#ifndef TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_GPU_H_
#define TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_GPU_H_

#include <cstdint>

namespace tensor_bridge {

/// The GPU whose memory is at `address`, according to CUDA's driver. -1 if the process has not
/// loaded the driver, or if the driver does not know the address.
int32_t gpuOfAddress(const void* address) noexcept;

/// Says which GPU a logical device is on, -1 for unknown; on any thread, with or without the GIL.
using GpuOfLogical = int32_t (*)(int32_t logical);
void setGpuOfLogical(GpuOfLogical function) noexcept;

/// The GPU of a tensor on the logical device; a tensor without elements has no address to ask for.
/// `logical` if the GPU is not known.
int32_t gpuOfTensor(const void* address, int32_t logical) noexcept;

/// Restores this thread's current GPU when it ends. TensorFlow leaves the GPU current that it
/// worked on (ScopedActivateContext), and torch takes the current GPU for "cuda".
class KeptGpu {
 public:
  KeptGpu() noexcept;
  ~KeptGpu();
  KeptGpu(const KeptGpu&) = delete;
  KeptGpu& operator=(const KeptGpu&) = delete;

 private:
  void* context_ = nullptr;
  bool known_ = false;
};

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_GPU_H_
