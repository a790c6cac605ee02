#include "core/exit.h"

#include <cstdlib>

namespace tensor_bridge {
namespace detail {
std::atomic<bool> g_process_exiting{false};
}

void watchProcessExit() noexcept {
  static const int registered =
      std::atexit([] { detail::g_process_exiting.store(true, std::memory_order_relaxed); });
  static_cast<void>(registered);
}

}  // namespace tensor_bridge
