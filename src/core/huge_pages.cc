#include "core/huge_pages.h"

#include <sys/mman.h>

namespace tensor_bridge {

void expectWrites(void* data, int64_t nbytes) noexcept {
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t kHugePage = uintptr_t{2} << 20;
  // Below this size the system call is not worth it.
  constexpr int64_t kLarge = int64_t{4} << 20;
  if (data == nullptr || nbytes < kLarge) return;
  // Only pages that are entirely inside: the memory around is not ours, and it must not become
  // resident.
  const auto address = reinterpret_cast<uintptr_t>(data);
  const uintptr_t begin = (address + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = (address + static_cast<uintptr_t>(nbytes)) / kHugePage * kHugePage;
  if (begin < end) {
    static_cast<void>(madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE));
  }
#endif
}

}  // namespace tensor_bridge
