// The memory of the emulated devices, and pinned memory of the host. Not for: moving bytes, which
// is copy.h.
//
// Note [Two mappings]
// The memory of a device is a file in memory, mapped twice. At its device addresses nothing can be
// read or written, so that host code which touches them ends with SIGSEGV, as on a GPU. The work of
// streams uses the second mapping, the shadow. Addresses are never used twice, and new memory is
// filled: what reads freed or unwritten memory does not find what it wants by chance.
#ifndef TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_MEMORY_H_
#define TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_MEMORY_H_

#include <cstddef>
#include <cstdint>

#include "device/errors.h"

namespace gpu_emulator {

constexpr int kMaxDevices = 8;

EMU_EXPORT int deviceCount();
EMU_EXPORT int currentDevice();
EMU_EXPORT Error setCurrentDevice(int device);
EMU_EXPORT size_t totalMemory();
EMU_EXPORT size_t freeMemory(int device);

enum class MemoryKind { kPageable, kDevice, kPinned };

/// An allocation. Of pageable memory nothing is known.
struct Allocation {
  MemoryKind kind = MemoryKind::kPageable;
  int device = 0;
  uintptr_t base = 0;
  size_t size = 0;
};

/// Null if the device has no room, or if a capture of the thread forbids it.
EMU_EXPORT Error allocateDevice(int device, size_t size, void** pointer);
/// Waits for all that is queued on the device, as cudaFree does. Null is no error.
EMU_EXPORT Error freeDevice(void* pointer);
EMU_EXPORT Error allocatePinned(size_t size, void** pointer);
EMU_EXPORT Error freePinned(void* pointer);
/// Memory of the caller's, pinned until it is unregistered.
EMU_EXPORT Error registerPinned(void* pointer, size_t size);
EMU_EXPORT Error unregisterPinned(void* pointer);

/// The allocation that an address lies in.
EMU_EXPORT Allocation allocationOf(const void* pointer);
Allocation allocationOfLocked(const void* pointer);
/// Where emulated work reaches what is at the address: see Note [Two mappings]. An address of the
/// host is returned as it is.
EMU_EXPORT void* shadow(const void* pointer);
bool isDeviceAddress(const void* pointer);

}  // namespace gpu_emulator

#endif  // TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_MEMORY_H_
