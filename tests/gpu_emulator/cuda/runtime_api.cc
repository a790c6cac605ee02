// The CUDA runtime over the emulated device, compiled twice: as libcudart.so.13 for torch and as
// libcudart.so.12 for TensorFlow. The signatures are those of CUDA 13's cuda_runtime_api.h for
// both; only cudaDeviceProp differs. stubs.py writes stubs for the missing functions.
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "cuda/properties.h"
#include "device/call_log.h"
#include "device/copy.h"
#include "device/event.h"
#include "device/graph.h"
#include "device/memory.h"
#include "device/settings.h"
#include "device/stream.h"
#include "device/violations.h"

#undef cudaGetDeviceProperties

namespace {

using namespace gpu_emulator;  // NOLINT: this file only calls the namespace's functions

thread_local cudaError_t t_last_error = cudaSuccess;

/// The result as CUDA's type, kept for cudaGetLastError.
cudaError_t result(Error error) {
  const auto code = static_cast<cudaError_t>(error);
  if (error != kSuccess && error != kNotReady) t_last_error = code;
  return code;
}

/// Answers a call that succeeds.
template <typename T, typename Value>
cudaError_t give(T* place, Value value) {
  *place = static_cast<T>(value);
  return cudaSuccess;
}

Event* eventOf(cudaEvent_t event) { return reinterpret_cast<Event*>(event); }
Graph* graphOf(cudaGraph_t graph) { return reinterpret_cast<Graph*>(graph); }
Graph* graphOf(cudaGraphExec_t graph) { return reinterpret_cast<Graph*>(graph); }

/// The functions and variables that the frameworks' libraries register when they are loaded.
struct Registered {
  std::mutex mutex;
  std::map<const void*, const char*> kernels;
  struct Variable {
    size_t size = 0;
    void* memory = nullptr;
  };
  std::map<const void*, Variable> variables;
};

Registered& registered() {
  static auto* const made = new Registered;
  return *made;
}

const char* kernelName(const void* function) {
  const std::lock_guard<std::mutex> lock(registered().mutex);
  const auto it = registered().kernels.find(function);
  return it == registered().kernels.end() ? "?" : it->second;
}

/// torch.cuda._sleep: its argument counts cycles, here nanoseconds.
Error sleep(const void* argument, Stream* stream) {
  const auto cycles = static_cast<double>(*static_cast<const int64_t*>(argument));
  const std::chrono::duration<double> time(cycles * 1e-9 * settings().sleep_scale);
  logCall("sleep", stream, "%f s", time.count());
  return enqueue(stream, {"sleep", {}, {}, [=] { std::this_thread::sleep_for(time); }});
}

cudaError_t launch(const void* function, void** arguments, cudaStream_t handle) {
  const char* const name = kernelName(function);
  Stream* const stream = streamOf(handle);
  if (strstr(name, "spin_kernel") != nullptr) return result(sleep(arguments[0], stream));
  logCall("kernel", stream, "%s", name);
  missingKernel(name);
  return result(enqueue(stream, {std::string("kernel ") + name}));
}

struct LaunchConfiguration {
  dim3 grid, block;
  size_t shared_memory;
  cudaStream_t stream;
};
thread_local LaunchConfiguration t_configuration;

cudaError_t copyLogged(const char* call, void* to, const void* from, size_t size,
                       cudaStream_t handle, CopyCall how) {
  Stream* stream = streamOf(handle);
  logCall(call, stream, "%p <- %p %zu", to, from, size);
  return result(copy(to, from, size, stream, how));
}

}  // namespace

extern "C" {

// ---- Registration and launches
// -------------------------------------------------------------------

EMU_EXPORT void** __cudaRegisterFatBinary(void*) {
  static void* any;
  return &any;
}
EMU_EXPORT void __cudaRegisterFatBinaryEnd(void**) {}
EMU_EXPORT void __cudaUnregisterFatBinary(void**) {}
EMU_EXPORT char __cudaInitModule(void**) { return 1; }
EMU_EXPORT void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int,
                                       void*, void*, void*, void*, int*) {
  const std::lock_guard<std::mutex> lock(registered().mutex);
  registered().kernels[host] = name;
}
EMU_EXPORT void __cudaRegisterVar(void**, char* host, char*, const char*, int, size_t size, int,
                                  int) {
  const std::lock_guard<std::mutex> lock(registered().mutex);
  registered().variables[host] = {size, nullptr};
}
EMU_EXPORT void __cudaRegisterManagedVar(void**, void**, char*, const char*, int, size_t, int,
                                         int) {}
EMU_EXPORT void __cudaRegisterHostVar(void**, const char*, char*, size_t) {}
EMU_EXPORT cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  return give(kernel, reinterpret_cast<cudaKernel_t>(const_cast<void*>(function)));
}
EMU_EXPORT cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3, dim3, void** arguments, size_t,
                                          cudaStream_t stream) {
  return launch(kernel, arguments, stream);
}
EMU_EXPORT unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared_memory,
                                                void* stream) {
  t_configuration = {grid, block, shared_memory, static_cast<cudaStream_t>(stream)};
  return 0;
}
EMU_EXPORT cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared_memory,
                                                  void* stream) {
  *grid = t_configuration.grid;
  *block = t_configuration.block;
  *shared_memory = t_configuration.shared_memory;
  *static_cast<cudaStream_t*>(stream) = t_configuration.stream;
  return cudaSuccess;
}
EMU_EXPORT cudaError_t cudaLaunchKernel(const void* function, dim3, dim3, void** arguments, size_t,
                                        cudaStream_t stream) {
  return launch(function, arguments, stream);
}
EMU_EXPORT cudaError_t cudaLaunchCooperativeKernel(const void* function, dim3, dim3,
                                                   void** arguments, size_t, cudaStream_t stream) {
  return launch(function, arguments, stream);
}
EMU_EXPORT cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* configuration,
                                           const void* function, void** arguments) {
  return launch(function, arguments, configuration->stream);
}
EMU_EXPORT cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  *attributes = {};
  attributes->maxThreadsPerBlock = kMaxThreadsPerBlock;
  attributes->numRegs = kRegistersPerThread;
  attributes->ptxVersion = attributes->binaryVersion = kMajor * 10 + kMinor;
  attributes->maxDynamicSharedSizeBytes = kSharedMemoryPerBlock;
  return cudaSuccess;
}
EMU_EXPORT cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) {
  return cudaSuccess;
}
EMU_EXPORT cudaError_t cudaKernelSetAttributeForDevice(cudaKernel_t, cudaFuncAttribute, int, int) {
  return cudaSuccess;
}
EMU_EXPORT cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int,
                                                                     size_t) {
  return give(blocks, kOccupancy);
}
EMU_EXPORT cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks,
                                                                              const void*, int,
                                                                              size_t, unsigned) {
  return give(blocks, kOccupancy);
}
EMU_EXPORT cudaError_t cudaGetSymbolAddress(void** pointer, const void* symbol) {
  const std::lock_guard<std::mutex> lock(registered().mutex);
  Registered::Variable& variable = registered().variables[symbol];
  Error error = kSuccess;
  if (variable.memory == nullptr) {
    error = allocateDevice(currentDevice(), variable.size, &variable.memory);
  }
  *pointer = variable.memory;
  return result(error);
}
EMU_EXPORT cudaError_t cudaMemcpyToSymbol(const void* symbol, const void* from, size_t count,
                                          size_t offset, cudaMemcpyKind) {
  void* memory = nullptr;
  if (const cudaError_t error = cudaGetSymbolAddress(&memory, symbol)) return error;
  return copyLogged("cudaMemcpyToSymbol", static_cast<char*>(memory) + offset, from, count, nullptr,
                    CopyCall::kBlocking);
}

// ---- Devices
// -------------------------------------------------------------------------------------

EMU_EXPORT cudaError_t cudaGetDeviceCount(int* count) {
  *count = deviceCount();
  return result(*count == 0 ? kNoDevice : kSuccess);
}
EMU_EXPORT cudaError_t cudaGetDevice(int* device) { return give(device, currentDevice()); }
EMU_EXPORT cudaError_t cudaSetDevice(int device) { return result(setCurrentDevice(device)); }
EMU_EXPORT cudaError_t cudaDriverGetVersion(int* version) { return give(version, kDriverVersion); }
EMU_EXPORT cudaError_t cudaRuntimeGetVersion(int* version) {
  return give(version, EMU_RUNTIME_VERSION);
}
#if EMU_RUNTIME_VERSION >= 13000
EMU_EXPORT cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  *properties = {};
  cudaDeviceProp& p = *properties;
  snprintf(p.name, sizeof(p.name), "%s", kDeviceName);
  memset(p.uuid.bytes, kUuidByte, sizeof(p.uuid.bytes));
  p.uuid.bytes[sizeof(p.uuid.bytes) - 1] = static_cast<char>(device);
  p.totalGlobalMem = totalMemory();
  p.sharedMemPerBlock = kSharedMemoryPerBlock;
  p.sharedMemPerBlockOptin = kSharedMemoryPerBlockOptin;
  p.sharedMemPerMultiprocessor = kSharedMemoryPerMultiprocessor;
  p.regsPerBlock = p.regsPerMultiprocessor = kRegisters;
  p.warpSize = kWarpSize;
  p.maxThreadsPerBlock = p.maxThreadsDim[0] = p.maxThreadsDim[1] = kMaxThreadsPerBlock;
  p.maxThreadsDim[2] = kMaxBlockZ;
  p.maxGridSize[0] = kMaxGridX;
  p.maxGridSize[1] = p.maxGridSize[2] = kMaxGridYZ;
  p.maxThreadsPerMultiProcessor = kMaxThreadsPerMultiprocessor;
  p.multiProcessorCount = kMultiprocessors;
  p.major = kMajor;
  p.minor = kMinor;
  p.l2CacheSize = kL2Cache;
  p.memoryBusWidth = kMemoryBusWidth;
  p.pciBusID = device + 1;
  p.unifiedAddressing = p.concurrentKernels = p.canMapHostMemory = 1;
  p.asyncEngineCount = kCopyEngines;
  return cudaSuccess;
}
#else
/// cudaDeviceProp in CUDA 12's layout, up to the last field that TensorFlow (through Eigen) reads.
struct Properties12 {
  char name[256], uuid[16], luid[8];
  unsigned luid_device_mask;
  size_t total_memory, shared_memory_per_block;
  int registers_per_block, warp_size;
  size_t memory_pitch;
  int max_threads_per_block, max_threads[3], max_grid[3], clock;
  size_t constant_memory;
  int major, minor;
  size_t texture_alignment, texture_pitch_alignment;
  int overlap, multiprocessors, timeout, integrated, can_map_host_memory, compute_mode;
  int texture_limits[26], surface_limits[13];
  size_t surface_alignment;
  int concurrent_kernels, ecc, pci_bus, pci_device, pci_domain, tcc, copy_engines;
  int unified_addressing, memory_clock, memory_bus_width, l2_cache, persisting_l2_cache;
  int max_threads_per_multiprocessor;
};
constexpr size_t kSizeOfProperties12 = 1032;
static_assert(sizeof(Properties12) <= kSizeOfProperties12);

EMU_EXPORT cudaError_t cudaGetDeviceProperties_v2(Properties12* properties, int device) {
  memset(static_cast<void*>(properties), 0, kSizeOfProperties12);
  Properties12& p = *properties;
  snprintf(p.name, sizeof(p.name), "%s", kDeviceName);
  p.total_memory = totalMemory();
  p.shared_memory_per_block = kSharedMemoryPerBlock;
  p.registers_per_block = kRegisters;
  p.warp_size = kWarpSize;
  p.max_threads_per_block = p.max_threads[0] = p.max_threads[1] = kMaxThreadsPerBlock;
  p.max_threads[2] = kMaxBlockZ;
  p.max_grid[0] = kMaxGridX;
  p.max_grid[1] = p.max_grid[2] = kMaxGridYZ;
  p.major = kMajor;
  p.minor = kMinor;
  p.multiprocessors = kMultiprocessors;
  p.concurrent_kernels = p.unified_addressing = 1;
  p.pci_bus = device + 1;
  p.l2_cache = kL2Cache;
  p.max_threads_per_multiprocessor = kMaxThreadsPerMultiprocessor;
  return cudaSuccess;
}
#endif
EMU_EXPORT cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  static constexpr std::pair<cudaDeviceAttr, int> kValues[] = {
      {cudaDevAttrComputeCapabilityMajor, kMajor},
      {cudaDevAttrComputeCapabilityMinor, kMinor},
      {cudaDevAttrMultiProcessorCount, kMultiprocessors},
      {cudaDevAttrWarpSize, kWarpSize},
      {cudaDevAttrMaxThreadsPerBlock, kMaxThreadsPerBlock},
      {cudaDevAttrMaxSharedMemoryPerBlock, kSharedMemoryPerBlock},
      {cudaDevAttrMaxSharedMemoryPerBlockOptin, kSharedMemoryPerBlockOptin},
      {cudaDevAttrMaxThreadsPerMultiProcessor, kMaxThreadsPerMultiprocessor},
      {cudaDevAttrUnifiedAddressing, 1},
  };
  *value = 0;
  for (const auto& [name, known] : kValues) {
    if (name == attribute) *value = known;
  }
  return cudaSuccess;
}
EMU_EXPORT cudaError_t cudaDeviceGetPCIBusId(char* id, int size, int device) {
  printPciBusId(id, size, device);
  return cudaSuccess;
}
EMU_EXPORT cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  if (least != nullptr) *least = kLeastPriority;
  if (greatest != nullptr) *greatest = kGreatestPriority;
  return cudaSuccess;
}
EMU_EXPORT cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer) {
  return give(can, device != peer);
}
EMU_EXPORT cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) { return cudaSuccess; }
EMU_EXPORT cudaError_t cudaDeviceSynchronize() {
  logCall("cudaDeviceSynchronize", nullptr, "device %d", currentDevice());
  return result(synchronizeDevice(currentDevice()));
}
EMU_EXPORT cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *total = totalMemory();
  *free = freeMemory(currentDevice());
  return cudaSuccess;
}
EMU_EXPORT cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function,
                                                        unsigned, unsigned long long,
                                                        cudaDriverEntryPointQueryResult* status) {
  static void* const driver = dlopen("libcuda.so.1", RTLD_NOW);
  *function = driver == nullptr ? nullptr : dlsym(driver, symbol);
  if (status != nullptr) {
    *status =
        *function == nullptr ? cudaDriverEntryPointSymbolNotFound : cudaDriverEntryPointSuccess;
  }
  return cudaSuccess;
}
EMU_EXPORT cudaError_t cudaGetLastError() { return std::exchange(t_last_error, cudaSuccess); }
EMU_EXPORT cudaError_t cudaPeekAtLastError() { return t_last_error; }
EMU_EXPORT const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorNotSupported:
      return "cudaErrorNotSupported";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated:
      return "cudaErrorStreamCaptureInvalidated";
    case cudaErrorStreamCaptureIsolation:
      return "cudaErrorStreamCaptureIsolation";
    case cudaErrorCapturedEvent:
      return "cudaErrorCapturedEvent";
    default:
      return "an error of the emulated device";
  }
}
EMU_EXPORT const char* cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }

// ---- Memory
// --------------------------------------------------------------------------------------

EMU_EXPORT cudaError_t cudaMalloc(void** pointer, size_t size) {
  *pointer = nullptr;
  const Error error = size == 0 ? kSuccess : allocateDevice(currentDevice(), size, pointer);
  logCall("cudaMalloc", nullptr, "%zu -> %p", size, *pointer);
  return result(error);
}
EMU_EXPORT cudaError_t cudaFree(void* pointer) {
  logCall("cudaFree", nullptr, "%p", pointer);
  return result(freeDevice(pointer));
}
EMU_EXPORT cudaError_t cudaMallocAsync(void** pointer, size_t size, cudaStream_t) {
  return cudaMalloc(pointer, size);
}
// The memory is kept, because no address may be used twice.
EMU_EXPORT cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream) {
  logCall("cudaFreeAsync", streamOf(stream), "%p", pointer);
  return result(enqueue(streamOf(stream), {"free"}));
}
EMU_EXPORT cudaError_t cudaHostAlloc(void** pointer, size_t size, unsigned) {
  return result(allocatePinned(size, pointer));
}
EMU_EXPORT cudaError_t cudaMallocHost(void** pointer, size_t size) {
  return result(allocatePinned(size, pointer));
}
EMU_EXPORT cudaError_t cudaFreeHost(void* pointer) { return result(freePinned(pointer)); }
EMU_EXPORT cudaError_t cudaHostRegister(void* pointer, size_t size, unsigned) {
  return result(registerPinned(pointer, size));
}
EMU_EXPORT cudaError_t cudaHostUnregister(void* pointer) {
  return result(unregisterPinned(pointer));
}
EMU_EXPORT cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes,
                                                const void* pointer) {
  const Allocation found = allocationOf(pointer);
  auto* const address = const_cast<void*>(pointer);
  switch (found.kind) {
    case MemoryKind::kPageable:
      attributes->type = cudaMemoryTypeUnregistered;
      attributes->device = cudaInvalidDeviceId;
      attributes->devicePointer = nullptr;
      attributes->hostPointer = address;
      break;
    case MemoryKind::kDevice:
      attributes->type = cudaMemoryTypeDevice;
      attributes->device = found.device;
      attributes->devicePointer = address;
      attributes->hostPointer = nullptr;
      break;
    case MemoryKind::kPinned:
      attributes->type = cudaMemoryTypeHost;
      attributes->device = found.device;
      attributes->devicePointer = attributes->hostPointer = address;
  }
  return cudaSuccess;
}
EMU_EXPORT cudaError_t cudaMemcpy(void* to, const void* from, size_t size, cudaMemcpyKind) {
  return copyLogged("cudaMemcpy", to, from, size, nullptr, CopyCall::kBlocking);
}
EMU_EXPORT cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind,
                                       cudaStream_t stream) {
  return copyLogged("cudaMemcpyAsync", to, from, size, stream, CopyCall::kAsynchronous);
}
EMU_EXPORT cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t size,
                                           cudaStream_t stream) {
  return copyLogged("cudaMemcpyPeerAsync", to, from, size, stream, CopyCall::kAsynchronous);
}
EMU_EXPORT cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from,
                                         size_t from_pitch, size_t width, size_t height,
                                         cudaMemcpyKind, cudaStream_t stream) {
  logCall("cudaMemcpy2DAsync", streamOf(stream), "%p <- %p %zu * %zu", to, from, width, height);
  const Rows rows{width, height, to_pitch, from_pitch};
  return result(copyRows(to, from, rows, streamOf(stream), CopyCall::kAsynchronous));
}
EMU_EXPORT cudaError_t cudaMemsetAsync(void* to, int value, size_t count, cudaStream_t stream) {
  logCall("cudaMemsetAsync", streamOf(stream), "%p %d %zu", to, value, count);
  return result(fill(to, static_cast<unsigned>(value), 1, count, streamOf(stream)));
}
EMU_EXPORT cudaError_t cudaMemset(void* to, int value, size_t count) {
  return cudaMemsetAsync(to, value, count, nullptr);
}

// ---- Streams and events
// --------------------------------------------------------------------------

EMU_EXPORT cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags,
                                                    int priority) {
  Stream* made = createStream((flags & cudaStreamNonBlocking) != 0, priority);
  logCall("cudaStreamCreate", made, "flags %u priority %d", flags, priority);
  *stream = reinterpret_cast<cudaStream_t>(made);
  return cudaSuccess;
}
EMU_EXPORT cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return cudaStreamCreateWithPriority(stream, flags, 0);
}
EMU_EXPORT cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithPriority(stream, 0, 0);
}
EMU_EXPORT cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
EMU_EXPORT cudaError_t cudaStreamGetPriority(cudaStream_t stream, int* priority) {
  return give(priority, streamOf(stream)->priority);
}
EMU_EXPORT cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return result(queryStream(streamOf(stream)));
}
EMU_EXPORT cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  logCall("cudaStreamSynchronize", streamOf(stream), "%s", "");
  return result(synchronizeStream(streamOf(stream)));
}
EMU_EXPORT cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  logCall("cudaStreamWaitEvent", streamOf(stream), "event %p", static_cast<void*>(event));
  return result(waitForEvent(streamOf(stream), eventOf(event)));
}
EMU_EXPORT cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return give(event, reinterpret_cast<cudaEvent_t>(new Event));
}
EMU_EXPORT cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, 0);
}
EMU_EXPORT cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete eventOf(event);
  return cudaSuccess;
}
EMU_EXPORT cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  logCall("cudaEventRecord", streamOf(stream), "event %p", static_cast<void*>(event));
  return result(recordEvent(eventOf(event), streamOf(stream)));
}
EMU_EXPORT cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) {
  return cudaEventRecord(event, stream);
}
EMU_EXPORT cudaError_t cudaEventQuery(cudaEvent_t event) {
  return result(queryEvent(eventOf(event), Asker::kProgram));
}
EMU_EXPORT cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  logCall("cudaEventSynchronize", nullptr, "event %p", static_cast<void*>(event));
  return result(synchronizeEvent(eventOf(event)));
}
EMU_EXPORT cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start,
                                            cudaEvent_t end) {
  return give(milliseconds, millisecondsBetween(eventOf(start), eventOf(end)));
}
EMU_EXPORT cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  logCall("cudaLaunchHostFunc", streamOf(stream), "%s", "");
  return result(enqueue(streamOf(stream), {"host function", {}, {}, [=] { function(data); }}));
}
EMU_EXPORT cudaError_t cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t callback,
                                             void* data, unsigned) {
  const auto run = [=] { callback(stream, cudaSuccess, data); };
  return result(enqueue(streamOf(stream), {"callback", {}, {}, run}));
}

// ---- Capture and graphs
// --------------------------------------------------------------------------

EMU_EXPORT cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  const CaptureState capture = captureOf(streamOf(stream));
  *status = capture.id == 0   ? cudaStreamCaptureStatusNone
            : capture.invalid ? cudaStreamCaptureStatusInvalidated
                              : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}
EMU_EXPORT cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream,
                                                cudaStreamCaptureStatus* status,
                                                unsigned long long* id, cudaGraph_t* graph,
                                                const cudaGraphNode_t** dependencies,
                                                const cudaGraphEdgeData** edges, size_t* count) {
  const CaptureState capture = captureOf(streamOf(stream));
  if (id != nullptr) *id = capture.id;
  if (graph != nullptr) *graph = reinterpret_cast<cudaGraph_t>(capture.graph);
  if (dependencies != nullptr) *dependencies = nullptr;
  if (edges != nullptr) *edges = nullptr;
  if (count != nullptr) *count = 0;
  return cudaStreamIsCapturing(stream, status);
}
EMU_EXPORT cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  logCall("cudaStreamBeginCapture", streamOf(stream), "mode %d", mode);
  return result(beginCapture(streamOf(stream), static_cast<CaptureMode>(mode)));
}
EMU_EXPORT cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  logCall("cudaStreamEndCapture", streamOf(stream), "%s", "");
  return result(endCapture(streamOf(stream), reinterpret_cast<Graph**>(graph)));
}
EMU_EXPORT cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  return give(mode, static_cast<cudaStreamCaptureMode>(
                        exchangeCaptureMode(static_cast<CaptureMode>(*mode))));
}
EMU_EXPORT cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* executable, cudaGraph_t graph,
                                                     unsigned long long) {
  return give(executable, reinterpret_cast<cudaGraphExec_t>(new Graph(*graphOf(graph))));
}
EMU_EXPORT cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  logCall("cudaGraphLaunch", streamOf(stream), "%s", "");
  return result(launchGraph(graphOf(graph), streamOf(stream)));
}
EMU_EXPORT cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, size_t* count) {
  return give(count, graphOf(graph)->work.size());
}
EMU_EXPORT cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graphOf(graph);
  return cudaSuccess;
}
EMU_EXPORT cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  delete graphOf(graph);
  return cudaSuccess;
}
EMU_EXPORT cudaError_t cudaProfilerStart() { return cudaSuccess; }
EMU_EXPORT cudaError_t cudaProfilerStop() { return cudaSuccess; }

}  // extern "C"
