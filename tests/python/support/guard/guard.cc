// Write detector for the tests: TensorFlow tensors over read-only pages, and a SIGSEGV handler that
// records who touched them. It knows nothing of tensor_bridge or torch, and it is not for
// production: the handler makes the touched page accessible and lets the access happen, so that one
// run can report every offender.
//
// Functions that make a TensorFlow object need the GIL: load this library with ctypes.PyDLL.

#include <dlfcn.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#define TBG_EXPORT extern "C" __attribute__((visibility("default")))

struct _object;
struct TF_Status;
struct TF_Tensor;
struct TFE_TensorHandle;

namespace {

// --- Regions -------------------------------------------------------------------------------------

enum State : int { kFree = 0, kLive = 1, kReleased = 2 };
enum Kind : int { kWrite = 1, kUseAfterRelease = 2 };

// The handler reads base, size and state without a lock, from any thread; the rest belongs to the
// threads that hold mutex().
struct Region {
  std::atomic<uintptr_t> base{0};
  std::atomic<size_t> size{0};  // whole pages
  std::atomic<int> state{kFree};
  size_t nbytes = 0;
  void* original = nullptr;
};

struct Fault {
  int32_t kind;
  int32_t region;
  int32_t op;
  int32_t reserved;
  int64_t offset;
};

constexpr int kMaxRegions = 1 << 16;
constexpr int kMaxFaults = 1 << 12;

Region g_regions[kMaxRegions];
std::atomic<int> g_high_water{0};
std::atomic<int> g_live{0};
std::atomic<int> g_changed{0};
std::atomic<int> g_operator{-1};
std::atomic<bool> g_pages_opened{false};
Fault g_faults[kMaxFaults];
std::atomic<int> g_fault_count{0};
struct sigaction g_previous;
bool g_armed = false;

// Leaked on purpose: TensorFlow may release a tensor after static destructors ran.
std::mutex& mutex() {
  static auto* m = new std::mutex;
  return *m;
}
std::vector<int>& freeSlots() {
  static auto* v = new std::vector<int>;
  return *v;
}
std::string& error() {
  static auto* s = new std::string;
  return *s;
}

size_t pageSize() {
  static const size_t size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return size;
}

// --- The handler ---------------------------------------------------------------------------------

// Only loads, stores and mprotect(2) in here: it interrupts arbitrary code on any thread.
bool recordFault(uintptr_t address) {
  const int end = g_high_water.load(std::memory_order_acquire);
  for (int i = 0; i < end; ++i) {
    Region& r = g_regions[i];
    const int state = r.state.load(std::memory_order_acquire);
    if (state == kFree) continue;
    const uintptr_t base = r.base.load(std::memory_order_relaxed);
    if (address < base || address >= base + r.size.load(std::memory_order_relaxed)) continue;
    const int slot = g_fault_count.fetch_add(1, std::memory_order_relaxed);
    if (slot < kMaxFaults) {
      // A live region is readable, so a fault in it is a write.
      g_faults[slot] = {state == kLive ? kWrite : kUseAfterRelease, i,
                        g_operator.load(std::memory_order_relaxed), 0,
                        static_cast<int64_t>(address - base)};
    }
    g_pages_opened.store(true, std::memory_order_relaxed);
    const uintptr_t page = address & ~static_cast<uintptr_t>(pageSize() - 1);
    return mprotect(reinterpret_cast<void*>(page), pageSize(), PROT_READ | PROT_WRITE) == 0;
  }
  return false;
}

void onSegv(int signal, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  const bool ours = recordFault(reinterpret_cast<uintptr_t>(info->si_addr));
  errno = saved_errno;
  if (ours) return;
  if (g_previous.sa_flags & SA_SIGINFO) {
    g_previous.sa_sigaction(signal, info, context);
  } else if (g_previous.sa_handler == SIG_DFL || g_previous.sa_handler == SIG_IGN) {
    // The access is repeated on return and takes the default way.
    sigaction(SIGSEGV, &g_previous, nullptr);
  } else {
    g_previous.sa_handler(signal);
  }
}

// --- TensorFlow ----------------------------------------------------------------------------------

struct TensorFlow {
  TF_Tensor* (*newTensor)(int, const int64_t*, int, void*, size_t, void (*)(void*, size_t, void*),
                          void*) = nullptr;
  void (*deleteTensor)(TF_Tensor*) = nullptr;
  TF_Status* (*newStatus)() = nullptr;
  void (*deleteStatus)(TF_Status*) = nullptr;
  int (*getCode)(const TF_Status*) = nullptr;
  const char* (*message)(const TF_Status*) = nullptr;
  TFE_TensorHandle* (*newHandle)(const TF_Tensor*, TF_Status*) = nullptr;
  _object* (*eagerTensorFromHandle)(TFE_TensorHandle*, bool) = nullptr;
};
TensorFlow g_tf;

template <class F>
bool resolve(void* library, const char* name, F& function) {
  function = reinterpret_cast<F>(dlsym(library, name));
  if (function == nullptr) error() += std::string("TensorFlow has no symbol ") + name + ". ";
  return function != nullptr;
}

void removeLocked(Region& r, int id) {
  munmap(reinterpret_cast<void*>(r.base.load()), r.size.load());
  std::free(r.original);
  r.original = nullptr;
  r.state.store(kFree, std::memory_order_release);
  freeSlots().push_back(id);
}

// TensorFlow's deallocator: any thread, with or without the GIL. The pages stay mapped without
// access until reclaim(), so that a late reader is recorded, not killed.
void release(void*, size_t, void* arg) {
  const int id = static_cast<int>(reinterpret_cast<intptr_t>(arg));
  std::lock_guard<std::mutex> lock(mutex());
  Region& r = g_regions[id];
  void* base = reinterpret_cast<void*>(r.base.load());
  if (std::memcmp(base, r.original, r.nbytes) != 0) g_changed.fetch_add(1);
  mprotect(base, r.size.load(), PROT_NONE);
  r.state.store(kReleased, std::memory_order_release);
  g_live.fetch_sub(1);
}

int allocate(const void* bytes, size_t nbytes) {
  std::lock_guard<std::mutex> lock(mutex());
  int id;
  if (!freeSlots().empty()) {
    id = freeSlots().back();
    freeSlots().pop_back();
  } else if (g_high_water.load() < kMaxRegions) {
    id = g_high_water.load();
  } else {
    error() = "out of guarded regions: reclaim() was not called";
    return -1;
  }
  // A zero-size tensor gets a page too: nobody may write there either.
  const size_t size =
      (nbytes / pageSize() + (nbytes % pageSize() != 0 || nbytes == 0)) * pageSize();
  void* base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  void* original = std::malloc(nbytes == 0 ? 1 : nbytes);
  if (base == MAP_FAILED || original == nullptr) {
    if (base != MAP_FAILED) munmap(base, size);
    std::free(original);
    if (id != g_high_water.load()) freeSlots().push_back(id);
    error() = "no memory for a guarded region";
    return -1;
  }
  if (nbytes != 0) {
    std::memcpy(base, bytes, nbytes);
    std::memcpy(original, bytes, nbytes);
  }
  mprotect(base, size, PROT_READ);
  Region& r = g_regions[id];
  r.base.store(reinterpret_cast<uintptr_t>(base));
  r.size.store(size);
  r.nbytes = nbytes;
  r.original = original;
  r.state.store(kLive, std::memory_order_release);
  if (id == g_high_water.load()) g_high_water.store(id + 1, std::memory_order_release);
  g_live.fetch_add(1);
  return id;
}

}  // namespace

// Looks TensorFlow's symbols up in the library that Python loaded; 0, or -1 with tbg_error().
TBG_EXPORT int tbg_load() {
  error().clear();
  void* library = nullptr;
  for (const char* name : {"lib_pywrap_tensorflow_common.so", "_pywrap_tensorflow_internal.so"}) {
    library = dlopen(name, RTLD_NOLOAD | RTLD_LAZY);
    if (library != nullptr) break;
  }
  if (library == nullptr) {
    error() = "TensorFlow is not loaded in this process";
    return -1;
  }
  const bool ok =
      resolve(library, "TF_NewTensor", g_tf.newTensor) &
      resolve(library, "TF_DeleteTensor", g_tf.deleteTensor) &
      resolve(library, "TF_NewStatus", g_tf.newStatus) &
      resolve(library, "TF_DeleteStatus", g_tf.deleteStatus) &
      resolve(library, "TF_GetCode", g_tf.getCode) & resolve(library, "TF_Message", g_tf.message) &
      resolve(library, "TFE_NewTensorHandle", g_tf.newHandle) &
      resolve(library, "_Z21EagerTensorFromHandleP16TFE_TensorHandleb", g_tf.eagerTensorFromHandle);
  return ok ? 0 : -1;
}

TBG_EXPORT const char* tbg_error() { return error().c_str(); }

// Installs the handler in front of the one that is there; harmless when already installed.
TBG_EXPORT int tbg_arm() {
  if (g_armed) return 0;
  struct sigaction action = {};
  action.sa_sigaction = &onSegv;
  // SA_NODEFER: a fault inside the previous handler must reach a handler too.
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigemptyset(&action.sa_mask);
  if (sigaction(SIGSEGV, &action, &g_previous) != 0) return -1;
  g_armed = true;
  return 0;
}

// Puts the previous handler back; -1 when somebody else took the signal in the meantime.
TBG_EXPORT int tbg_disarm() {
  if (!g_armed) return 0;
  struct sigaction current = {};
  sigaction(SIGSEGV, nullptr, &current);
  if (!(current.sa_flags & SA_SIGINFO) || current.sa_sigaction != &onSegv) return -1;
  sigaction(SIGSEGV, &g_previous, nullptr);
  g_armed = false;
  return 0;
}

// 1 while SIGSEGV comes to this library first.
TBG_EXPORT int tbg_armed() {
  struct sigaction current = {};
  sigaction(SIGSEGV, nullptr, &current);
  return (current.sa_flags & SA_SIGINFO) && current.sa_sigaction == &onSegv;
}

// Names the operator that later faults belong to, and closes the pages that earlier ones opened.
TBG_EXPORT void tbg_set_operator(int op) {
  g_operator.store(op);
  if (!g_pages_opened.exchange(false)) return;
  std::lock_guard<std::mutex> lock(mutex());
  for (int i = 0; i < g_high_water.load(); ++i) {
    Region& r = g_regions[i];
    const int state = r.state.load();
    if (state == kFree) continue;
    mprotect(reinterpret_cast<void*>(r.base.load()), r.size.load(),
             state == kLive ? PROT_READ : PROT_NONE);
  }
}

// A new EagerTensor over a read-only copy of `bytes` (a new reference; the caller owns it), or null
// with tbg_error() or a Python error. `region` receives its number, valid until it is reclaimed.
TBG_EXPORT _object* tbg_eager_tensor(int dtype, const int64_t* dims, int ndim, const void* bytes,
                                     size_t nbytes, int* region) {
  error().clear();
  const int id = allocate(bytes, nbytes);
  if (id < 0) return nullptr;
  void* base = reinterpret_cast<void*>(g_regions[id].base.load());
  // From here the region belongs to TensorFlow, which calls release() on every path.
  TF_Tensor* tensor = g_tf.newTensor(dtype, dims, ndim, base, nbytes, &release,
                                     reinterpret_cast<void*>(static_cast<intptr_t>(id)));
  if (tensor == nullptr) {
    error() = "TF_NewTensor failed";
    return nullptr;
  }
  TF_Status* status = g_tf.newStatus();
  TFE_TensorHandle* handle = g_tf.newHandle(tensor, status);
  g_tf.deleteTensor(tensor);
  if (g_tf.getCode(status) != 0) error() = g_tf.message(status);
  g_tf.deleteStatus(status);
  if (handle == nullptr) return nullptr;
  *region = id;
  return g_tf.eagerTensorFromHandle(handle, false);
}

TBG_EXPORT void* tbg_region_address(int id) {
  return reinterpret_cast<void*>(g_regions[id].base.load());
}

// 1 when a live region holds other bytes than it was made with.
TBG_EXPORT int tbg_region_changed(int id) {
  std::lock_guard<std::mutex> lock(mutex());
  Region& r = g_regions[id];
  if (r.state.load() != kLive) return 0;
  return std::memcmp(reinterpret_cast<void*>(r.base.load()), r.original, r.nbytes) != 0;
}

// Regions that TensorFlow still holds.
TBG_EXPORT int tbg_live_regions() { return g_live.load(); }

// How many regions were found changed when TensorFlow released them, since the last call.
TBG_EXPORT int tbg_take_changed() { return g_changed.exchange(0); }

// Copies up to `capacity` records out, forgets them all, and returns how many faults there were.
TBG_EXPORT int tbg_take_faults(Fault* out, int capacity) {
  const int count = g_fault_count.exchange(0);
  for (int i = 0; i < count && i < capacity && i < kMaxFaults; ++i) out[i] = g_faults[i];
  return count;
}

// Unmaps the regions that TensorFlow released: nobody may hold a pointer into them any more.
TBG_EXPORT void tbg_reclaim() {
  std::lock_guard<std::mutex> lock(mutex());
  for (int i = 0; i < g_high_water.load(); ++i) {
    if (g_regions[i].state.load() == kReleased) removeLocked(g_regions[i], i);
  }
}
