// The exception barrier around every entry of the C ABI.
// Not for: code that may throw across a C boundary; nothing may.
#ifndef TENSOR_BRIDGE_C_API_BARRIER_H_
#define TENSOR_BRIDGE_C_API_BARRIER_H_

#include <type_traits>

#include "core/error.h"

namespace tensor_bridge {

/// Returns the result of `body`, a tb_status or nothing. A body that returns a failure has set the
/// message.
template <typename Body>
tb_status guarded(Body&& body) noexcept {
  try {
    if constexpr (std::is_same_v<decltype(body()), tb_status>) {
      return body();
    } else {
      body();
      return TB_OK;
    }
  } catch (...) {
    return setLastErrorFromException();
  }
}

/// Makes a null in place of a required handle or result pointer an error, not a crash.
inline void require(const void* pointer, const char* what) {
  if (__builtin_expect(pointer == nullptr, 0)) {
    throwError(ErrorCode::kInvalidHandle, "expected %s, got null", what);
  }
}

[[gnu::cold, gnu::noinline]] inline bool sayNull(const char* what) noexcept {
  return guarded([&] { require(nullptr, what); }) != TB_OK;
}

/// For an entry that returns no status: whether the caller gave null instead of `what`. Sets the
/// message of require().
inline bool isNull(const void* pointer, const char* what) noexcept {
  return __builtin_expect(pointer == nullptr, 0) && sayNull(what);
}

/// Throws Error{kInvalidOption} unless the caller's struct has this library's size,
/// {kInvalidHandle} for null.
template <typename Struct>
void checkStructSize(const Struct* out, const char* name) {
  require(out, name);
  if (out->struct_size != sizeof(Struct)) {
    throwError(ErrorCode::kInvalidOption, "set struct_size of %s to %zu before the call", name,
               sizeof(Struct));
  }
}

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_C_API_BARRIER_H_
