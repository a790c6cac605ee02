// torch's streams on a GPU and events on them, through the functions of the CUDA runtime that torch
// itself uses. Needs no CUDA header and links no CUDA library. Not for: when memory goes back
// (give_back.h).
//
// Note [The CUDA runtime of torch]
// c10's own interface to devices (DeviceGuardImplInterface) cannot be called from an adapter for a
// group of releases: the order of its virtual functions differs inside a group
// (getStreamNativeHandle was inserted before destroyEvent and record), and before 2.13 it cannot
// tell whether a stream is captured. The functions are looked up in libc10_cuda.so and the
// libraries that it is linked with, so they belong to torch's runtime, even if the process has
// others. A build of torch without them (ROCm, a static runtime) is refused.
//
// Note [torch's streams]
// A torch kernel runs on the stream that is current in its thread: the device's default stream, a
// stream of torch's pools, or a stream that the user made elsewhere (torch.cuda.ExternalStream).
// All pools are made when the first stream is asked for, and never destroyed; before that nobody
// can have used one. Their ids: c10/cuda/CUDAStream.cpp, Note [StreamId assignment], torch 2.1 to
// 2.14. A stream that was made elsewhere may be destroyed at any time, so the bridge keeps no
// reference to it.
//
// Note [Captures are left alone]
// While a stream is captured into a CUDA graph, an event on it would be part of the graph, and
// querying that event ends the capture. While any thread captures in the mode "global", torch's
// default, other threads must not query events either, unless they are in the mode "relaxed"
// (cudaThreadExchangeStreamCaptureMode). So the stream's state is checked before and after each
// event, and every call is made in the mode "relaxed".
#ifndef TENSOR_BRIDGE_ADAPTERS_TORCH_CUDA_STREAMS_H_
#define TENSOR_BRIDGE_ADAPTERS_TORCH_CUDA_STREAMS_H_

#include <c10/core/Device.h>

#include <cstdint>
#include <vector>

namespace tensor_bridge {

/// cudaStream_t and cudaEvent_t. A null stream is the device's default one.
using CudaStream = void*;
using CudaEvent = void*;

/// Throws c10::Error in a build of torch whose CUDA functions cannot be found.
void requireCudaRuntime();

/// Index of this thread's current GPU. Throws c10::Error.
int32_t currentGpu();

/// For its lifetime, makes `device` the current one and this thread's capture mode "relaxed". The
/// functions below are called while one for the stream's device is alive.
class CudaCalls {
 public:
  explicit CudaCalls(c10::DeviceIndex device);
  ~CudaCalls();
  CudaCalls(const CudaCalls&) = delete;
  CudaCalls& operator=(const CudaCalls&) = delete;

 private:
  int device_ = 0;
  int previous_ = 0;
  int mode_;
};

/// The device's default stream, and the streams of torch's pools if they exist.
const std::vector<CudaStream>& torchStreams(c10::DeviceIndex device);

/// This thread's current stream.
CudaStream currentStream(c10::DeviceIndex device);
/// The current stream if it was made elsewhere, so that it is not among torchStreams().
bool isCurrentStreamForeign(c10::DeviceIndex device, CudaStream* stream);

bool isCapturing(CudaStream stream) noexcept;

/// An event after the work queued on `stream` so far; the caller destroys it. Null if none can be
/// recorded now: the stream is being captured, or CUDA is in an error state.
CudaEvent recordEvent(CudaStream stream) noexcept;

enum class EventState { kReached, kPending, kLost };
/// Does not wait. kLost: it can no longer be told, because the event became part of a graph.
EventState stateOf(CudaEvent event) noexcept;
void destroyEvent(CudaEvent event) noexcept;

/// Orders later work on all other torch streams of the device, including streams that are made
/// later, after the work queued on the current stream so far. Waits on the host only if one of them
/// is being captured, because a capture must not depend on work outside it. Streams made elsewhere
/// are not ordered. Throws c10::Error.
void orderOtherStreams(c10::DeviceIndex device);

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TORCH_CUDA_STREAMS_H_
