// Operators that write lists of tensors, and the hooks that have to run before their CUDA kernels.
// Not for: operators that write single tensors; the hook of copy_on_write.h sees those.
#ifndef TENSOR_BRIDGE_ADAPTERS_TORCH_LIST_WRITERS_H_
#define TENSOR_BRIDGE_ADAPTERS_TORCH_LIST_WRITERS_H_

namespace tensor_bridge {

/// Whether guardListWriters() works: from torch 2.13 on.
bool canGuardListWriters() noexcept;

/// Makes every operator that writes a list of tensors first run the hooks of the storages that it
/// writes. Call it before a storage on a GPU is shared; the first call takes milliseconds, later
/// calls only check whether operators were added. Throws c10::Error and std::bad_alloc.
void guardListWriters();

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TORCH_LIST_WRITERS_H_
