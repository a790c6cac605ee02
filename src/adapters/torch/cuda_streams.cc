#include "adapters/torch/cuda_streams.h"

#include <c10/core/Stream.h>
#include <c10/util/Exception.h>
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <limits>
#include <memory>
#include <type_traits>

namespace tensor_bridge {
namespace {

// Of cuda_runtime_api.h.
constexpr int kSuccess = 0;
constexpr int kNotReady = 600;
constexpr int kCaptureModeRelaxed = 2;
constexpr int kCaptureStatusNone = 0;
constexpr unsigned kDisableTiming = 2;

// A c10::cuda::CUDAStream is a c10::Stream and nothing else: two words, returned in registers. See
// Note [Calling C++ by its mangled name] in adapters/tensorflow/tf_api.h.
static_assert(std::is_trivially_copyable_v<c10::Stream> && sizeof(c10::Stream) == 16);

struct CudaRuntime {
  int (*cudaGetDevice)(int* device);
  int (*cudaSetDevice)(int device);
  int (*cudaThreadExchangeStreamCaptureMode)(int* mode);
  int (*cudaStreamIsCapturing)(CudaStream stream, int* status);
  int (*cudaStreamWaitEvent)(CudaStream stream, CudaEvent event, unsigned flags);
  int (*cudaEventCreateWithFlags)(CudaEvent* event, unsigned flags);
  int (*cudaEventRecord)(CudaEvent event, CudaStream stream);
  int (*cudaEventQuery)(CudaEvent event);
  int (*cudaEventSynchronize)(CudaEvent event);
  int (*cudaEventDestroy)(CudaEvent event);
  int (*cudaGetLastError)();
  c10::Stream (*getCurrentCUDAStream)(c10::DeviceIndex device);
  c10::Stream (*getStreamFromPool)(bool high_priority, c10::DeviceIndex device);
  CudaStream (*handleOf)(const c10::Stream* stream);  // CUDAStream::stream()
};

template <typename Function>
void find(void* library, const char* name, Function* function) {
  *function = library == nullptr ? nullptr : reinterpret_cast<Function>(dlsym(library, name));
  TORCH_CHECK(*function != nullptr, "this build of torch has no ", name,
              " that can be found (expected the CUDA build from PyPI or one with a shared CUDA "
              "runtime); copy the tensor to the host first: with tf.device('CPU:0'): t = "
              "tf.identity(t)");
}

const CudaRuntime& runtime() {
  static const CudaRuntime found = [] {
    void* library = dlopen("libc10_cuda.so", RTLD_NOLOAD | RTLD_LAZY | RTLD_LOCAL);
    CudaRuntime cuda;
#define TB_FIND(name) find(library, #name, &cuda.name)
    TB_FIND(cudaGetDevice);
    TB_FIND(cudaSetDevice);
    TB_FIND(cudaThreadExchangeStreamCaptureMode);
    TB_FIND(cudaStreamIsCapturing);
    TB_FIND(cudaStreamWaitEvent);
    TB_FIND(cudaEventCreateWithFlags);
    TB_FIND(cudaEventRecord);
    TB_FIND(cudaEventQuery);
    TB_FIND(cudaEventSynchronize);
    TB_FIND(cudaEventDestroy);
    TB_FIND(cudaGetLastError);
#undef TB_FIND
    // Seen in the CUDA build of torch 2.14.
    find(library, "_ZN3c104cuda20getCurrentCUDAStreamEa", &cuda.getCurrentCUDAStream);
    find(library, "_ZN3c104cuda17getStreamFromPoolEba", &cuda.getStreamFromPool);
    find(library, "_ZNK3c104cuda10CUDAStream6streamEv", &cuda.handleOf);
    return cuda;
  }();
  return found;
}

// Whether the call succeeded. Clears the error, which torch would otherwise report as its own.
bool succeeded(int error) {
  if (__builtin_expect(error == kSuccess, 1)) return true;
  runtime().cudaGetLastError();
  return false;
}

// See Note [torch's streams].
constexpr int kStreamsPerPool = 32;
constexpr int kMaxPools = 15;

bool isTorchs(const c10::Stream& stream) { return stream.id() == 0 || (stream.id() & 1) != 0; }

c10::Stream poolStream(c10::DeviceIndex device, int pool, int index) {
  return c10::Stream(c10::Stream::UNSAFE, c10::Device(c10::kCUDA, device),
                     static_cast<c10::StreamId>(index) << 5 | pool << 1 | 1);
}

using Streams = std::vector<CudaStream>;

// Adds the streams of a pool; they are null while the pool is being made. False if there is no such
// pool: torch has one for each of the device's priorities, at most four.
bool addPool(c10::DeviceIndex device, int pool, Streams* streams) {
  try {
    for (int i = 0; i < kStreamsPerPool; ++i) {
      const c10::Stream stream = poolStream(device, pool, i);
      streams->push_back(runtime().handleOf(&stream));
    }
    return true;
  } catch (const c10::Error&) {
    return false;
  }
}

// The default stream and the pools; null before all of these exist.
const Streams* poolsOf(c10::DeviceIndex device) {
  constexpr size_t kDevices = size_t{std::numeric_limits<c10::DeviceIndex>::max()} + 1;
  static std::array<std::atomic<const Streams*>, kDevices> known{};
  std::atomic<const Streams*>& slot = known.at(static_cast<size_t>(device));
  if (const Streams* streams = slot.load(std::memory_order_acquire)) return streams;
  auto streams = std::make_unique<Streams>();
  for (int pool = 1; pool <= kMaxPools && addPool(device, pool, streams.get()); ++pool) {
    if (streams->front() == nullptr) return nullptr;
  }
  if (std::count(streams->begin(), streams->end(), nullptr) != 0) return nullptr;
  streams->push_back(nullptr);
  const Streams* expected = nullptr;
  if (!slot.compare_exchange_strong(expected, streams.get(), std::memory_order_acq_rel)) {
    return expected;
  }
  return streams.release();
}

// The pools; makes them if necessary.
const Streams& madePools(c10::DeviceIndex device) {
  if (const Streams* streams = poolsOf(device)) return *streams;
  const c10::Stream made = runtime().getStreamFromPool(/*high_priority=*/false, device);
  const Streams* streams = poolsOf(device);
  TORCH_CHECK(streams != nullptr && std::find(streams->begin(), streams->end(),
                                              runtime().handleOf(&made)) != streams->end(),
              "this torch numbers its streams in a way that tensor_bridge does not know (stream ",
              made.id(), "); clone() the tensor instead of writing to it, and report this");
  return *streams;
}

}  // namespace

void requireCudaRuntime() { runtime(); }

int32_t currentGpu() {
  int device = 0;
  TORCH_CHECK(succeeded(runtime().cudaGetDevice(&device)), "CUDA has no current device");
  return device;
}

CudaCalls::CudaCalls(c10::DeviceIndex device) : device_(device), mode_(kCaptureModeRelaxed) {
  const CudaRuntime& cuda = runtime();
  TORCH_CHECK(succeeded(cuda.cudaGetDevice(&previous_)) &&
                  (previous_ == device_ || succeeded(cuda.cudaSetDevice(device_))),
              "CUDA cannot make device ", device_, " the current one");
  succeeded(cuda.cudaThreadExchangeStreamCaptureMode(&mode_));
}

CudaCalls::~CudaCalls() {
  succeeded(runtime().cudaThreadExchangeStreamCaptureMode(&mode_));
  if (previous_ != device_) succeeded(runtime().cudaSetDevice(previous_));
}

const std::vector<CudaStream>& torchStreams(c10::DeviceIndex device) {
  static const Streams default_stream{nullptr};
  const Streams* pools = poolsOf(device);
  return pools == nullptr ? default_stream : *pools;
}

CudaStream currentStream(c10::DeviceIndex device) {
  const c10::Stream stream = runtime().getCurrentCUDAStream(device);
  return runtime().handleOf(&stream);
}

bool isCurrentStreamForeign(c10::DeviceIndex device, CudaStream* stream) {
  const c10::Stream current = runtime().getCurrentCUDAStream(device);
  if (__builtin_expect(isTorchs(current), 1)) return false;
  *stream = runtime().handleOf(&current);
  return true;
}

bool isCapturing(CudaStream stream) noexcept {
  int status = kCaptureStatusNone;
  // It fails for the default stream while a stream that synchronises with it is captured.
  return !succeeded(runtime().cudaStreamIsCapturing(stream, &status)) ||
         status != kCaptureStatusNone;
}

CudaEvent recordEvent(CudaStream stream) noexcept {
  const CudaRuntime& cuda = runtime();
  CudaEvent event = nullptr;
  if (isCapturing(stream) || !succeeded(cuda.cudaEventCreateWithFlags(&event, kDisableTiming))) {
    return nullptr;
  }
  // Another thread may have begun to capture the stream in between.
  if (succeeded(cuda.cudaEventRecord(event, stream)) && !isCapturing(stream)) return event;
  destroyEvent(event);
  return nullptr;
}

EventState stateOf(CudaEvent event) noexcept {
  const int error = runtime().cudaEventQuery(event);
  if (succeeded(error)) return EventState::kReached;
  return error == kNotReady ? EventState::kPending : EventState::kLost;
}

void destroyEvent(CudaEvent event) noexcept { succeeded(runtime().cudaEventDestroy(event)); }

void orderOtherStreams(c10::DeviceIndex device) {
  const CudaCalls calls(device);
  const CudaRuntime& cuda = runtime();
  const CudaStream current = currentStream(device);
  const Streams& streams = madePools(device);
  const CudaEvent event = recordEvent(current);
  TORCH_CHECK(event != nullptr, "CUDA could not record an event on the current stream of device ",
              static_cast<int>(device));
  bool ordered = true;
  for (const CudaStream stream : streams) {
    if (stream == current) continue;
    ordered =
        !isCapturing(stream) && succeeded(cuda.cudaStreamWaitEvent(stream, event, 0)) && ordered;
  }
  if (!ordered) ordered = succeeded(cuda.cudaEventSynchronize(event));
  destroyEvent(event);
  TORCH_CHECK(ordered, "CUDA could neither order a stream after the copy on device ",
              static_cast<int>(device), " nor wait for it");
}

}  // namespace tensor_bridge
