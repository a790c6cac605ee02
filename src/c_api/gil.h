// Releasing the GIL without Python's headers: through the two functions that the caller passed in.
// Not for: entries of the neutral family, which run without a GIL.
#ifndef TENSOR_BRIDGE_C_API_GIL_H_
#define TENSOR_BRIDGE_C_API_GIL_H_

#include <cxxabi.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace tensor_bridge {

// Copies below this size are quicker than releasing the GIL and taking it again.
constexpr int64_t kGilFreeBytes = 64 * 1024;

inline std::atomic<void* (*)()> g_save_thread{nullptr};
inline std::atomic<void (*)(void*)> g_restore_thread{nullptr};

class GilRelease {
 public:
  explicit GilRelease(bool release) {
    if (!release) return;
    auto* save = g_save_thread.load(std::memory_order_acquire);
    if (save != nullptr) state_ = save();
  }
  ~GilRelease() {
    if (state_ == nullptr) return;
    try {
      g_restore_thread.load(std::memory_order_acquire)(state_);
    } catch (const abi::__forced_unwind&) {
      // Python before 3.14 ends a daemon thread that takes the GIL of an exiting interpreter, by
      // pthread_exit. Unwinding further would meet a destructor or a noexcept and abort the
      // process. So the thread stops here instead, as it does in 3.14.
      for (;;) pause();
    }
  }
  GilRelease(const GilRelease&) = delete;
  GilRelease& operator=(const GilRelease&) = delete;

 private:
  void* state_ = nullptr;
};

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_C_API_GIL_H_
