// Releasing the GIL without Python's headers: through the two functions that the caller passed in.
// Not for: entries of the neutral family, which run without a GIL.
#ifndef TENSOR_BRIDGE_C_API_GIL_H_
#define TENSOR_BRIDGE_C_API_GIL_H_

#include <cxxabi.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace tensor_bridge {

// Copies below this are quicker than giving the GIL away and taking it back.
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
      // Python before 3.14 ends a daemon thread that wants the GIL of an interpreter that is
      // leaving, by pthread_exit. Unwinding further would meet a destructor or a noexcept and
      // abort the process; the thread stops here instead, as it does in 3.14.
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
