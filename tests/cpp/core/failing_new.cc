#include "core/failing_new.h"

#include <cstdlib>
#include <new>

namespace {

// Negative: no limit.
thread_local int t_allowed = -1;

void* allocate(std::size_t size) noexcept {
  if (t_allowed == 0) return nullptr;
  if (t_allowed > 0) --t_allowed;
  return std::malloc(size == 0 ? 1 : size);
}

}  // namespace

void* operator new(std::size_t size) {
  if (void* memory = allocate(size)) return memory;
  throw std::bad_alloc();
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return allocate(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }

namespace tensor_bridge::testing {

NoMemory::NoMemory(int allowed) { t_allowed = allowed; }
NoMemory::~NoMemory() { t_allowed = -1; }

}  // namespace tensor_bridge::testing
