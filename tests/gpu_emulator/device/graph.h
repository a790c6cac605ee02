// Capture of streams into graphs, and the calls that a capture forbids. Not for: graphs that
// branch; a graph is replayed in the order of its capture.
//
// Note [What a capture forbids]
// This follows CUDA's documentation of cudaThreadExchangeStreamCaptureMode and "Prohibited and
// Unhandled Operations" in its programming guide. A thread must not make a "potentially unsafe"
// call while it captures itself, or while any thread captures in the mode "global". In the mode
// "thread local" only the thread's own captures count, in "relaxed" no captures. In every mode,
// waiting for and querying a stream that captures are forbidden. CUDA does not list the unsafe
// calls. Here they are allocations, cudaFree, waits and queries, including queries of events:
// torch's CUDAGraph.cpp keeps NCCL's watchdog from such queries for this reason. Such a call ends
// the capture and is a violation.
#ifndef TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_GRAPH_H_
#define TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_GRAPH_H_

#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "device/errors.h"
#include "device/stream.h"

namespace gpu_emulator {

/// CUDA's numbers.
enum class CaptureMode { kGlobal = 0, kThreadLocal = 1, kRelaxed = 2 };

struct Graph {
  uint64_t id = 0;
  std::vector<Work> work;
  CaptureMode mode = CaptureMode::kGlobal;
  pid_t thread = 0;  // the thread that began the capture
  bool invalid = false;
};

EMU_EXPORT Error beginCapture(Stream* stream, CaptureMode mode);
/// On success the caller owns *graph; on failure it is null.
EMU_EXPORT Error endCapture(Stream* stream, Graph** graph);
/// The capture of a stream: the graph's id, or 0 if the stream does not capture, and whether a
/// forbidden call has ended it.
struct CaptureState {
  uint64_t id = 0;
  bool invalid = false;
  Graph* graph = nullptr;
};
EMU_EXPORT CaptureState captureOf(const Stream* stream);
EMU_EXPORT CaptureMode exchangeCaptureMode(CaptureMode mode);
EMU_EXPORT Error launchGraph(const Graph* graph, Stream* stream);

Error addToGraphLocked(Graph* graph, Work work);
/// Makes the stream join the capture in which an event was recorded that it waits for.
Error joinCaptureLocked(Stream* stream, uint64_t capture);
/// Ends the capture with a violation; returns `error`.
Error invalidateLocked(Graph* graph, Error error, const char* why);

/// The error if the thread must not make this call now: see Note [What a capture forbids].
Error unsafeCallLocked(const char* call);
Error callOnCapturingLocked(const Stream* stream, const char* call);
Error eventInCaptureLocked(uint64_t capture, const char* call);
Error synchronizeInCaptureLocked(int device);

}  // namespace gpu_emulator

#endif  // TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_GRAPH_H_
