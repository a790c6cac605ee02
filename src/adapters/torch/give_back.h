// Releases GPU memory of another framework once torch's streams have finished with it, without a
// thread that blocks on them. Not for: host memory.
//
// Note [GPU memory goes back]
// torch's record_stream() does nothing for memory of another allocator, so the streams that used a
// buffer are not known: any of torch's may have (Note [torch's streams]). When the last tensor over
// a buffer is dropped, a thread of ours records an event on each stream, and checks the events
// every few milliseconds; when all are reached the buffer is released. On a stream that is being
// captured nothing is recorded until the capture is over, and a lost event is recorded again.
//
// Dropped buffers that are still in use are held back. While they are more than kMostHeldBack, a
// conversion waits for the thread: a program whose host runs ahead of the GPU holds back that much
// and what it drops between two conversions. Buffers that wait for the end of a capture do not
// count, because they were converted before it.
#ifndef TENSOR_BRIDGE_ADAPTERS_TORCH_GIVE_BACK_H_
#define TENSOR_BRIDGE_ADAPTERS_TORCH_GIVE_BACK_H_

#include <c10/core/Device.h>

#include "core/tensor_ref.h"

namespace tensor_bridge {

constexpr int64_t kMostHeldBack = int64_t{1} << 30;

/// The owner of a buffer on a GPU; a null `owner` means none yet.
struct GpuOwner {
  void* owner;
  ReleaseFn release;
  c10::DeviceIndex device;
  int64_t nbytes;
};

/// Takes over `owner` and releases it later, on another thread; leaks it while the process exits.
/// Callable on any thread; never waits.
void giveBack(GpuOwner* owner) noexcept;

/// Waits while more than kMostHeldBack is held back. The caller holds no lock.
void waitForGivenBack();

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TORCH_GIVE_BACK_H_
