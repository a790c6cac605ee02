// Errors inside the library: how they are raised, and the thread-local message behind
// tb_last_error(). Not for: mapping to Python exceptions (src/extension).
#ifndef TENSOR_BRIDGE_CORE_ERROR_H_
#define TENSOR_BRIDGE_CORE_ERROR_H_

#include <string>

#include "tensor_bridge/error.h"

namespace tensor_bridge {

/// Remembers `message` as this thread's latest failure and returns `code`. Never throws: without
/// memory for the message a static text replaces it.
tb_status setLastError(tb_status code, const char* message) noexcept;

/// The message of this thread's latest failure, "" before the first; and its status.
const char* lastError() noexcept;
tb_status lastStatus() noexcept;

/// Throws the Error that setLastError() remembered: for failures that came through a C boundary.
[[noreturn]] void rethrowLastError();

/// setLastError() for the exception in flight. Call it in a catch block.
tb_status setLastErrorFromException() noexcept;

/// printf-style construction of an Error.
[[noreturn]] __attribute__((format(printf, 2, 3))) void throwError(ErrorCode code,
                                                                   const char* format, ...);

__attribute__((format(printf, 1, 2))) std::string formatted(const char* format, ...);

const char* statusName(tb_status status) noexcept;

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_CORE_ERROR_H_
