// Operators that write lists of tensors, and what has to be done before their CUDA kernels run. Not
// for: operators that write single tensors; the hook of copy_on_write.h sees those.
#ifndef TENSOR_BRIDGE_ADAPTERS_TORCH_LIST_WRITERS_H_
#define TENSOR_BRIDGE_ADAPTERS_TORCH_LIST_WRITERS_H_

namespace tensor_bridge {

/// Whether guardListWriters() does what it says: from torch 2.13 on.
bool canGuardListWriters() noexcept;

/// Makes every operator that writes a list of tensors run the hooks of the storages that it writes
/// first. To be called before a storage on a GPU is shared; the first call takes milliseconds,
/// later ones look whether operators were added. Throws c10::Error and std::bad_alloc.
void guardListWriters();

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TORCH_LIST_WRITERS_H_
