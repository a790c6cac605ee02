#include "device/graph.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <utility>

#include "device/settings.h"
#include "device/violations.h"

namespace gpu_emulator {
namespace {

/// The captures that have not ended.
std::map<uint64_t, std::unique_ptr<Graph>>& captures() {
  static auto* const made = new std::map<uint64_t, std::unique_ptr<Graph>>;
  return *made;
}

thread_local CaptureMode t_mode = CaptureMode::kGlobal;

pid_t thisThread() { return static_cast<pid_t>(syscall(SYS_gettid)); }

bool forbidsUnsafeCalls(const Graph& capture) {
  if (t_mode == CaptureMode::kRelaxed) return false;
  if (capture.thread == thisThread()) return capture.mode != CaptureMode::kRelaxed;
  return t_mode == CaptureMode::kGlobal && capture.mode == CaptureMode::kGlobal;
}

}  // namespace

Error beginCapture(Stream* stream, CaptureMode mode) {
  static uint64_t last_id = 0;
  const Lock lock(deviceMutex());
  if (stream->legacy || stream->capture != nullptr) return kCaptureUnsupported;
  auto graph = std::make_unique<Graph>();
  graph->id = ++last_id;
  graph->mode = mode;
  graph->thread = thisThread();
  stream->capture = graph.get();
  captures()[graph->id] = std::move(graph);
  return kSuccess;
}

Error endCapture(Stream* stream, Graph** graph) {
  *graph = nullptr;
  const Lock lock(deviceMutex());
  if (stream->capture == nullptr) return kCaptureUnmatched;
  const auto it = captures().find(stream->capture->id);
  std::unique_ptr<Graph> ended = std::move(it->second);
  captures().erase(it);
  for (Stream* other : streamsLocked()) {
    if (other->capture == ended.get()) other->capture = nullptr;
  }
  if (ended->invalid) return kCaptureInvalidated;
  *graph = ended.release();
  return kSuccess;
}

CaptureState captureOf(const Stream* stream) {
  const Lock lock(deviceMutex());
  if (stream->capture == nullptr) return {};
  return {stream->capture->id, stream->capture->invalid, stream->capture};
}

CaptureMode exchangeCaptureMode(CaptureMode mode) { return std::exchange(t_mode, mode); }

Error launchGraph(const Graph* graph, Stream* stream) {
  const Lock lock(deviceMutex());
  for (const Work& work : graph->work) {
    if (stream->capture != nullptr) {
      if (const Error error = addToGraphLocked(stream->capture, work)) return error;
    } else {
      pushLocked(stream, work);
    }
  }
  return kSuccess;
}

Error addToGraphLocked(Graph* graph, Work work) {
  if (graph->invalid) return kCaptureInvalidated;
  graph->work.push_back(std::move(work));
  return kSuccess;
}

Error joinCaptureLocked(Stream* stream, uint64_t capture) {
  const auto it = captures().find(capture);
  if (it == captures().end()) return kSuccess;  // its graph is complete: nothing to wait for
  if (stream->capture != nullptr && stream->capture != it->second.get()) return kCaptureIsolation;
  stream->capture = it->second.get();
  return kSuccess;
}

Error invalidateLocked(Graph* graph, Error error, const char* why) {
  graph->invalid = true;
  addViolationLocked("capture",
                     std::string("a stream capture is ended by a call that it forbids: ") + why);
  return error;
}

Error unsafeCallLocked(const char* call) {
  Error error = kSuccess;
  for (const auto& [id, capture] : captures()) {
    if (!capture->invalid && forbidsUnsafeCalls(*capture)) {
      error = invalidateLocked(capture.get(), kCaptureUnsupported, call);
    }
  }
  return error;
}

Error callOnCapturingLocked(const Stream* stream, const char* call) {
  if (stream->capture == nullptr) return kSuccess;
  return invalidateLocked(stream->capture, kCaptureUnsupported, call);
}

Error eventInCaptureLocked(uint64_t capture, const char* call) {
  const auto it = captures().find(capture);
  if (it == captures().end()) return kCapturedEvent;
  return invalidateLocked(it->second.get(), kCapturedEvent, call);
}

Error synchronizeInCaptureLocked(int device) {
  for (const Stream* stream : streamsLocked()) {
    if (stream->device != device || stream->capture == nullptr) continue;
    return invalidateLocked(stream->capture, kCaptureUnsupported, "a wait for the device");
  }
  return unsafeCallLocked("a wait for the device");
}

}  // namespace gpu_emulator
