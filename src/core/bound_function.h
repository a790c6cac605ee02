// Which function a loaded library calls by a name: where several libraries of the process define
// it, the linker's choice depends on the order in which they were loaded. Linux (ELF) only.
// Not for: loading anything.
#ifndef TENSOR_BRIDGE_CORE_BOUND_FUNCTION_H_
#define TENSOR_BRIDGE_CORE_BOUND_FUNCTION_H_

#include <string>

namespace tensor_bridge {

/// What a call of `function` from `library`, a file name such as "libc10_cuda.so", reaches. Null
/// where the library is not loaded or calls nothing of that name.
void* boundFunction(const char* library, const char* function) noexcept;

/// The library that an address is in, as a path; "" for none.
std::string libraryOf(const void* address);

/// The definition of `function` that a loaded library, a file name or a path, has or is linked
/// with, whatever its calls reach. Null where there is none.
void* ownFunction(const char* library, const char* function) noexcept;

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_CORE_BOUND_FUNCTION_H_
