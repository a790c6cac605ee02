// Whether the process is exiting: release functions then leak instead of calling into a framework
// whose static objects may be gone. Not for: interpreter shutdown; nothing here touches Python.
#ifndef TENSOR_BRIDGE_CORE_EXIT_H_
#define TENSOR_BRIDGE_CORE_EXIT_H_

#include <atomic>

namespace tensor_bridge {

namespace detail {
extern std::atomic<bool> g_process_exiting;
}

/// Arms the flag through atexit; idempotent. Called once a framework is loaded: exit handlers run
/// in reverse order, so ours runs before the destructors of what was loaded earlier.
void watchProcessExit() noexcept;

inline bool processExiting() noexcept {
  return detail::g_process_exiting.load(std::memory_order_relaxed);
}

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_CORE_EXIT_H_
