// torch's streams on a GPU and events on them, by the functions of the CUDA runtime that torch
// itself uses. Needs no CUDA header and links no CUDA library. Not for: when memory goes back
// (give_back.h).
//
// Note [The CUDA runtime of torch]
// c10's own interface to devices (DeviceGuardImplInterface) cannot be called from an adapter for a
// group of releases: the places of its virtual functions differ inside one (getStreamNativeHandle
// came before destroyEvent and record), and before 2.13 it cannot tell whether a stream is
// captured. The functions are looked up in libc10_cuda.so and what that is linked with, so they are
// those of torch's runtime, whichever else the process has. A build of torch without them (ROCm, a
// static runtime) is refused.
//
// Note [torch's streams]
// A kernel of torch's runs on the stream that is current in its thread: the device's default
// stream, one of torch's pools, or one that the user made elsewhere (torch.cuda.ExternalStream).
// Pools are made all at once when the first stream is asked for, and never destroyed; before that
// nobody can have used one. Their ids: c10/cuda/CUDAStream.cpp, Note [StreamId assignment],
// torch 2.1 to 2.14. A stream that was made elsewhere may be destroyed at any time, so nothing is
// kept of it.
//
// Note [Captures are left alone]
// While a stream is captured into a CUDA graph, an event on it would be part of the graph, and
// asking for one ends the capture. While any thread captures in the mode "global", torch's default,
// other threads may not ask for events either, unless they are in the mode "relaxed"
// (cudaThreadExchangeStreamCaptureMode). So a stream is asked before and after each event, and
// every call is made in that mode.
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

/// Makes `device` the current one and this thread's captures "relaxed", for its lifetime. What is
/// declared below is called inside one, of the stream's device.
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

/// The device's default stream and those of torch's pools that exist by now.
const std::vector<CudaStream>& torchStreams(c10::DeviceIndex device);

/// This thread's current stream.
CudaStream currentStream(c10::DeviceIndex device);
/// The same if it was made elsewhere, and so is not among torchStreams().
bool isCurrentStreamForeign(c10::DeviceIndex device, CudaStream* stream);

bool isCapturing(CudaStream stream) noexcept;

/// An event after what is queued on `stream` by now; the caller destroys it. Null where none can be
/// had now: the stream is being captured, or CUDA is in an error.
CudaEvent recordEvent(CudaStream stream) noexcept;

enum class EventState { kReached, kPending, kLost };
/// Without waiting. kLost: nobody can tell any more, as the event became part of a graph.
EventState stateOf(CudaEvent event) noexcept;
void destroyEvent(CudaEvent event) noexcept;

/// Makes every other stream of torch's on the device, also those that are yet to be made, do what
/// is queued on them from now on after what is queued on the current stream by now. Waits on the
/// host only if one of them is being captured, because a capture can depend on nothing outside it.
/// A foreign stream is not ordered. Throws c10::Error.
void orderOtherStreams(c10::DeviceIndex device);

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TORCH_CUDA_STREAMS_H_
