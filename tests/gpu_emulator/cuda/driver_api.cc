// libcuda.so.1: the driver's functions over the emulated device. They have plain types instead of
// those of cuda.h, whose macros rename functions by version; here each version is spelled out.
// stubs.py writes stubs for the missing functions.
#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "cuda/properties.h"
#include "device/call_log.h"
#include "device/copy.h"
#include "device/event.h"
#include "device/graph.h"
#include "device/memory.h"
#include "device/stream.h"
#include "device/violations.h"

namespace {

using namespace gpu_emulator;  // NOLINT: this file only calls the namespace's functions

using Result = int;
using Device = int;
using DevicePtr = unsigned long long;

// A context is the address of its device's byte in this array.
char g_contexts[kMaxDevices];
void* contextOf(int device) { return &g_contexts[device]; }
int deviceOf(const void* context) {
  return context == nullptr ? 0 : static_cast<int>(static_cast<const char*>(context) - g_contexts);
}
thread_local std::vector<int> t_pushed;
thread_local bool t_no_context = false;

/// Answers a call that succeeds.
template <typename T, typename Value>
Result give(T* place, Value value) {
  *place = static_cast<T>(value);
  return kSuccess;
}

Event* eventOf(void* event) { return static_cast<Event*>(event); }
void* pointerOf(DevicePtr pointer) { return reinterpret_cast<void*>(pointer); }

/// CUdevice_attribute. Attributes that are not listed are 0: the device does not have virtual
/// memory management, pools, managed memory and so on.
int attribute(int which, int device) {
  constexpr int kPciBusId = 33;
  if (which == kPciBusId) return device + 1;
  static constexpr std::pair<int, int> kValues[] = {
      {1, kMaxThreadsPerBlock},              // MAX_THREADS_PER_BLOCK
      {2, kMaxThreadsPerBlock},              // MAX_BLOCK_DIM_X
      {3, kMaxThreadsPerBlock},              // MAX_BLOCK_DIM_Y
      {4, kMaxBlockZ},                       // MAX_BLOCK_DIM_Z
      {5, kMaxGridX},                        // MAX_GRID_DIM_X
      {6, kMaxGridYZ},                       // MAX_GRID_DIM_Y
      {7, kMaxGridYZ},                       // MAX_GRID_DIM_Z
      {8, kSharedMemoryPerBlock},            // MAX_SHARED_MEMORY_PER_BLOCK
      {9, kConstantMemory},                  // TOTAL_CONSTANT_MEMORY
      {10, kWarpSize},                       // WARP_SIZE
      {11, kMaxGridX},                       // MAX_PITCH
      {12, kRegisters},                      // MAX_REGISTERS_PER_BLOCK
      {13, kClockKhz},                       // CLOCK_RATE
      {14, kTextureAlignment},               // TEXTURE_ALIGNMENT
      {15, 1},                               // GPU_OVERLAP
      {16, kMultiprocessors},                // MULTIPROCESSOR_COUNT
      {19, 1},                               // CAN_MAP_HOST_MEMORY
      {31, 1},                               // CONCURRENT_KERNELS
      {36, kClockKhz},                       // MEMORY_CLOCK_RATE
      {37, kMemoryBusWidth},                 // GLOBAL_MEMORY_BUS_WIDTH
      {38, kL2Cache},                        // L2_CACHE_SIZE
      {39, kMaxThreadsPerMultiprocessor},    // MAX_THREADS_PER_MULTIPROCESSOR
      {40, kCopyEngines},                    // ASYNC_ENGINE_COUNT
      {41, 1},                               // UNIFIED_ADDRESSING
      {75, kMajor},                          // COMPUTE_CAPABILITY_MAJOR
      {76, kMinor},                          // COMPUTE_CAPABILITY_MINOR
      {81, kSharedMemoryPerMultiprocessor},  // MAX_SHARED_MEMORY_PER_MULTIPROCESSOR
      {82, kRegisters},                      // MAX_REGISTERS_PER_MULTIPROCESSOR
      {97, kSharedMemoryPerBlockOptin},      // MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
      {106, kMaxBlocksPerMultiprocessor},    // MAX_BLOCKS_PER_MULTIPROCESSOR
  };
  for (const auto& [number, value] : kValues) {
    if (number == which) return value;
  }
  return 0;
}

Result copyLogged(const char* call, void* to, const void* from, size_t size, void* handle,
                  CopyCall how) {
  Stream* stream = streamOf(handle);
  logCall(call, stream, "%p <- %p %zu", to, from, size);
  return copy(to, from, size, stream, how);
}

}  // namespace

extern "C" {

// ---- Devices and contexts --------------------------------------------------------------------

EMU_EXPORT Result cuInit(unsigned) { return deviceCount() == 0 ? kNoDevice : kSuccess; }
EMU_EXPORT Result cuDriverGetVersion(int* version) { return give(version, kDriverVersion); }
EMU_EXPORT Result cuDeviceGetCount(int* count) { return give(count, deviceCount()); }
EMU_EXPORT Result cuDeviceGet(Device* device, int ordinal) {
  *device = ordinal;
  return ordinal < deviceCount() ? kSuccess : kInvalidDevice;
}
EMU_EXPORT Result cuDeviceGetName(char* name, int size, Device) {
  snprintf(name, static_cast<size_t>(size), "%s", kDeviceName);
  return kSuccess;
}
EMU_EXPORT Result cuDeviceGetUuid_v2(void* uuid, Device device) {
  memset(uuid, kUuidByte, 16);
  static_cast<char*>(uuid)[15] = static_cast<char>(device);
  return kSuccess;
}
EMU_EXPORT Result cuDeviceGetUuid(void* uuid, Device device) {
  return cuDeviceGetUuid_v2(uuid, device);
}
EMU_EXPORT Result cuDeviceTotalMem_v2(size_t* bytes, Device) { return give(bytes, totalMemory()); }
EMU_EXPORT Result cuDeviceGetAttribute(int* value, int which, Device device) {
  return give(value, attribute(which, device));
}
EMU_EXPORT Result cuDeviceComputeCapability(int* major, int* minor, Device) {
  *major = kMajor;
  *minor = kMinor;
  return kSuccess;
}
EMU_EXPORT Result cuDeviceGetPCIBusId(char* id, int size, Device device) {
  printPciBusId(id, size, device);
  return kSuccess;
}
EMU_EXPORT Result cuDeviceCanAccessPeer(int* can, Device device, Device peer) {
  return give(can, device != peer);
}
EMU_EXPORT Result cuDevicePrimaryCtxRetain(void** context, Device device) {
  return give(context, contextOf(device));
}
EMU_EXPORT Result cuDevicePrimaryCtxRelease_v2(Device) { return kSuccess; }
EMU_EXPORT Result cuDevicePrimaryCtxSetFlags_v2(Device, unsigned) { return kSuccess; }
EMU_EXPORT Result cuDevicePrimaryCtxGetState(Device, unsigned* flags, int* active) {
  *flags = 0;
  *active = 1;
  return kSuccess;
}
EMU_EXPORT Result cuDevicePrimaryCtxReset_v2(Device) { return kSuccess; }
EMU_EXPORT Result cuCtxCreate_v2(void** context, unsigned, Device device) {
  return give(context, contextOf(device));
}
EMU_EXPORT Result cuCtxDestroy_v2(void*) { return kSuccess; }
EMU_EXPORT Result cuCtxGetCurrent(void** context) {
  return give(context, t_no_context ? nullptr : contextOf(currentDevice()));
}
EMU_EXPORT Result cuCtxSetCurrent(void* context) {
  t_no_context = context == nullptr;
  return t_no_context ? kSuccess : setCurrentDevice(deviceOf(context));
}
EMU_EXPORT Result cuCtxPushCurrent_v2(void* context) {
  t_pushed.push_back(currentDevice());
  return setCurrentDevice(deviceOf(context));
}
EMU_EXPORT Result cuCtxPopCurrent_v2(void** context) {
  if (context != nullptr) *context = contextOf(currentDevice());
  if (t_pushed.empty()) return kSuccess;
  setCurrentDevice(t_pushed.back());
  t_pushed.pop_back();
  return kSuccess;
}
EMU_EXPORT Result cuCtxGetDevice(Device* device) { return give(device, currentDevice()); }
EMU_EXPORT Result cuCtxGetId(void* context, unsigned long long* id) {
  const int device = context == nullptr ? currentDevice() : deviceOf(context);
  *id = static_cast<unsigned long long>(device) + 1;
  return kSuccess;
}
EMU_EXPORT Result cuCtxGetFlags(unsigned* flags) { return give(flags, 0); }
EMU_EXPORT Result cuCtxGetApiVersion(void*, unsigned* version) { return give(version, 12000); }
EMU_EXPORT Result cuCtxSynchronize() {
  logCall("cuCtxSynchronize", nullptr, "device %d", currentDevice());
  return synchronizeDevice(currentDevice());
}
EMU_EXPORT Result cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  if (least != nullptr) *least = kLeastPriority;
  if (greatest != nullptr) *greatest = kGreatestPriority;
  return kSuccess;
}
EMU_EXPORT Result cuCtxSetCacheConfig(int) { return kSuccess; }
EMU_EXPORT Result cuCtxEnablePeerAccess(void*, unsigned) { return kSuccess; }
EMU_EXPORT Result cuCtxGetLimit(size_t* value, int) { return give(value, 1024); }
EMU_EXPORT Result cuCtxSetLimit(int, size_t) { return kSuccess; }

// ---- Memory ----------------------------------------------------------------------------------

EMU_EXPORT Result cuMemGetInfo_v2(size_t* free, size_t* total) {
  *total = totalMemory();
  *free = freeMemory(currentDevice());
  return kSuccess;
}
EMU_EXPORT Result cuMemAlloc_v2(DevicePtr* pointer, size_t size) {
  void* memory = nullptr;
  const Error error = allocateDevice(currentDevice(), size, &memory);
  logCall("cuMemAlloc", nullptr, "%zu -> %p", size, memory);
  *pointer = reinterpret_cast<DevicePtr>(memory);
  return error;
}
EMU_EXPORT Result cuMemFree_v2(DevicePtr pointer) {
  logCall("cuMemFree", nullptr, "%p", pointerOf(pointer));
  return freeDevice(pointerOf(pointer));
}
EMU_EXPORT Result cuMemHostAlloc(void** pointer, size_t size, unsigned) {
  return allocatePinned(size, pointer);
}
EMU_EXPORT Result cuMemAllocHost_v2(void** pointer, size_t size) {
  return allocatePinned(size, pointer);
}
EMU_EXPORT Result cuMemFreeHost(void* pointer) { return freePinned(pointer); }
EMU_EXPORT Result cuMemHostRegister_v2(void* pointer, size_t size, unsigned) {
  return registerPinned(pointer, size);
}
EMU_EXPORT Result cuMemHostUnregister(void* pointer) { return unregisterPinned(pointer); }
EMU_EXPORT Result cuMemHostGetDevicePointer_v2(DevicePtr* device, void* pointer, unsigned) {
  return give(device, reinterpret_cast<DevicePtr>(pointer));
}
EMU_EXPORT Result cuMemGetAddressRange_v2(DevicePtr* base, size_t* size, DevicePtr pointer) {
  const Allocation found = allocationOf(pointerOf(pointer));
  if (found.kind == MemoryKind::kPageable) return kInvalidValue;
  if (base != nullptr) *base = found.base;
  if (size != nullptr) *size = found.size;
  return kSuccess;
}
EMU_EXPORT Result cuPointerGetAttribute(void* out, int which, DevicePtr pointer) {
  const Allocation found = allocationOf(pointerOf(pointer));
  const bool on_device = found.kind == MemoryKind::kDevice;
  if (found.kind == MemoryKind::kPageable) return kInvalidValue;
  switch (which) {  // CUpointer_attribute
    case 1:         // CONTEXT
      *static_cast<void**>(out) = contextOf(found.device);
      return kSuccess;
    case 2:  // MEMORY_TYPE
      *static_cast<unsigned*>(out) = on_device ? 2 : 1;
      return kSuccess;
    case 3:  // DEVICE_POINTER
      *static_cast<DevicePtr*>(out) = pointer;
      return kSuccess;
    case 4:  // HOST_POINTER
      *static_cast<void**>(out) = on_device ? nullptr : pointerOf(pointer);
      return kSuccess;
    case 7:  // BUFFER_ID
      *static_cast<unsigned long long*>(out) = found.base;
      return kSuccess;
    case 8:  // IS_MANAGED
      *static_cast<unsigned*>(out) = 0;
      return kSuccess;
    case 9:  // DEVICE_ORDINAL
      *static_cast<int*>(out) = found.device;
      return kSuccess;
    case 11:  // RANGE_START_ADDR
      *static_cast<DevicePtr*>(out) = found.base;
      return kSuccess;
    case 12:  // RANGE_SIZE
      *static_cast<size_t*>(out) = found.size;
      return kSuccess;
    default:
      return kInvalidValue;
  }
}
EMU_EXPORT Result cuMemcpyHtoDAsync_v2(DevicePtr to, const void* from, size_t size, void* stream) {
  return copyLogged("cuMemcpyHtoDAsync", pointerOf(to), from, size, stream,
                    CopyCall::kAsynchronous);
}
EMU_EXPORT Result cuMemcpyDtoHAsync_v2(void* to, DevicePtr from, size_t size, void* stream) {
  return copyLogged("cuMemcpyDtoHAsync", to, pointerOf(from), size, stream,
                    CopyCall::kAsynchronous);
}
EMU_EXPORT Result cuMemcpyDtoDAsync_v2(DevicePtr to, DevicePtr from, size_t size, void* stream) {
  return copyLogged("cuMemcpyDtoDAsync", pointerOf(to), pointerOf(from), size, stream,
                    CopyCall::kAsynchronous);
}
EMU_EXPORT Result cuMemcpyAsync(DevicePtr to, DevicePtr from, size_t size, void* stream) {
  return copyLogged("cuMemcpyAsync", pointerOf(to), pointerOf(from), size, stream,
                    CopyCall::kAsynchronous);
}
EMU_EXPORT Result cuMemcpyPeerAsync(DevicePtr to, void*, DevicePtr from, void*, size_t size,
                                    void* stream) {
  return copyLogged("cuMemcpyPeerAsync", pointerOf(to), pointerOf(from), size, stream,
                    CopyCall::kAsynchronous);
}
EMU_EXPORT Result cuMemcpyHtoD_v2(DevicePtr to, const void* from, size_t size) {
  return copyLogged("cuMemcpyHtoD", pointerOf(to), from, size, nullptr, CopyCall::kBlocking);
}
EMU_EXPORT Result cuMemcpyDtoH_v2(void* to, DevicePtr from, size_t size) {
  return copyLogged("cuMemcpyDtoH", to, pointerOf(from), size, nullptr, CopyCall::kBlocking);
}
EMU_EXPORT Result cuMemcpyDtoD_v2(DevicePtr to, DevicePtr from, size_t size) {
  return copyLogged("cuMemcpyDtoD", pointerOf(to), pointerOf(from), size, nullptr,
                    CopyCall::kBlocking);
}
EMU_EXPORT Result cuMemsetD8Async(DevicePtr to, unsigned char value, size_t count, void* stream) {
  return fill(pointerOf(to), value, 1, count, streamOf(stream));
}
EMU_EXPORT Result cuMemsetD16Async(DevicePtr to, unsigned short value, size_t count, void* stream) {
  return fill(pointerOf(to), value, 2, count, streamOf(stream));
}
EMU_EXPORT Result cuMemsetD32Async(DevicePtr to, unsigned value, size_t count, void* stream) {
  return fill(pointerOf(to), value, 4, count, streamOf(stream));
}
EMU_EXPORT Result cuMemsetD8_v2(DevicePtr to, unsigned char value, size_t count) {
  return fill(pointerOf(to), value, 1, count, streamOf(nullptr));
}
EMU_EXPORT Result cuMemsetD32_v2(DevicePtr to, unsigned value, size_t count) {
  return fill(pointerOf(to), value, 4, count, streamOf(nullptr));
}

// ---- Streams and events ----------------------------------------------------------------------

EMU_EXPORT Result cuStreamCreateWithPriority(void** stream, unsigned flags, int priority) {
  constexpr unsigned kNonBlocking = 1;
  Stream* made = createStream((flags & kNonBlocking) != 0, priority);
  logCall("cuStreamCreate", made, "flags %u priority %d", flags, priority);
  *stream = made;
  return kSuccess;
}
EMU_EXPORT Result cuStreamCreate(void** stream, unsigned flags) {
  return cuStreamCreateWithPriority(stream, flags, 0);
}
EMU_EXPORT Result cuStreamDestroy_v2(void*) { return kSuccess; }
EMU_EXPORT Result cuStreamQuery(void* stream) { return queryStream(streamOf(stream)); }
EMU_EXPORT Result cuStreamSynchronize(void* stream) {
  logCall("cuStreamSynchronize", streamOf(stream), "%s", "");
  return synchronizeStream(streamOf(stream));
}
EMU_EXPORT Result cuStreamWaitEvent(void* stream, void* event, unsigned) {
  logCall("cuStreamWaitEvent", streamOf(stream), "event %p", event);
  return waitForEvent(streamOf(stream), eventOf(event));
}
EMU_EXPORT Result cuStreamGetCtx(void* stream, void** context) {
  return give(context, contextOf(streamOf(stream)->device));
}
EMU_EXPORT Result cuStreamGetPriority(void* stream, int* priority) {
  return give(priority, streamOf(stream)->priority);
}
EMU_EXPORT Result cuStreamGetFlags(void* stream, unsigned* flags) {
  return give(flags, streamOf(stream)->non_blocking ? 1 : 0);
}
EMU_EXPORT Result cuStreamGetId(void* stream, unsigned long long* id) {
  return give(id, static_cast<unsigned long long>(streamOf(stream)->id));
}
EMU_EXPORT Result cuStreamIsCapturing(void* stream, int* status) {
  const CaptureState capture = captureOf(streamOf(stream));
  *status = capture.id == 0 ? 0 : capture.invalid ? 2 : 1;
  return kSuccess;
}
EMU_EXPORT Result cuStreamGetCaptureInfo_v2(void* stream, int* status, unsigned long long* id,
                                            void** graph, const void** dependencies,
                                            size_t* count) {
  const CaptureState capture = captureOf(streamOf(stream));
  if (id != nullptr) *id = capture.id;
  if (graph != nullptr) *graph = capture.graph;
  if (dependencies != nullptr) *dependencies = nullptr;
  if (count != nullptr) *count = 0;
  return cuStreamIsCapturing(stream, status);
}
EMU_EXPORT Result cuThreadExchangeStreamCaptureMode(int* mode) {
  return give(mode, static_cast<int>(exchangeCaptureMode(static_cast<CaptureMode>(*mode))));
}
EMU_EXPORT Result cuEventCreate(void** event, unsigned) { return give(event, new Event); }
EMU_EXPORT Result cuEventDestroy_v2(void* event) {
  delete eventOf(event);
  return kSuccess;
}
EMU_EXPORT Result cuEventRecord(void* event, void* stream) {
  logCall("cuEventRecord", streamOf(stream), "event %p", event);
  return recordEvent(eventOf(event), streamOf(stream));
}
EMU_EXPORT Result cuEventRecordWithFlags(void* event, void* stream, unsigned) {
  return cuEventRecord(event, stream);
}
// Only TensorFlow calls the driver itself; torch and tensor_bridge call the runtime.
EMU_EXPORT Result cuEventQuery(void* event) { return queryEvent(eventOf(event), Asker::kPoller); }
EMU_EXPORT Result cuEventSynchronize(void* event) {
  logCall("cuEventSynchronize", nullptr, "event %p", event);
  return synchronizeEvent(eventOf(event));
}
EMU_EXPORT Result cuEventElapsedTime(float* milliseconds, void* start, void* end) {
  return give(milliseconds, millisecondsBetween(eventOf(start), eventOf(end)));
}
EMU_EXPORT Result cuEventElapsedTime_v2(float* milliseconds, void* start, void* end) {
  return cuEventElapsedTime(milliseconds, start, end);
}
EMU_EXPORT Result cuLaunchHostFunc(void* stream, void (*function)(void*), void* data) {
  logCall("cuLaunchHostFunc", streamOf(stream), "%s", "");
  return enqueue(streamOf(stream), {"host function", {}, {}, [=] { function(data); }});
}
EMU_EXPORT Result cuStreamAddCallback(void* stream, void (*callback)(void*, int, void*), void* data,
                                      unsigned) {
  logCall("cuStreamAddCallback", streamOf(stream), "%s", "");
  return enqueue(streamOf(stream), {"callback", {}, {}, [=] { callback(stream, kSuccess, data); }});
}

// ---- Modules and kernels: a function is its name
// -------------------------------------------------

EMU_EXPORT Result cuModuleLoadData(void** module, const void*) {
  static char any;
  *module = &any;
  return kSuccess;
}
EMU_EXPORT Result cuModuleLoadDataEx(void** module, const void* image, unsigned, void*, void*) {
  return cuModuleLoadData(module, image);
}
EMU_EXPORT Result cuModuleLoadFatBinary(void** module, const void* image) {
  return cuModuleLoadData(module, image);
}
EMU_EXPORT Result cuModuleUnload(void*) { return kSuccess; }
EMU_EXPORT Result cuModuleGetFunction(void** function, void*, const char* name) {
  *function = strdup(name);  // kept, as a module is never unloaded
  return kSuccess;
}
EMU_EXPORT Result cuFuncGetAttribute(int* value, int, void*) {
  return give(value, kRegistersPerThread);
}
EMU_EXPORT Result cuFuncSetAttribute(void*, int, int) { return kSuccess; }
EMU_EXPORT Result cuFuncSetCacheConfig(void*, int) { return kSuccess; }
EMU_EXPORT Result cuLaunchKernel(void* function, unsigned, unsigned, unsigned, unsigned, unsigned,
                                 unsigned, unsigned, void* stream, void**, void**) {
  const auto* name = static_cast<const char*>(function);
  logCall("kernel", streamOf(stream), "%s", name);
  missingKernel(name);
  return enqueue(streamOf(stream), {std::string("kernel ") + name});
}
EMU_EXPORT Result cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void*, int, size_t) {
  return give(blocks, kOccupancy);
}
EMU_EXPORT Result cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, void*, int,
                                                                       size_t, unsigned) {
  return give(blocks, kOccupancy);
}
EMU_EXPORT Result cuOccupancyMaxPotentialBlockSize(int* grid, int* block, void*, void*, size_t,
                                                   int) {
  *grid = kMultiprocessors;
  *block = 256;
  return kSuccess;
}

EMU_EXPORT Result cuGetErrorName(int error, const char** name) {
  switch (error) {
    case kSuccess:
      *name = "CUDA_SUCCESS";
      break;
    case kOutOfMemory:
      *name = "CUDA_ERROR_OUT_OF_MEMORY";
      break;
    case kNotReady:
      *name = "CUDA_ERROR_NOT_READY";
      break;
    case kUnsupported:
      *name = "CUDA_ERROR_NOT_SUPPORTED";
      break;
    default:
      *name = "an error of the emulated device";
  }
  return kSuccess;
}
EMU_EXPORT Result cuGetErrorString(int error, const char** text) {
  return cuGetErrorName(error, text);
}
EMU_EXPORT Result cuGetProcAddress_v2(const char* symbol, void** function, int, unsigned long long,
                                      int* status) {
  static void* const self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  *function = nullptr;
  for (const char* version : {"_v3", "_v2", ""}) {
    if (*function == nullptr) *function = dlsym(self, (std::string(symbol) + version).c_str());
  }
  const bool found = *function != nullptr;
  if (status != nullptr) *status = found ? 0 : 1;
  return found ? kSuccess : kNotFound;
}
EMU_EXPORT Result cuGetProcAddress(const char* symbol, void** function, int version,
                                   unsigned long long flags) {
  return cuGetProcAddress_v2(symbol, function, version, flags, nullptr);
}

}  // extern "C"
