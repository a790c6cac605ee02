#include "adapters/torch/gpu.h"

#include <ATen/DeviceAccelerator.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/cuda.h>
#include <torch/version.h>

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "adapters/torch/dispatch.h"

// at::accelerator came with 2.7. Later the guard's virtual functions differ inside a group.
#if TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 7
#include <c10/core/impl/VirtualGuardImpl.h>
#define TB_NO_ACCELERATOR
#endif

namespace tensor_bridge {
namespace {

#ifdef TB_NO_ACCELERATOR
void synchronize(c10::DeviceIndex device) {
  const c10::impl::VirtualGuardImpl cuda(c10::kCUDA);
  cuda.synchronizeDevice(device);
}

c10::Stream currentStream(c10::Device device) {
  const c10::impl::VirtualGuardImpl cuda(c10::kCUDA);
  return cuda.getStream(device);
}

c10::DeviceIndex currentIndex() {
  const c10::impl::VirtualGuardImpl cuda(c10::kCUDA);
  return cuda.getDevice().index();
}
#else
void synchronize(c10::DeviceIndex device) { at::accelerator::synchronizeDevice(device); }

c10::Stream currentStream(c10::Device device) {
  return at::accelerator::getCurrentStream(device.index());
}

c10::DeviceIndex currentIndex() { return at::accelerator::getDeviceIndex(); }
#endif

struct GpuOwner {
  void* owner;
  ReleaseFn release;
  c10::Device device;
};

// One thread for the process, started at the first release and never joined: at exit it is left
// to die with the process, as is what it still holds.
class Reaper {
 public:
  static Reaper& instance() {
    static Reaper* reaper = new Reaper;
    return *reaper;
  }

  void add(GpuOwner* owner) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      queue_.push_back(owner);
    }
    ready_.notify_one();
  }

 private:
  Reaper() {
    std::thread([this] { run(); }).detach();
  }

  void run() {
    std::vector<GpuOwner*> batch;
    for (;;) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        ready_.wait(lock, [this] { return !queue_.empty(); });
        batch.swap(queue_);
      }
      for (GpuOwner* owner : batch) {
        try {
          synchronize(owner->device.index());
          owner->release(owner->owner);
          delete owner;
        } catch (...) {
          // The device cannot be synchronised: nobody can tell when the memory is free. Leak it.
        }
      }
      batch.clear();
    }
  }

  std::mutex mutex_;
  std::condition_variable ready_;
  std::vector<GpuOwner*> queue_;
};

}  // namespace

bool torchHasDevice(int32_t device_type) noexcept {
  if (device_type == kDLCPU) return true;
  if (device_type != kDLCUDA && device_type != kDLROCM) return false;
  try {
    // Not the guard's count: without a GPU, torch's fake tensors set a guard that counts one.
    return torch::cuda::is_available();
  } catch (...) {
    return false;
  }
}

int32_t currentGpu() { return currentIndex(); }

c10::Device deviceOfPointer(void* data) {
  // Without a target device from_blob asks the accelerator whose memory it is.
  return at::for_blob(data, {0})
      .options(at::TensorOptions().device(c10::kCUDA).dtype(at::kByte))
      .make_tensor()
      .device();
}

c10::DataPtr gpuDataPtr(const TensorView& view, c10::Device device, void* owner) {
  auto* context = new (std::nothrow) GpuOwner{owner, view.release, device};
  if (context == nullptr) {
    if (owner != nullptr) view.release(owner);
    throw std::bad_alloc();
  }
  return c10::DataPtr(view.dl.data, context, releaseGpuOwner, device);
}

void attachGpuOwner(c10::DataPtr& data, const TensorView& view) noexcept {
  static_cast<GpuOwner*>(data.get_context())->owner = view.owner;
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
    return;
  }
  try {
    Reaper::instance().add(owner);
  } catch (...) {
    // No thread, no memory: leak rather than free what a kernel may still read.
  }
}

void replaceGpuOwner(c10::DataPtr& data, void* owner, ReleaseFn release) noexcept {
  auto* gpu_owner = static_cast<GpuOwner*>(data.get_context());
  gpu_owner->owner = owner;
  gpu_owner->release = release;
}

bool takeGpuOwner(c10::DataPtr& data) noexcept {
  try {
    // TensorFlow drops its references once its kernels are queued: those may still read.
    synchronize(data.device().index());
  } catch (...) {
    // While a graph is captured, among others.
    return false;
  }
  return data.compare_exchange_deleter(releaseGpuOwner, releaseTakenGpuOwner);
}

void releaseTakenGpuOwner(void* context) { releaseGpuOwner(context); }

void waitForCurrentStream(c10::Device device) { currentStream(device).synchronize(); }

c10::DataPtr cloneOnDevice(const void* data, size_t nbytes, c10::Device device) {
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
  return copy.storage().set_data_ptr(c10::DataPtr(nullptr, device));
}

}  // namespace tensor_bridge
