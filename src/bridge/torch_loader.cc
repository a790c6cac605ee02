#include "bridge/torch_loader.h"

#include <dlfcn.h>

#include <atomic>
#include <mutex>
#include <string>

#include "adapters/tensorflow/export.h"
#include "core/dlpack_import.h"
#include "core/error.h"
#include "core/owner_counter.h"
#include "core/shutdown.h"
#include "tensor_bridge/version.h"

namespace tensor_bridge {
namespace {

std::atomic<const TorchAdapter*> g_adapter{nullptr};
std::mutex g_mutex;
int g_minor = -1;

// Groups of torch releases whose classes have the same layout; an adapter is named for the first
// minor of its group. A binary of another group links and then aborts, so only listed minors load.
struct Group {
  int first;
  int last;
};
constexpr Group kGroups[] = {{6, 6}, {7, 7}, {8, 9}, {10, 12}, {13, 15}};

int firstMinorOfGroup(int major, int minor) {
  if (major == 2) {
    for (const Group& group : kGroups) {
      if (minor >= group.first && minor <= group.last) return group.first;
    }
  }
  throwError(
      ErrorCode::kFramework,
      "torch %d.%d is not supported by tensor_bridge " TENSOR_BRIDGE_VERSION
      ", which knows torch 2.6 to 2.15; install one of these (pip install 'torch>=2.6,<2.16')",
      major, minor);
}

// Beside this library.
std::string directoryOfThisLibrary() {
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(&useTorch), &info) == 0 || info.dli_fname == nullptr) {
    return "";
  }
  const std::string path = info.dli_fname;
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash + 1);
}

}  // namespace

void useTorch(int major, int minor) {
  std::lock_guard<std::mutex> lock(g_mutex);
  if (g_adapter.load(std::memory_order_relaxed) != nullptr) {
    if (major == 2 && minor == g_minor) return;
    throwError(ErrorCode::kFramework,
               "this process already uses torch 2.%d; asked for %d.%d. The headers that an "
               "application is built with must be those of the torch that it runs",
               g_minor, major, minor);
  }
  const int first = firstMinorOfGroup(major, minor);
  if (dlopen("libtorch_cpu.so", RTLD_NOLOAD | RTLD_LAZY | RTLD_LOCAL) == nullptr) {
    throwError(ErrorCode::kFramework,
               "torch is not loaded in this process (libtorch_cpu.so); load it first (Python: "
               "import torch; C++: link libtorch)");
  }
  const std::string path =
      formatted("%slibtensor_bridge_torch_2_%d.so", directoryOfThisLibrary().c_str(), first);
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    throwError(ErrorCode::kFramework,
               "the adapter for torch %d.%d could not be loaded: %s. Install tensor_bridge again "
               "where this torch is installed (pip install --no-build-isolation .)",
               major, minor, dlerror());
  }
  // A storage with one of these shows memory that is not torch's.
  static const ReleaseFn foreign[] = {releaseHandle,  releaseTensor,   releaseTensorAlias,
                                      releaseManaged, releaseWritable, nullptr};
  static const TorchHost host = {setLastError, countOwner, processExiting, foreign};
  auto entry = reinterpret_cast<TorchAdapterEntry>(dlsym(library, kTorchAdapterEntry));
  const TorchAdapter* adapter = entry == nullptr ? nullptr : entry(kTorchAdapterAbi, &host);
  if (adapter == nullptr || adapter->struct_size != sizeof(TorchAdapter)) {
    throwError(ErrorCode::kFramework,
               "%s does not belong to this libtensor_bridge.so; install tensor_bridge again",
               path.c_str());
  }
  g_minor = minor;
  g_adapter.store(adapter, std::memory_order_release);
}

const TorchAdapter& torchAdapter() {
  const TorchAdapter* adapter = g_adapter.load(std::memory_order_acquire);
  if (__builtin_expect(adapter == nullptr, 0)) {
    throwError(ErrorCode::kFramework,
               "no torch is in use yet; call tb_use_torch(major, minor) first (the Python package "
               "and torch.h do)");
  }
  return *adapter;
}

}  // namespace tensor_bridge
