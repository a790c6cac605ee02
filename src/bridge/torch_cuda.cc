#include "bridge/torch_cuda.h"

#include <atomic>
#include <cstdio>
#include <string>

#include "core/bound_function.h"
#include "core/error.h"

namespace tensor_bridge {
namespace {

// The one library of torch that calls the CUDA runtime; torch's others call it.
constexpr const char* kTorch = "libc10_cuda.so";

// 13000 for CUDA 13.0; 0 without a runtime. Does not start CUDA.
int runtimeVersion(void* function) noexcept {
  int version = 0;
  if (function == nullptr) return 0;
  return reinterpret_cast<int (*)(int*)>(function)(&version) == 0 ? version : 0;
}

std::string named(int version) {
  return version == 0 ? "none" : formatted("CUDA %d.%d", version / 1000, version % 1000 / 10);
}

}  // namespace

void requireTorchCuda() {
  static std::atomic<bool> known{false};
  if (known.load(std::memory_order_relaxed)) return;
  void* called = boundFunction(kTorch, "cudaGetDevice");
  if (called == nullptr) return;  // no CUDA build, or not loaded yet
  const std::string library = libraryOf(called);
  if (library.find("libtensorflow") != std::string::npos) {
    const int own = runtimeVersion(ownFunction(kTorch, "cudaRuntimeGetVersion"));
    const int reached = runtimeVersion(ownFunction(library.c_str(), "cudaRuntimeGetVersion"));
    // With the same major version it is the same library, under the same name.
    if (own == 0 || own / 1000 != reached / 1000) {
      throwError(ErrorCode::kFramework,
                 "torch's calls of CUDA reach TensorFlow's (%s) in place of torch's own (%s): "
                 "TensorFlow was imported before tensor_bridge and torch, and its libraries have "
                 "taken the place of torch's; using a GPU would crash. Instead import "
                 "tensor_bridge (or torch) before TensorFlow, in the file that starts the program "
                 "above every import that loads TensorFlow",
                 named(reached).c_str(), named(own).c_str());
    }
  }
  known.store(true, std::memory_order_relaxed);
}

}  // namespace tensor_bridge
