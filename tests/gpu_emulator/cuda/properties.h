// The properties of the emulated device, the same for driver and runtime. They are those of a large
// GPU of compute capability 9.0, so that the frameworks accept it, but with few multiprocessors.
#ifndef TENSOR_BRIDGE_GPU_EMULATOR_CUDA_PROPERTIES_H_
#define TENSOR_BRIDGE_GPU_EMULATOR_CUDA_PROPERTIES_H_

#include <cstddef>
#include <cstdio>

namespace gpu_emulator {

constexpr const char* kDeviceName = "Emulated device (host memory, not a GPU)";
constexpr int kUuidByte = 0x5E;  // all but the last, which is the ordinal
constexpr int kDriverVersion = 13000;
constexpr int kMajor = 9;
constexpr int kMinor = 0;
constexpr int kMultiprocessors = 8;
constexpr int kWarpSize = 32;
constexpr int kMaxThreadsPerBlock = 1024;
constexpr int kMaxBlockZ = 64;
constexpr int kMaxGridX = 2147483647;
constexpr int kMaxGridYZ = 65535;
constexpr int kSharedMemoryPerBlock = 49152;
constexpr int kSharedMemoryPerBlockOptin = 232448;
constexpr int kSharedMemoryPerMultiprocessor = 233472;
constexpr int kConstantMemory = 65536;
constexpr int kRegisters = 65536;
constexpr int kRegistersPerThread = 32;
constexpr int kMaxThreadsPerMultiprocessor = 2048;
constexpr int kMaxBlocksPerMultiprocessor = 32;
constexpr int kOccupancy = 2;  // blocks of any kernel on a multiprocessor
constexpr int kL2Cache = 50 << 20;
constexpr int kMemoryBusWidth = 5120;
constexpr int kClockKhz = 1500000;
constexpr int kTextureAlignment = 512;
constexpr int kCopyEngines = 3;
constexpr int kLeastPriority = 0;
constexpr int kGreatestPriority = -5;

inline void printPciBusId(char* id, int size, int device) {
  snprintf(id, static_cast<size_t>(size), "0000:%02x:00.0", device + 1);
}

}  // namespace gpu_emulator

#endif  // TENSOR_BRIDGE_GPU_EMULATOR_CUDA_PROPERTIES_H_
