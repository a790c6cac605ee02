// Copies and fills, which wait as CUDA documents it. Not for: kernels.
#ifndef TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_COPY_H_
#define TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_COPY_H_

#include <cstddef>

#include "device/errors.h"

namespace gpu_emulator {

struct Stream;

/// A call of the family of cudaMemcpy, or of cudaMemcpyAsync.
enum class CopyCall { kBlocking, kAsynchronous };

/// Rows of `width` bytes, at a distance of `pitch` bytes.
struct Rows {
  size_t width;
  size_t height;
  size_t to_pitch;
  size_t from_pitch;
};

/// By "API synchronization behavior" in CUDA's documentation: host memory that is not pinned is
/// read before the call returns, though the bytes may arrive later; a copy to such memory waits
/// until it is done. Pinned memory is read when the copy runs, and only a blocking call waits.
EMU_EXPORT Error copy(void* to, const void* from, size_t size, Stream* stream, CopyCall call);
EMU_EXPORT Error copyRows(void* to, const void* from, const Rows& rows, Stream* stream,
                          CopyCall call);
/// Writes the lowest `element_size` bytes of `value` `count` times.
EMU_EXPORT Error fill(void* to, unsigned value, size_t element_size, size_t count, Stream* stream);

}  // namespace gpu_emulator

#endif  // TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_COPY_H_
