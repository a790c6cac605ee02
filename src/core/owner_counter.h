// The number of TensorFlow buffers that the bridge keeps alive: one counter per thread, summed on
// request, so that the hot path touches no shared cache line. Not for: deciding; tests read it.
#ifndef TENSOR_BRIDGE_CORE_OWNER_COUNTER_H_
#define TENSOR_BRIDGE_CORE_OWNER_COUNTER_H_

#include <atomic>
#include <cstdint>

namespace tensor_bridge {

struct CounterNode {
  // Written only by its thread. An owner that is released on another thread makes that thread's
  // node negative; the sum stays correct.
  std::atomic<int64_t> value{0};
  std::atomic<bool> in_use{false};
  CounterNode* next = nullptr;
};

namespace detail {
extern __thread CounterNode* t_counter;  // not thread_local, which checks at each use
CounterNode* acquireCounter() noexcept;
}  // namespace detail

inline void countOwner(int64_t delta) noexcept {
  CounterNode* node = detail::t_counter;
  if (__builtin_expect(node == nullptr, 0)) node = detail::acquireCounter();
  if (node == nullptr) return;
  node->value.store(node->value.load(std::memory_order_relaxed) + delta, std::memory_order_relaxed);
}

/// The sum over all threads. Exact while no other thread converts or releases.
int64_t liveOwners() noexcept;

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_CORE_OWNER_COUNTER_H_
