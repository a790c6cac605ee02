// Releases GPU memory of another framework once torch's streams are done with it, without a thread
// that waits for them. Not for: host memory.
//
// Note [GPU memory goes back]
// torch's record_stream() does nothing on memory that is not its allocator's, so nobody is told
// which streams used a buffer: all of torch's may have (Note [torch's streams]). When the last
// tensor over a buffer is dropped, a thread of ours records an event on each of them, and looks at
// the events every few milliseconds; when all are reached the buffer goes back. On a stream that is
// being captured nothing is recorded before the capture is over, and an event that is lost is
// recorded anew.
//
// Held back is what was dropped and is still in use. While that is more than kMostHeldBack, a
// conversion waits for the thread: a program whose host runs ahead of the GPU holds back that much
// and what it drops between two conversions. What waits for a capture to end does not count: it was
// converted before.
#ifndef TENSOR_BRIDGE_ADAPTERS_TORCH_GIVE_BACK_H_
#define TENSOR_BRIDGE_ADAPTERS_TORCH_GIVE_BACK_H_

#include <c10/core/Device.h>

#include "core/tensor_ref.h"

namespace tensor_bridge {

constexpr int64_t kMostHeldBack = int64_t{1} << 30;

/// The owner of a buffer on a GPU; `owner` null: none yet.
struct GpuOwner {
  void* owner;
  ReleaseFn release;
  c10::DeviceIndex device;
  int64_t nbytes;
};

/// Takes `owner` over and releases it, later and on another thread; not while the process exits. On
/// any thread, and never waits.
void giveBack(GpuOwner* owner) noexcept;

/// Waits while more than kMostHeldBack is held back. The caller holds no lock.
void waitForGivenBack();

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TORCH_GIVE_BACK_H_
