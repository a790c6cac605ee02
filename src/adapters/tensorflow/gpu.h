// Which GPU TensorFlow's memory is on, as CUDA numbers them for this process. TensorFlow's own
// number is a logical one: set_visible_devices and virtual devices make the two differ (tensorflow
// #47866). Links no CUDA library. Not for: anything of torch's.
#ifndef TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_GPU_H_
#define TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_GPU_H_

#include <cstdint>

namespace tensor_bridge {

/// The GPU whose memory is at `address`, asked of CUDA's driver. -1 where the process has none
/// loaded, or it does not know the address.
int32_t gpuOfAddress(const void* address) noexcept;

/// Says which GPU a logical device is on, -1 for unknown; on any thread, with or without the GIL.
using GpuOfLogical = int32_t (*)(int32_t logical);
void setGpuOfLogical(GpuOfLogical function) noexcept;

/// Of a tensor on the logical device, which has no address if it has no elements. `logical` where
/// nobody knows.
int32_t gpuOfTensor(const void* address, int32_t logical) noexcept;

/// Gives this thread its current GPU back when it ends. TensorFlow leaves the one current that it
/// has worked on (ScopedActivateContext), and torch takes the current one for "cuda".
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
