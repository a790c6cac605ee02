#include "bridge/torch_loader.h"

#include <dlfcn.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>

#include "adapters/tensorflow/owner.h"
#include "bridge/torch_groups.h"
#include "bridge/torch_self_test.h"
#include "core/dlpack_import.h"
#include "core/error.h"
#include "core/exit.h"
#include "core/owner_counter.h"
#include "tensor_bridge/version.h"

namespace tensor_bridge {
namespace {

std::atomic<const TorchAdapter*> g_adapter{nullptr};
std::mutex g_mutex;
std::atomic<TorchAdapterEntry> g_copying{nullptr};
int g_major = -1;
int g_minor = -1;
// Why everything is copied; "" if it is not. Written once, under the mutex.
char g_reason[512] = "";
std::atomic<bool> g_copies{false};

bool isNewer(int major, int minor) { return major > 2 || (major == 2 && minor > kLastTorchMinor); }

// A binary of another group links and then aborts, so only listed minors load.
int firstMinorOfGroup(int major, int minor) {
  if (major == 2) {
    for (const TorchGroup& group : kTorchGroups) {
      if (minor >= group.first && minor <= group.last) return group.first;
    }
  }
  throwError(ErrorCode::kFramework,
             "torch %d.%d is not supported by tensor_bridge " TENSOR_BRIDGE_VERSION
             ", which knows torch " TB_TORCH_RANGE
             "; install one of these (pip install " TB_TORCH_REQUIREMENT ")",
             major, minor);
}

// The absolute folder of this library, with a slash at its end; empty if it cannot be told.
std::string folderOfThisLibrary() {
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(&useTorch), &info) == 0 || info.dli_fname == nullptr) {
    return "";
  }
  std::string path = info.dli_fname;
  if (path[0] != '/') {
    std::unique_ptr<char, decltype(&std::free)> here(getcwd(nullptr, 0), std::free);
    // Linux reports "(unreachable)" for a folder outside the root.
    if (here == nullptr || here.get()[0] != '/') return "";
    path = std::string(here.get()) + '/' + path;
    // Checks that it is this library: another thread may have called chdir() meanwhile, and for a
    // program dladdr() returns the name by which it was called.
    void* same = dlopen(path.c_str(), RTLD_NOLOAD | RTLD_LAZY | RTLD_LOCAL);
    if (same == nullptr) return "";
    dlclose(same);
  }
  return path.substr(0, path.rfind('/') + 1);
}

// The folder at the time this library is loaded: dladdr() returns the path by which it was opened,
// and a relative path leads elsewhere after chdir(). Never freed: code that runs at exit may still
// load an adapter.
const std::string& g_folder = *new std::string(folderOfThisLibrary());

void requireLoadedTorch() {
  if (dlopen("libtorch_cpu.so", RTLD_NOLOAD | RTLD_LAZY | RTLD_LOCAL) == nullptr) {
    throwError(ErrorCode::kFramework,
               "torch is not loaded in this process (libtorch_cpu.so); load it first (Python: "
               "import torch; C++: link libtorch)");
  }
}

// The table of an adapter; gives the adapter the bridge's functions.
const TorchAdapter* tableOf(TorchAdapterEntry entry) {
  // A storage with an owner of these kinds is over memory that is not torch's. The usual kind
  // first.
  static const OwnerKind kinds[] = {
      kTensorFlowOwners[0], kTensorFlowOwners[1], kTensorFlowOwners[2], kManagedOwner,
      kWritableOwner,       kProbeOwner,          OwnerKind{}};
  static const TorchHost host = {setLastError, countOwner, processExiting, kinds};
  const TorchAdapter* adapter = entry == nullptr ? nullptr : entry(kTorchAdapterAbi, &host);
  return adapter != nullptr && adapter->struct_size == sizeof(TorchAdapter) ? adapter : nullptr;
}

// Null, with the reason in `*refusal`, if the adapter exists but does not load with this build of
// torch: 2.6 has builds with either C++ ABI. Throws if there is no adapter for this release.
const TorchAdapter* loadAdapter(int major, int minor, std::string* refusal) {
  const int first = firstMinorOfGroup(major, minor);
  requireLoadedTorch();
  if (g_folder.empty()) {
    throwError(ErrorCode::kFramework,
               "the folder of libtensor_bridge.so, where the adapter for torch %d.%d is, could not "
               "be told when it was loaded; open it by its absolute path",
               major, minor);
  }
  const std::string path = formatted("%slibtensor_bridge_torch_2_%d.so", g_folder.c_str(), first);
  if (access(path.c_str(), F_OK) != 0) {
    throwError(ErrorCode::kFramework,
               "there is no adapter for torch %d.%d (%s): tensor_bridge was built where another "
               "torch is installed. Build it again where this one is (pip install "
               "--no-build-isolation .), or install the wheel",
               major, minor, path.c_str());
  }
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* error = dlerror();
    *refusal = formatted("the adapter for torch %d.%d does not load with this build of torch (%s)",
                         major, minor, error == nullptr ? "unknown reason" : error);
    return nullptr;
  }
  const TorchAdapter* adapter =
      tableOf(reinterpret_cast<TorchAdapterEntry>(dlsym(library, kTorchAdapterEntry)));
  if (adapter == nullptr) {
    throwError(ErrorCode::kFramework,
               "%s does not belong to this libtensor_bridge.so; install tensor_bridge again",
               path.c_str());
  }
  return adapter;
}

// loadAdapter(), but also null if the adapter fails its self-test.
const TorchAdapter* testedAdapter(int major, int minor, std::string* refusal) {
  const TorchAdapter* adapter = loadAdapter(major, minor, refusal);
  const char* failure = adapter == nullptr ? nullptr : selfTest(*adapter);
  if (failure == nullptr) return adapter;
  *refusal =
      formatted("the adapter for torch %d.%d failed its self-test (%s)", major, minor, failure);
  return nullptr;
}

// Under the mutex. Whether this release is already in use; throws if another one is.
bool isInUse(int major, int minor) {
  if (g_adapter.load(std::memory_order_relaxed) == nullptr) return false;
  if (major == g_major && minor == g_minor) return true;
  throwError(ErrorCode::kFramework,
             "this process already uses torch %d.%d; asked for %d.%d. The headers that an "
             "application is built with must be those of the torch that it runs",
             g_major, g_minor, major, minor);
}

void publish(const TorchAdapter* adapter, int major, int minor) {
  g_major = major;
  g_minor = minor;
  g_adapter.store(adapter, std::memory_order_release);
}

}  // namespace

void useTorch(int major, int minor) {
  std::lock_guard<std::mutex> lock(g_mutex);
  if (isInUse(major, minor)) {
    if (!g_copies.load(std::memory_order_relaxed)) return;
    throwError(ErrorCode::kFramework, "%s. C++ needs a torch that it can share memory with",
               g_reason);
  }
  std::string refusal;
  const TorchAdapter* adapter = testedAdapter(major, minor, &refusal);
  if (adapter == nullptr) {
    throwError(ErrorCode::kFramework,
               "%s. It is not used; build tensor_bridge where this torch is installed, or install "
               "another build of torch",
               refusal.c_str());
  }
  publish(adapter, major, minor);
}

void setCopyingTorch(TorchAdapterEntry entry) noexcept {
  g_copying.store(entry, std::memory_order_release);
}

void useTorchOrCopy(int major, int minor, bool proven) {
  const TorchAdapterEntry copying = g_copying.load(std::memory_order_acquire);
  std::string reason;
  {
    std::lock_guard<std::mutex> lock(g_mutex);
    if (isInUse(major, minor)) return;
    if (copying != nullptr && isNewer(major, minor)) {
      reason = formatted("torch %d.%d is newer than tensor_bridge " TENSOR_BRIDGE_VERSION
                         " knows (" TB_TORCH_RANGE ")",
                         major, minor);
    } else if (copying != nullptr && !proven) {
      reason = formatted("this torch %d.%d is a pre-release, which no adapter is proven with",
                         major, minor);
    } else if (const TorchAdapter* adapter = testedAdapter(major, minor, &reason)) {
      publish(adapter, major, minor);
      return;
    }
  }
  requireLoadedTorch();
  const TorchAdapter* adapter = tableOf(copying);
  // Without the mutex: this adapter runs Python, and a thread that waits for the mutex may hold the
  // GIL.
  const char* broken = adapter == nullptr ? "it is missing" : selfTest(*adapter);
  if (broken != nullptr) {
    throwError(
        ErrorCode::kFramework,
        "torch %d.%d cannot be used, not even through copies: %s; %s. Install torch " TB_TORCH_RANGE
        " (pip install " TB_TORCH_REQUIREMENT ")",
        major, minor, broken, reason.c_str());
  }
  std::lock_guard<std::mutex> lock(g_mutex);
  if (isInUse(major, minor)) return;
  reason.copy(g_reason, sizeof(g_reason) - 1);
  g_copies.store(true, std::memory_order_release);
  publish(adapter, major, minor);
}

const char* copyingReason() noexcept {
  return g_copies.load(std::memory_order_acquire) ? g_reason : nullptr;
}

const TorchAdapter* torchAdapterInUse() noexcept {
  return g_adapter.load(std::memory_order_acquire);
}

const TorchAdapter& torchAdapter() {
  const TorchAdapter* adapter = torchAdapterInUse();
  if (__builtin_expect(adapter == nullptr, 0)) {
    throwError(ErrorCode::kFramework,
               "no torch is in use yet; call tb_use_torch(major, minor) first (the Python package "
               "and torch.h do)");
  }
  return *adapter;
}

}  // namespace tensor_bridge
