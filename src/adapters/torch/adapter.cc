// The adapter's one symbol, tb_torch_adapter_table, and the exception barrier around its
// functions. This library has no line of Python API: THPVariable_Wrap is looked up in the loaded
// libtorch_python, and is absent in a process without it.

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <dlfcn.h>

#include <atomic>
#include <new>

#include "adapters/torch/copy_on_write.h"
#include "adapters/torch/cuda_streams.h"
#include "adapters/torch/foreign_owner.h"
#include "adapters/torch/give_back.h"
#include "adapters/torch/gpu.h"
#include "adapters/torch/list_writers.h"
#include "adapters/torch/maker.h"
#include "adapters/torch/reader.h"
#include "adapters/torch/torch_version.h"
#include "adapters/torch_abi.h"

namespace tensor_bridge {
namespace {

std::atomic<WrapPython> g_wrap_python{nullptr};

WrapPython findWrapPython() {
  if (WrapPython found = g_wrap_python.load(std::memory_order_acquire)) return found;
  void* library = dlopen("libtorch_python.so", RTLD_NOLOAD | RTLD_LAZY | RTLD_LOCAL);
  if (library == nullptr) return nullptr;
  auto found = reinterpret_cast<WrapPython>(dlsym(library, kWrapPython));
  g_wrap_python.store(found, std::memory_order_release);
  return found;
}

// Sets the error for the exception in flight.
tb_status reportException() noexcept {
  try {
    throw;
  } catch (const c10::OutOfMemoryError& e) {
    return g_host->setError(TB_OUT_OF_MEMORY, e.what_without_backtrace());
  } catch (const c10::Error& e) {
    const char* message = e.what_without_backtrace();
    return g_host->setError(saysOutOfMemory(message) ? TB_OUT_OF_MEMORY : TB_TORCH, message);
  } catch (const std::bad_alloc&) {
    return g_host->setError(TB_OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception& e) {
    return g_host->setError(TB_TORCH, e.what());
  } catch (...) {
    return g_host->setError(TB_TORCH, "torch threw something that is not a std::exception");
  }
}

tb_torch_tensor* handOver(at::Tensor tensor) {
  return reinterpret_cast<tb_torch_tensor*>(tensor.unsafeReleaseTensorImpl());
}

at::Tensor reclaim(tb_torch_tensor* tensor) {
  return at::Tensor(c10::intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>::reclaim(
      reinterpret_cast<c10::TensorImpl*>(tensor)));
}

// A tensor that borrows the caller's reference.
class Borrowed {
 public:
  explicit Borrowed(tb_torch_tensor* tensor) : tensor_(reclaim(tensor)) {}
  ~Borrowed() { static_cast<void>(tensor_.unsafeReleaseTensorImpl()); }
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;
  at::Tensor& operator*() { return tensor_; }

 private:
  at::Tensor tensor_;
};

c10::StorageImpl* storageOf(const at::Tensor& tensor) {
  return tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl();
}

bool hasDevice(int32_t device_type) { return torchHasDevice(device_type); }

int32_t currentDevice() {
  try {
    return currentGpu();
  } catch (...) {
    return -1;  // torch reports the reason when a tensor is moved there
  }
}

tb_status resolveDevice(TensorView* view) {
  try {
    // An empty tensor has no pointer to ask about.
    if (view->dl.device.device_type != kDLCPU && view->dl.data != nullptr) {
      view->dl.device.device_id = deviceOfPointer(view->dl.data).index();
    }
    return TB_OK;
  } catch (...) {
    return reportException();
  }
}

tb_status makeReleaseLater(TensorRef* ref) {
  try {
    releaseLater(ref);
    return TB_OK;
  } catch (...) {
    return reportException();
  }
}

[[gnu::no_stack_protector]] tb_status wrap(TensorRef* ref, const WrapSpec* spec,
                                           tb_torch_tensor** out) {
  try {
    if (spec->action == WrapAction::kShare) {
      at::Tensor tensor = sharedTensor(ref, *spec, /*take=*/false);
      attachOwner(storageOf(tensor), ref);
      *out = handOver(std::move(tensor));
    } else {
      *out = handOver(copiedTensor(*ref, *spec));
    }
    return TB_OK;
  } catch (...) {
    return reportException();
  }
}

_object* noPython() {
  g_host->setError(TB_FRAMEWORK,
                   "torch is loaded without its Python library (libtorch_python.so), or with one "
                   "that lacks THPVariable_Wrap; import torch first");
  return nullptr;
}

// A Python error is set if `object` is null; the message is for callers that do not read that
// error.
_object* madeObject(_object* object) {
  if (object == nullptr) g_host->setError(TB_TORCH, "torch could not make a Python object");
  return object;
}

[[gnu::no_stack_protector]] _object* sharePython(TensorRef* ref, const WrapSpec* spec) {
  WrapPython wrap_python = g_wrap_python.load(std::memory_order_acquire);
  if (__builtin_expect(wrap_python == nullptr, 0)) {
    wrap_python = findWrapPython();
    if (wrap_python == nullptr) return noPython();
  }
  try {
    return madeObject(wrap_python(sharedTensor(ref, *spec, /*take=*/true)));
  } catch (...) {
    reportException();
    return nullptr;
  }
}

[[gnu::no_stack_protector]] _object* toPython(tb_torch_tensor* tensor) {
  try {
    at::Tensor owned = reclaim(tensor);
    WrapPython wrap_python = findWrapPython();
    if (wrap_python == nullptr) return noPython();
    return madeObject(wrap_python(std::move(owned)));
  } catch (...) {
    reportException();
    return nullptr;
  }
}

void release(tb_torch_tensor* tensor) { static_cast<void>(reclaim(tensor)); }

tb_status view(tb_torch_tensor* tensor, int64_t* shape, int64_t* strides, TensorRef* out) {
  try {
    Borrowed borrowed(tensor);
    referTo(*borrowed, shape, strides, out);
    return TB_OK;
  } catch (...) {
    return reportException();
  }
}

tb_status mutableData(tb_torch_tensor* tensor, void** data) {
  try {
    Borrowed borrowed(tensor);
    *data = (*borrowed).mutable_data_ptr();
    return TB_OK;
  } catch (...) {
    return reportException();
  }
}

// CPython puts reference count and type (16 bytes) before a class's own fields.
tb_torch_tensor* fromPython(_object* object) {
  const at::Tensor& tensor = tensorInField(reinterpret_cast<char*>(object) + 16);
  return reinterpret_cast<tb_torch_tensor*>(tensor.unsafeGetTensorImpl());
}

void describe(tb_torch_tensor* tensor, bool hold, TorchFacts* facts) {
  Borrowed borrowed(tensor);
  describeTensor(*borrowed, hold, facts);
}

[[gnu::no_stack_protector]] tb_status share(tb_torch_tensor* tensor, void** owner,
                                            ReleaseFn* release_fn, void** data) {
  try {
    Borrowed borrowed(tensor);
    void* bytes = nullptr;
    void* shared = shareStorage(storageOf(*borrowed), &bytes);
    if (shared == nullptr) return TB_COPY_REQUIRED;
    *owner = shared;
    *release_fn = releaseSharedBytes;
    *data = static_cast<char*>(bytes) +
            (*borrowed).storage_offset() * static_cast<int64_t>((*borrowed).element_size());
    return TB_OK;
  } catch (...) {
    return reportException();
  }
}

tb_status copyOut(tb_torch_tensor* tensor, void* out) {
  try {
    Borrowed borrowed(tensor);
    copyElements(*borrowed, (*borrowed).scalar_type(), out);
    return TB_OK;
  } catch (...) {
    return reportException();
  }
}

tb_status castOut(tb_torch_tensor* tensor, bool floating, void* out) {
  try {
    Borrowed borrowed(tensor);
    copyElements(*borrowed, floating ? at::kDouble : at::kLong, out);
    return TB_OK;
  } catch (...) {
    return reportException();
  }
}

tb_status takePrevious(tb_torch_tensor* tensor, void** owner, ReleaseFn* release_fn) {
  Borrowed borrowed(tensor);
  if (!(*borrowed).has_storage()) {
    return g_host->setError(TB_UNSUPPORTED_TYPE,
                            "expected a dense torch.Tensor, got one without a storage of its own; "
                            "give the tensors that it is made of (x.indices(), x.values(), ...)");
  }
  *owner = nullptr;
  *release_fn = takePreviousOf(storageOf(*borrowed), owner);
  return TB_OK;
}

const TorchAdapter kTable = {
    kTorchAdapterAbi,
    sizeof(TorchAdapter),
    kTorchRelease,
    /*protects=*/true,
    /*protects_gpu=*/canGuardListWriters(),
    /*copies=*/false,
    hasDevice,
    currentDevice,
    resolveDevice,
    makeReleaseLater,
    waitForGivenBack,
    wrap,
    sharePython,
    toPython,
    release,
    view,
    mutableData,
    canShareStorage(),
    fromPython,
    describe,
    share,
    copyOut,
    castOut,
    takePrevious,
};

}  // namespace
}  // namespace tensor_bridge

extern "C" __attribute__((visibility("default"))) const tensor_bridge::TorchAdapter*
tb_torch_adapter_table(uint32_t host_abi, const tensor_bridge::TorchHost* host) {
  if (host_abi != tensor_bridge::kTorchAdapterAbi) return nullptr;
  tensor_bridge::g_host = host;
  return &tensor_bridge::kTable;
}
