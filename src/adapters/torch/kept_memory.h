// Large host memory that is used again: the latest block that a tensor has given back waits for the
// next tensor. Not for: small blocks, which malloc keeps itself.
#ifndef TENSOR_BRIDGE_ADAPTERS_TORCH_KEPT_MEMORY_H_
#define TENSOR_BRIDGE_ADAPTERS_TORCH_KEPT_MEMORY_H_

#include <c10/core/Allocator.h>

#include <cstdint>

namespace tensor_bridge {

// Note [Memory that is used again]
// malloc maps blocks above 32 MiB anew and unmaps them when they are freed, so that the kernel
// clears and maps each page of each result. For a large tensor of strings that takes as long as
// filling it (64 MiB: 11 ms instead of 6), while the many small objects that others make of it come
// from memory that malloc keeps.
//
// A block belongs to the one DataPtr that was made over it, or waits in the one place for it. It
// gets there only from the deleter of that DataPtr, and leaves it by an atomic exchange, to one new
// DataPtr or to torch's allocator. So no block has two owners.
//
// While it waits, the kernel may take its pages when it needs memory (MADV_FREE). A block that does
// not fit the next request goes back to torch's allocator; one beyond kMostKept always does.

/// Memory that the caller fills, from torch's allocator for the host, or a block that waits.
c10::DataPtr largeMemory(int64_t nbytes);

/// From this size on largeMemory() is used: malloc's highest threshold for mapping.
constexpr int64_t kLeastKept = int64_t{32} << 20;
constexpr int64_t kMostKept = int64_t{1} << 30;

/// The deleter of largeMemory(): as private to a storage as torch's ordinary memory.
void giveBackBlock(void* block) noexcept;

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TORCH_KEPT_MEMORY_H_
