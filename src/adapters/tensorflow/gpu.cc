#include "adapters/tensorflow/gpu.h"

#include <dlfcn.h>

#include <atomic>

namespace tensor_bridge {
namespace {

// CUresult cuPointerGetAttribute(void*, CUpointer_attribute, CUdeviceptr) of cuda.h.
using PointerGetAttribute = int (*)(void* value, int attribute, unsigned long long address);
constexpr int kDeviceOrdinal = 9;  // CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL

struct Driver {
  PointerGetAttribute attribute;
  int (*getContext)(void** context);  // CUresult cuCtxGetCurrent(CUcontext*)
  int (*setContext)(void* context);   // CUresult cuCtxSetCurrent(CUcontext)
};

std::atomic<const Driver*> g_driver{nullptr};
std::atomic<GpuOfLogical> g_of_logical{nullptr};

// Null if the process has not loaded it. TensorFlow loads it before it puts anything on a GPU, and
// it is never unloaded.
const Driver* findDriver() noexcept {
  if (const Driver* found = g_driver.load(std::memory_order_acquire)) return found;
  void* library = dlopen("libcuda.so.1", RTLD_NOLOAD | RTLD_LAZY | RTLD_LOCAL);
  if (library == nullptr) return nullptr;
  static const Driver driver{
      reinterpret_cast<PointerGetAttribute>(dlsym(library, "cuPointerGetAttribute")),
      reinterpret_cast<int (*)(void**)>(dlsym(library, "cuCtxGetCurrent")),
      reinterpret_cast<int (*)(void*)>(dlsym(library, "cuCtxSetCurrent")),
  };
  if (driver.attribute == nullptr || driver.getContext == nullptr || driver.setContext == nullptr) {
    return nullptr;
  }
  g_driver.store(&driver, std::memory_order_release);
  return &driver;
}

}  // namespace

int32_t gpuOfAddress(const void* address) noexcept {
  const Driver* driver = address == nullptr ? nullptr : findDriver();
  int ordinal = -1;
  if (driver == nullptr || driver->attribute(&ordinal, kDeviceOrdinal,
                                             reinterpret_cast<unsigned long long>(address)) != 0) {
    return -1;
  }
  return ordinal;
}

void setGpuOfLogical(GpuOfLogical function) noexcept {
  g_of_logical.store(function, std::memory_order_release);
}

int32_t gpuOfTensor(const void* address, int32_t logical) noexcept {
  int32_t ordinal = -1;
  if (address != nullptr) {
    ordinal = gpuOfAddress(address);
  } else if (const GpuOfLogical function = g_of_logical.load(std::memory_order_acquire)) {
    ordinal = function(logical);
  }
  return ordinal < 0 ? logical : ordinal;
}

KeptGpu::KeptGpu() noexcept {
  const Driver* driver = findDriver();
  known_ = driver != nullptr && driver->getContext(&context_) == 0;
}

KeptGpu::~KeptGpu() {
  if (!known_) return;
  const Driver* driver = findDriver();
  void* context = nullptr;
  if (driver->getContext(&context) == 0 && context != context_) driver->setContext(context_);
}

}  // namespace tensor_bridge
