// Capture of streams into graphs, and what a capture forbids. Not for: graphs that branch; a graph
// is replayed in the order in which it was captured.
//
// Note [What a capture forbids]
// As CUDA documents it for cudaThreadExchangeStreamCaptureMode and in "Prohibited and Unhandled
// Operations" of its programming guide. A thread may make no "potentially unsafe" call while it
// captures itself, or while any thread captures in the mode "global"; in the mode "thread local"
// only its own captures count, in "relaxed" none. Whatever the mode, nobody may wait for or query
// what is being captured. CUDA does not list the unsafe calls. Here they are allocations, cudaFree,
// waits and queries, of events too: torch's CUDAGraph.cpp keeps NCCL's watchdog from such queries
// for this reason. Each ends the capture and is a violation.
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
  pid_t thread = 0;  // that began the capture
  bool invalid = false;
};

EMU_EXPORT Error beginCapture(Stream* stream, CaptureMode mode);
/// On success the caller owns *graph; else it is null.
EMU_EXPORT Error endCapture(Stream* stream, Graph** graph);
/// Of a stream that captures: the graph's id, and whether it has been ended by a forbidden call. An
/// id of 0: the stream does not capture.
struct CaptureState {
  uint64_t id = 0;
  bool invalid = false;
  Graph* graph = nullptr;
};
EMU_EXPORT CaptureState captureOf(const Stream* stream);
EMU_EXPORT CaptureMode exchangeCaptureMode(CaptureMode mode);
EMU_EXPORT Error launchGraph(const Graph* graph, Stream* stream);

Error addToGraphLocked(Graph* graph, Work work);
/// The stream takes part in the capture that an event which it waits for was recorded in.
Error joinCaptureLocked(Stream* stream, uint64_t capture);
/// Ends the capture with a violation; returns `error`.
Error invalidateLocked(Graph* graph, Error error, const char* why);

/// The error of a call that the thread may not make now: see Note [What a capture forbids].
Error unsafeCallLocked(const char* call);
Error callOnCapturingLocked(const Stream* stream, const char* call);
Error eventInCaptureLocked(uint64_t capture, const char* call);
Error synchronizeInCaptureLocked(int device);

}  // namespace gpu_emulator

#endif  // TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_GRAPH_H_
