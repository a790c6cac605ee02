#include "adapters/torch/kept_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>

namespace tensor_bridge {
namespace {

struct Block {
  c10::DataPtr memory;
  int64_t nbytes;
};

// Not freed at exit: tensors may give blocks back until the very end.
std::atomic<Block*> g_waiting{nullptr};

// A small machine keeps less.
int64_t mostKept() {
  static const int64_t most = [] {
    const int64_t memory = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
    return std::min(kMostKept, memory / 16);
  }();
  return most;
}

// Lets the kernel take the whole pages of the block until they are written to again.
void letKernelTake(const Block& block) noexcept {
#ifdef MADV_FREE
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto address = reinterpret_cast<uintptr_t>(block.memory.get());
  const uintptr_t begin = (address + page - 1) / page * page;
  const uintptr_t end = (address + static_cast<uintptr_t>(block.nbytes)) / page * page;
  static_cast<void>(madvise(reinterpret_cast<void*>(begin), end - begin, MADV_FREE));
#endif
}

}  // namespace

c10::DataPtr largeMemory(int64_t nbytes) {
  std::unique_ptr<Block> block(g_waiting.exchange(nullptr, std::memory_order_acq_rel));
  if (block == nullptr || block->nbytes < nbytes || block->nbytes / 2 > nbytes) {
    block.reset();  // first: both together may be too much
    block = std::make_unique<Block>();
    block->memory = c10::GetAllocator(c10::kCPU)->allocate(static_cast<size_t>(nbytes));
    block->nbytes = nbytes;
  }
  void* data = block->memory.get();
  return c10::DataPtr(data, block.release(), giveBackBlock, c10::Device(c10::kCPU));
}

void giveBackBlock(void* given) noexcept {
  std::unique_ptr<Block> block(static_cast<Block*>(given));
  if (block->nbytes > mostKept()) return;
  letKernelTake(*block);
  const std::unique_ptr<Block> replaced(
      g_waiting.exchange(block.release(), std::memory_order_acq_rel));
}

}  // namespace tensor_bridge
