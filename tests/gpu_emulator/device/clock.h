// Vector clocks: what is ordered before what, whatever the time. Not for: times.
#ifndef TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_CLOCK_H_
#define TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_CLOCK_H_

#include <cstdint>
#include <vector>

namespace gpu_emulator {

/// For each stream, by its id, the newest operation that is ordered before.
using Clock = std::vector<uint64_t>;

void join(Clock* into, const Clock& from);

/// What is ordered before the next call of this thread. One clock for all threads, since the
/// mutexes by which threads hand things over are not seen; with CUDA_EMU_CLOCK=thread each has its
/// own, so that a wait of one thread does not hide a race of another. The mutex of the device is
/// held.
Clock& hostClockLocked();

}  // namespace gpu_emulator

#endif  // TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_CLOCK_H_
