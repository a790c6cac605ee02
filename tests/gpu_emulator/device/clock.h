// Vector clocks, which say what is ordered before what. Not for: times.
#ifndef TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_CLOCK_H_
#define TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_CLOCK_H_

#include <cstdint>
#include <vector>

namespace gpu_emulator {

/// For each stream, by id, the newest operation that is ordered before.
using Clock = std::vector<uint64_t>;

void join(Clock* into, const Clock& from);

/// What is ordered before the next call of this thread. All threads share one clock, because the
/// emulator does not see the mutexes with which they synchronise. With CUDA_EMU_CLOCK=thread each
/// thread has its own clock, so that a wait of one thread does not hide a race of another. The
/// device's mutex must be held.
Clock& hostClockLocked();

}  // namespace gpu_emulator

#endif  // TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_CLOCK_H_
