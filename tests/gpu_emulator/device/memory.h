// The memory of the emulated devices, and pinned memory of the host. Not for: copies (copy.h).
//
// Note [Two mappings]
// The memory of a device is a file in memory, mapped twice. The mapping at the device addresses can
// be neither read nor written, so that host code that accesses it ends with SIGSEGV, as on a GPU.
// The work of streams uses the second mapping, the shadow. Addresses are never used twice, and new
// memory is filled, so that a read of freed or unwritten memory does not find the right values by
// chance.
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

/// An allocation. For pageable memory only the kind is known.
struct Allocation {
  MemoryKind kind = MemoryKind::kPageable;
  int device = 0;
  uintptr_t base = 0;
  size_t size = 0;
};

/// *pointer is null if the device has no room, or if a capture of the thread forbids allocations.
EMU_EXPORT Error allocateDevice(int device, size_t size, void** pointer);
/// Waits for all work of the device, like cudaFree. Null is not an error.
EMU_EXPORT Error freeDevice(void* pointer);
EMU_EXPORT Error allocatePinned(size_t size, void** pointer);
EMU_EXPORT Error freePinned(void* pointer);
/// Pins memory of the caller until it is unregistered.
EMU_EXPORT Error registerPinned(void* pointer, size_t size);
EMU_EXPORT Error unregisterPinned(void* pointer);

/// The allocation that contains an address.
EMU_EXPORT Allocation allocationOf(const void* pointer);
Allocation allocationOfLocked(const void* pointer);
/// The address of the same byte for emulated work: see Note [Two mappings]. A host address is
/// returned unchanged.
EMU_EXPORT void* shadow(const void* pointer);
bool isDeviceAddress(const void* pointer);

}  // namespace gpu_emulator

#endif  // TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_MEMORY_H_
