// onThreads, atOnce: threads that start together. Not for: threads that wait for one another.
#ifndef TENSOR_BRIDGE_TESTS_SUPPORT_ON_THREADS_H_
#define TENSOR_BRIDGE_TESTS_SUPPORT_ON_THREADS_H_

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

namespace tensor_bridge::testing {

/// Runs `body(index)` on `count` threads that start together, and waits for them.
template <typename Body>
void onThreads(int count, Body&& body) {
  std::atomic<int> waiting{count};
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) {
    threads.emplace_back([&, i] {
      waiting.fetch_sub(1);
      while (waiting.load() > 0) std::this_thread::yield();
      body(i);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

/// Runs each function on a separate thread.
inline void atOnce(const std::vector<std::function<void()>>& functions) {
  onThreads(static_cast<int>(functions.size()),
            [&](int i) { functions[static_cast<size_t>(i)](); });
}

}  // namespace tensor_bridge::testing

#endif  // TENSOR_BRIDGE_TESTS_SUPPORT_ON_THREADS_H_
