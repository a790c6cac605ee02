#include "device/memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <vector>

#include "device/graph.h"
#include "device/race_detector.h"
#include "device/settings.h"
#include "device/stream.h"

namespace gpu_emulator {
namespace {

// The addresses of device d begin at kFirstAddress + d * kSpace. Linux maps nothing there by
// itself.
constexpr uintptr_t kFirstAddress = 0x200000000000;
constexpr uintptr_t kSpace = 0x4000000000;
constexpr uintptr_t kShadowOffset = 0x080000000000;
constexpr uintptr_t kGap = uintptr_t{1} << 21;  // between allocations
constexpr size_t kAlignment = 512;
constexpr int kFiller = 0xCB;
constexpr size_t kMaxFilled = size_t{64} << 20;  // filling more takes too long

uintptr_t address(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }
void* pointerTo(uintptr_t at) { return reinterpret_cast<void*>(at); }

template <typename T>
T roundUp(T value, T unit) {
  return (value + unit - 1) / unit * unit;
}

[[noreturn]] void fail(const char* what) {
  fprintf(stderr, "emulated device: %s: %s\n", what, strerror(errno));
  abort();
}

struct DeviceMemory {
  int file;
  uintptr_t base, next;
  size_t used = 0;

  explicit DeviceMemory(int device)
      : file(memfd_create("emulated-device", MFD_CLOEXEC)),
        base(kFirstAddress + static_cast<uintptr_t>(device) * kSpace),
        next(base + kGap) {
    if (file < 0 || ftruncate(file, kSpace) != 0) fail("a file in memory");
    map(base, PROT_NONE);
    map(base + kShadowOffset, PROT_READ | PROT_WRITE);
  }

  void map(uintptr_t at, int protection) const {
    constexpr int kFlags = MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
    if (mmap(pointerTo(at), kSpace, protection, kFlags, file, 0) == MAP_FAILED) fail("mmap");
  }
};

struct Memory {
  std::vector<DeviceMemory> devices;
  std::map<uintptr_t, Allocation> allocations;
  Memory() {
    for (int device = 0; device < settings().devices; ++device) devices.emplace_back(device);
  }
};

Memory& memory() {
  static auto* const made = new Memory;
  return *made;
}

thread_local int t_device = 0;

void addPinned(void* pointer, size_t size) {
  const Lock lock(deviceMutex());
  memory().allocations[address(pointer)] = {MemoryKind::kPinned, t_device, address(pointer), size};
}

Error removePinned(void* pointer) {
  const Lock lock(deviceMutex());
  auto& allocations = memory().allocations;
  auto it = allocations.find(address(pointer));
  if (it == allocations.end() || it->second.kind != MemoryKind::kPinned) return kInvalidValue;
  allocations.erase(it);
  return kSuccess;
}

}  // namespace

int deviceCount() { return settings().devices; }

int currentDevice() { return t_device; }

Error setCurrentDevice(int device) {
  if (device < 0 || device >= deviceCount()) return kInvalidDevice;
  t_device = device;
  return kSuccess;
}

size_t totalMemory() { return settings().memory; }

size_t freeMemory(int device) {
  const Lock lock(deviceMutex());
  return settings().memory - memory().devices.at(static_cast<size_t>(device)).used;
}

Error allocateDevice(int device, size_t size, void** pointer) {
  *pointer = nullptr;
  const Lock lock(deviceMutex());
  if (const Error error = unsafeCallLocked("an allocation")) return error;
  DeviceMemory& on = memory().devices.at(static_cast<size_t>(device));
  size = std::max(roundUp(size, kAlignment), kAlignment);
  const uintptr_t at = on.next;
  const uintptr_t next = roundUp(at + size + 1, kGap);
  if (on.used + size > settings().memory || next > on.base + kSpace) return kOutOfMemory;
  on.next = next;
  on.used += size;
  memory().allocations[at] = {MemoryKind::kDevice, device, at, size};
  *pointer = pointerTo(at);
  if (size <= kMaxFilled) memset(shadow(*pointer), kFiller, size);
  return kSuccess;
}

Error freeDevice(void* pointer) {
  if (pointer == nullptr) return kSuccess;
  Lock lock(deviceMutex());
  if (const Error error = unsafeCallLocked("cudaFree")) return error;
  const Allocation found = allocationOfLocked(pointer);
  if (found.kind != MemoryKind::kDevice || found.base != address(pointer)) return kInvalidValue;
  waitForDeviceLocked(lock, found.device, "cudaFree");
  forgetRangeLocked({pointer, found.size});
  memory().allocations.erase(found.base);
  DeviceMemory& on = memory().devices.at(static_cast<size_t>(found.device));
  on.used -= found.size;
  fallocate(on.file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
            static_cast<off_t>(found.base - on.base), static_cast<off_t>(found.size));
  return kSuccess;
}

Error allocatePinned(size_t size, void** pointer) {
  constexpr size_t kPage = 4096;
  *pointer = nullptr;
  {
    const Lock lock(deviceMutex());
    if (const Error error = unsafeCallLocked("an allocation of pinned memory")) return error;
  }
  size = std::max<size_t>(size, 1);
  if (posix_memalign(pointer, kPage, size) != 0) return kOutOfMemory;
  addPinned(*pointer, size);
  return kSuccess;
}

Error freePinned(void* pointer) {
  if (pointer == nullptr) return kSuccess;
  if (const Error error = removePinned(pointer)) return error;
  free(pointer);
  return kSuccess;
}

Error registerPinned(void* pointer, size_t size) {
  addPinned(pointer, size);
  return kSuccess;
}

Error unregisterPinned(void* pointer) { return removePinned(pointer); }

Allocation allocationOf(const void* pointer) {
  const Lock lock(deviceMutex());
  return allocationOfLocked(pointer);
}

Allocation allocationOfLocked(const void* pointer) {
  const auto& allocations = memory().allocations;
  auto it = allocations.upper_bound(address(pointer));
  if (it == allocations.begin()) return {};
  const Allocation& found = std::prev(it)->second;
  return address(pointer) < found.base + found.size ? found : Allocation{};
}

bool isDeviceAddress(const void* pointer) {
  return address(pointer) >= kFirstAddress &&
         address(pointer) < kFirstAddress + kMaxDevices * kSpace;
}

void* shadow(const void* pointer) {
  return isDeviceAddress(pointer) ? pointerTo(address(pointer) + kShadowOffset)
                                  : const_cast<void*>(pointer);
}

}  // namespace gpu_emulator
