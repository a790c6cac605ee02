// Versions seen: TensorFlow 2.12 to 2.21. The C API and the four names of the Python extension
// keep their (mangled) names over all of them. EagerTensor_* and everything that it links against
// are found through lib_pywrap_tensorflow_common.so (2.19 and newer) or
// _pywrap_tensorflow_internal.so (2.18 and older); TF_* lives in libtensorflow_framework.so.2, and
// up to 2.18 in libtensorflow_cc.so.2 as well. IsReady is exported by libtensorflow_cc.so.2,
// RefCountIsOne by libtensorflow_framework.so.2, where 2.21 has it inline and exports it still.
//
// Never RTLD_DEFAULT: 2.19 to 2.21 load their libraries globally by accident (tensorflow #124205),
// other releases do not.

#include "adapters/tensorflow/tf_api.h"

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cstring>
#include <mutex>
#include <string>

#include "adapters/tensorflow/tensor_layout.h"
#include "core/error.h"
#include "core/exit.h"
#include "core/owner_counter.h"

namespace tensor_bridge {
namespace {

constexpr const char* kSonames[] = {
    "lib_pywrap_tensorflow_common.so",
    "_pywrap_tensorflow_internal.so",
    "libtensorflow_cc.so.2",
    "libtensorflow_framework.so.2",
    "libtensorflow.so.2",
};

constexpr const char* kCheckExactSymbol = "_Z22EagerTensor_CheckExactPK7_object";
constexpr const char* kHandleSymbol = "_Z18EagerTensor_HandlePK7_object";
constexpr const char* kFromHandleSymbol = "_Z21EagerTensorFromHandleP16TFE_TensorHandleb";
constexpr const char* kIsReadySymbol = "_ZNK10tensorflow12TensorHandle7IsReadyEv";
constexpr const char* kTensorSymbol = "_ZNK10tensorflow12TensorHandle6TensorEPPKNS_6TensorE";
constexpr const char* kDestroySymbol = "_ZN10tensorflow6TensorD1Ev";
constexpr const char* kRefCountSymbol = "_ZNK10tensorflow6Tensor13RefCountIsOneEv";
// Only for tensorLetGoAgrees(). int64_t is long in one ABI, long long in the other.
constexpr const char* kSliceSymbols[] = {"_ZNK10tensorflow6Tensor5SliceEll",
                                         "_ZNK10tensorflow6Tensor5SliceExx"};
constexpr const char* kVtableSymbol = "_ZTVN10tensorflow12TensorHandleE";

std::mutex g_mutex;

template <typename Function>
bool resolve(void* library, const char* name, Function** out) {
  *out = reinterpret_cast<Function*>(dlsym(library, name));
  return *out != nullptr;
}

// See TfApi::later_dtypes; none if TensorFlow does not tell.
uint64_t laterDtypes(void* library) {
  size_t (*size_of)(int);
  if (!resolve(library, "TF_DataTypeSize", &size_of)) return 0;
  uint64_t found = 0;
  // Strings and the other dtypes below have no size, and every release has them.
  for (int i = 24; i < 64; ++i) {
    if (size_of(i) == 0) found |= uint64_t{1} << i;
  }
  return found;
}

// Functions that need the layout of tensorflow::Tensor, but no handle.
void fillBuffers(void* library, TfApi* api) {
  if (!resolve(library, kDestroySymbol, &api->Tensor_destroy)) return;
  api->tensor_interface_vtable = interfaceVtable(*api);
  if (api->tensor_interface_vtable == nullptr || !tensorBufferAgrees(*api)) {
    api->Tensor_destroy = nullptr;
    api->tensor_interface_vtable = nullptr;
  }
}

// Whether TensorFlow can tell that it let go of a buffer. Called after the handle functions are
// set.
void fillRefCount(void* library, TfApi* api) {
  if (api->Tensor_destroy == nullptr) return;
  void* slice = nullptr;
  for (const char* name : kSliceSymbols) {
    if (slice == nullptr) slice = dlsym(library, name);
  }
  if (slice == nullptr || !resolve(library, kRefCountSymbol, &api->Tensor_RefCountIsOne)) return;
  if (!tensorLetGoAgrees(*api, reinterpret_cast<TensorSlice>(slice))) {
    api->Tensor_RefCountIsOne = nullptr;
  }
}

// Fills `api` from `library`. Returns the name of the first function of the tensor group that is
// missing, or null.
const char* fill(void* library, TfApi* api) {
#define TB_RESOLVE(result, name, arguments) \
  if (!resolve(library, #name, &api->name)) return #name;
  TB_TF_TENSOR_FUNCTIONS(TB_RESOLVE)
#undef TB_RESOLVE
  api->later_dtypes = laterDtypes(library);
  fillBuffers(library, api);
  bool eager = true;
#define TB_RESOLVE(result, name, arguments) eager = resolve(library, #name, &api->name) && eager;
  TB_TF_EAGER_FUNCTIONS(TB_RESOLVE)
  if (!eager) {
    // All or nothing, so that one null check covers the group.
#define TB_CLEAR(result, name, arguments) api->name = nullptr;
    TB_TF_EAGER_FUNCTIONS(TB_CLEAR)
#undef TB_CLEAR
    fillRefCount(library, api);
    return nullptr;
  }
  bool ops = true;
#undef TB_RESOLVE
#define TB_RESOLVE(result, name, arguments) ops = resolve(library, #name, &api->name) && ops;
  TB_TF_OP_FUNCTIONS(TB_RESOLVE)
#undef TB_RESOLVE
  if (!ops) {
#define TB_CLEAR(result, name, arguments) api->name = nullptr;
    TB_TF_OP_FUNCTIONS(TB_CLEAR)
#undef TB_CLEAR
  }
  if (!resolve(library, kCheckExactSymbol, &api->EagerTensor_CheckExact) ||
      !resolve(library, kHandleSymbol, &api->EagerTensor_Handle) ||
      !resolve(library, kFromHandleSymbol, &api->EagerTensorFromHandle)) {
    api->EagerTensor_CheckExact = nullptr;
    api->EagerTensor_Handle = nullptr;
    api->EagerTensorFromHandle = nullptr;
  }
  const auto* vtable = static_cast<const char*>(dlsym(library, kVtableSymbol));
  // Itanium C++ ABI: an object points past the offset to top and the type info.
  if (vtable != nullptr && resolve(library, kIsReadySymbol, &api->TensorHandle_IsReady)) {
    api->tensor_handle_vtable = vtable + 2 * sizeof(void*);
    if (resolve(library, kTensorSymbol, &api->TensorHandle_Tensor) && !tensorLayoutAgrees(*api)) {
      api->TensorHandle_Tensor = nullptr;
    }
  }
  fillRefCount(library, api);
  return nullptr;
}

// Every table lives as long as the process: release functions use it at any time.
struct Published {
  TfApi api;
  const Published* previous;
};
const Published* g_published = nullptr;

bool sameLibrary(const TfApi& a, const TfApi& b) {
  return a.TF_NewTensor == b.TF_NewTensor && a.TF_DeleteTensor == b.TF_DeleteTensor;
}

// Functions that `api` lacks and `known`, of the same library, has: live handles need them.
void fillGaps(const TfApi& known, TfApi* api) {
#define TB_KEEP(result, name, arguments) \
  if (api->name == nullptr) api->name = known.name;
  TB_TF_EAGER_FUNCTIONS(TB_KEEP)
  TB_TF_OP_FUNCTIONS(TB_KEEP)
  TB_KEEP(, EagerTensor_CheckExact, )
  TB_KEEP(, EagerTensor_Handle, )
  TB_KEEP(, EagerTensorFromHandle, )
  TB_KEEP(, TensorHandle_IsReady, )
  TB_KEEP(, tensor_handle_vtable, )
  TB_KEEP(, TensorHandle_Tensor, )
  TB_KEEP(, Tensor_destroy, )
  TB_KEEP(, tensor_interface_vtable, )
  TB_KEEP(, Tensor_RefCountIsOne, )
#undef TB_KEEP
}

// With the mutex held. Throws Error{kFramework} if tensors of another TensorFlow are alive: they
// are released through the table in use.
const TfApi* publish(TfApi api) {
  if (g_published != nullptr) {
    const TfApi& now = g_published->api;
    if (sameLibrary(now, api)) {
      fillGaps(now, &api);
    } else if (const int64_t alive = liveOwners(); alive > 0) {
      throwError(ErrorCode::kFramework,
                 "%lld tensors of another TensorFlow are alive, which this process has used so "
                 "far; name the TensorFlow to use (useTensorFlow) before the first conversion",
                 static_cast<long long>(alive));
    }
    if (std::memcmp(&now, &api, sizeof(api)) == 0) return &now;
  }
  g_published = new Published{api, g_published};
  watchProcessExit();
  detail::g_tf_api.store(&g_published->api, std::memory_order_release);
  return &g_published->api;
}

// With the mutex held. Appends to `attempts` what was tried.
const TfApi* search(std::string* attempts, bool eager = false) {
  for (const char* soname : kSonames) {
    void* library = dlopen(soname, RTLD_NOLOAD | RTLD_LAZY | RTLD_LOCAL);
    if (library == nullptr) {
      if (attempts != nullptr) *attempts += formatted("\n  %s: not loaded", soname);
      continue;
    }
    TfApi api{};
    const char* missing = fill(library, &api);
    if (missing == nullptr && (!eager || api.TFE_TensorHandleDevicePointer != nullptr)) {
      return publish(api);
    }
    if (attempts != nullptr)
      *attempts += formatted("\n  %s: lacks %s", soname, missing == nullptr ? "TFE_*" : missing);
    dlclose(library);
  }
  return nullptr;
}

pthread_key_t g_status_key;
bool g_has_status_key = false;
pthread_once_t g_status_once = PTHREAD_ONCE_INIT;

void freeStatus(void*) {
  const detail::ThreadStatus own = detail::t_status;
  detail::t_status = {};
  if (!processExiting()) own.destroy(own.status);
}

}  // namespace

namespace detail {

std::atomic<const TfApi*> g_tf_api{nullptr};
__thread ThreadStatus t_status = {};

const TfApi* searchTfApi() noexcept {
  try {
    std::lock_guard<std::mutex> lock(g_mutex);
    if (const TfApi* api = g_tf_api.load(std::memory_order_acquire)) return api;
    return search(nullptr);
  } catch (...) {
    return nullptr;
  }
}

}  // namespace detail

const TfApi& requireTfApi() {
  if (const TfApi* api = findTfApi()) return *api;
  std::string attempts;
  std::lock_guard<std::mutex> lock(g_mutex);
  if (const TfApi* api = search(&attempts)) return *api;
  throwError(ErrorCode::kFramework,
             "no TensorFlow is loaded in this process, or none that this library knows "
             "(2.12 to 2.21). Load it first (Python: import tensorflow; C++: link or dlopen "
             "libtensorflow_framework.so.2), or name it with useTensorFlow(handle). Tried:%s",
             attempts.c_str());
}

const TfApi& detail::searchEagerApi() {
  const TfApi* api = &requireTfApi();
  if (api->TFE_TensorHandleDevicePointer == nullptr) {
    // A process may start with libtensorflow_framework alone and load the rest later.
    std::lock_guard<std::mutex> lock(g_mutex);
    if (const TfApi* found = search(nullptr, /*eager=*/true)) api = found;
  }
  if (api->TFE_TensorHandleDevicePointer == nullptr) {
    throwError(ErrorCode::kFramework,
               "the TensorFlow library that was found has no eager C API (TFE_*); load "
               "libtensorflow_cc.so.2 or import tensorflow in Python");
  }
  return *api;
}

void useTensorFlowHandle(void* handle) {
  if (handle == nullptr) {
    throwError(ErrorCode::kInvalidHandle, "expected a handle from dlopen, got null");
  }
  TfApi api{};
  if (const char* missing = fill(handle, &api)) {
    throwError(ErrorCode::kFramework,
               "the library behind the handle lacks %s; expected a TensorFlow C library, such as "
               "libtensorflow_framework.so.2",
               missing);
  }
  std::lock_guard<std::mutex> lock(g_mutex);
  publish(api);
}

TF_Status* detail::makeThreadStatus(const TfApi& api) {
  pthread_once(&g_status_once,
               [] { g_has_status_key = pthread_key_create(&g_status_key, freeStatus) == 0; });
  if (t_status.status != nullptr) t_status.destroy(t_status.status);
  t_status = {&api, api.TF_NewStatus(), api.TF_DeleteStatus};
  // In a process without a free key one status per thread leaks.
  if (g_has_status_key) pthread_setspecific(g_status_key, t_status.status);
  return t_status.status;
}

void resetStatus(const TfApi& api, TF_Status* status) noexcept {
  api.TF_SetStatus(status, kTfOk, "");
}

}  // namespace tensor_bridge
