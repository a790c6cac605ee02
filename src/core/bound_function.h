// The function that a loaded library calls by a name: if several libraries of the process define
// it, the linker's choice depends on the order in which they were loaded. Linux (ELF) only. Not
// for: loading anything.
#ifndef TENSOR_BRIDGE_CORE_BOUND_FUNCTION_H_
#define TENSOR_BRIDGE_CORE_BOUND_FUNCTION_H_

#include <string>

namespace tensor_bridge {

/// The address that a call of `function` from `library`, a file name such as "libc10_cuda.so",
/// reaches. Null if the library is not loaded or calls no function of that name.
void* boundFunction(const char* library, const char* function) noexcept;

/// The library that an address is in, as a path; "" for none.
std::string libraryOf(const void* address);

/// The definition of `function` in a loaded library (a file name or a path) or in its dependencies,
/// even if the library's calls reach another one. Null if there is none.
void* ownFunction(const char* library, const char* function) noexcept;

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_CORE_BOUND_FUNCTION_H_
