#include "core/owner_counter.h"

#include <pthread.h>

#include <new>

namespace tensor_bridge {
namespace {

// Nodes are never freed, only reused: a release may come from a thread that is already running its
// last destructors, and the sum must include the counts of finished threads.
std::atomic<CounterNode*> g_nodes{nullptr};
pthread_key_t g_key;
bool g_has_key = false;
pthread_once_t g_key_once = PTHREAD_ONCE_INIT;

void giveBack(void* node) {
  detail::t_counter = nullptr;
  static_cast<CounterNode*>(node)->in_use.store(false, std::memory_order_release);
}

void makeKey() { g_has_key = pthread_key_create(&g_key, giveBack) == 0; }

}  // namespace

namespace detail {

__thread CounterNode* t_counter = nullptr;

CounterNode* acquireCounter() noexcept {
  pthread_once(&g_key_once, makeKey);
  CounterNode* node = g_nodes.load(std::memory_order_acquire);
  for (; node != nullptr; node = node->next) {
    bool expected = false;
    if (node->in_use.compare_exchange_strong(expected, true, std::memory_order_acquire)) break;
  }
  if (node == nullptr) {
    node = new (std::nothrow) CounterNode;
    if (node == nullptr) return nullptr;
    node->in_use.store(true, std::memory_order_relaxed);
    node->next = g_nodes.load(std::memory_order_relaxed);
    while (!g_nodes.compare_exchange_weak(node->next, node, std::memory_order_release,
                                          std::memory_order_relaxed)) {
    }
  }
  t_counter = node;
  // In a process without a free key one node per thread leaks.
  if (g_has_key) pthread_setspecific(g_key, node);
  return node;
}

}  // namespace detail

int64_t liveOwners() noexcept {
  int64_t total = 0;
  for (CounterNode* node = g_nodes.load(std::memory_order_acquire); node != nullptr;
       node = node->next) {
    total += node->value.load(std::memory_order_relaxed);
  }
  return total;
}

}  // namespace tensor_bridge
