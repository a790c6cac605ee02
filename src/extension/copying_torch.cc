#include "extension/copying_torch.h"

#include <Python.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include "adapters/torch_abi.h"
#include "extension/hooks.h"
#include "extension/object.h"
#include "extension/values.h"
#include "tensor_bridge/c_api.h"

namespace tensor_bridge {
namespace {

namespace hooks = python::hooks;
using python::ErrorState;
using python::Gil;
using python::Owned;
using python::shapeTuple;
using python::sized;

const TorchHost* g_host = nullptr;

PyObject* objectOf(tb_torch_tensor* tensor) { return reinterpret_cast<PyObject*>(tensor); }

tb_torch_tensor* handleOf(PyObject* object) { return reinterpret_cast<tb_torch_tensor*>(object); }

// The Python exception as a status; clears it.
tb_status reportPythonError() {
  bool full;
  std::string message;
  {
    ErrorState error;
    PyObject* exception = error.exception();
    full = PyErr_GivenExceptionMatches(exception, PyExc_MemoryError) != 0;
    const Owned text(PyObject_Str(exception));
    const Owned bytes(text ? PyUnicode_AsUTF8String(text.get()) : nullptr);
    if (bytes) message = PyBytes_AsString(bytes.get());
  }
  PyErr_Clear();
  full = full || saysOutOfMemory(message.c_str());
  return g_host->setError(full ? TB_OUT_OF_MEMORY : TB_TORCH, message.c_str());
}

// At most kMaxDims sizes.
bool readSizes(PyObject* tuple, int64_t* values) {
  const Py_ssize_t count = PyTuple_Size(tuple);
  for (Py_ssize_t i = 0; i < count && i < kMaxDims; ++i) {
    values[i] = PyLong_AsLongLong(PyTuple_GetItem(tuple, i));
  }
  return count <= kMaxDims && PyErr_Occurred() == nullptr;
}

tb_dtype_row rowOf(Dtype dtype) {
  auto row = sized<tb_dtype_row>();
  if (tb_dtype_row_get(static_cast<int32_t>(dtype), &row) != TB_OK) row.torch_name = "";
  return row;
}

// The row with that torch name ("torch.float32").
Dtype dtypeOf(std::string_view torch_name) {
  for (int i = 0; i < static_cast<int>(Dtype::kCount); ++i) {
    const auto dtype = static_cast<Dtype>(i);
    if (torch_name == rowOf(dtype).torch_name) return dtype;
  }
  return Dtype::kUnknown;
}

// The names in tensor_bridge._copying.
Obstacle obstacleOf(std::string_view name) {
  constexpr std::pair<std::string_view, Obstacle> kKnown[] = {
      {"none", Obstacle::kNone},          {"not dense", Obstacle::kNotDense},
      {"meta", Obstacle::kMeta},          {"quantized", Obstacle::kQuantized},
      {"no memory", Obstacle::kNoMemory}, {"conjugate", Obstacle::kConjugate},
      {"negative", Obstacle::kNegative},  {"zero", Obstacle::kZero},
      {"mkldnn", Obstacle::kMkldnn},      {"device", Obstacle::kDevice},
      {"strided", Obstacle::kStrided},
  };
  for (const auto& [known, obstacle] : kKnown) {
    if (name == known) return obstacle;
  }
  return Obstacle::kWrapped;
}

// The result of tensor_bridge._copying.describe for a tensor. The texts live as long as this.
class Description {
 public:
  explicit Description(tb_torch_tensor* tensor)
      : tuple_(hooks::copying_describe.call("(O)", objectOf(tensor))) {
    good_ = tuple_ && PyArg_ParseTuple(tuple_.get(), "sspO!O!KLs", &obstacle_name, &dtype_name,
                                       &requires_grad, &PyTuple_Type, &shape, &PyTuple_Type,
                                       &strides, &address, &nbytes, &name) != 0;
    obstacle = obstacleOf(obstacle_name);
    dtype = dtypeOf(dtype_name);
  }
  /// False with a Python error set.
  explicit operator bool() const { return good_; }
  void* data() const { return reinterpret_cast<void*>(static_cast<uintptr_t>(address)); }
  int32_t ndim() const { return static_cast<int32_t>(PyTuple_Size(shape)); }

  Obstacle obstacle;
  const char* obstacle_name = "";
  Dtype dtype;
  const char* dtype_name = "";
  int requires_grad = 0;
  PyObject* shape = nullptr;
  PyObject* strides = nullptr;
  unsigned long long address = 0;
  long long nbytes = 0;
  const char* name = "";

 private:
  Owned tuple_;
  bool good_;
};

bool hasDevice(int32_t device_type) { return device_type == kDLCPU; }

int32_t currentDevice() { return -1; }

tb_status resolveDevice(TensorView*) {
  return g_host->setError(TB_UNSUPPORTED_DEVICE, "only host memory can be copied to this torch");
}

// Only views of GPU memory are released later.
tb_status releaseLater(TensorRef* ref) { return resolveDevice(ref); }

void waitForReleases() {}

void lookUp(const TensorView& view, const void* table, size_t itemsize, void* out) {
  const auto* bytes = static_cast<const uint8_t*>(view.dl.data);
  auto* elements = static_cast<char*>(out);
  const auto* entries = static_cast<const char*>(table);
  for (int64_t i = 0; i < view.nbytes; ++i) {
    std::memcpy(elements + i * itemsize, entries + bytes[i] * itemsize, itemsize);
  }
}

tb_status wrap(TensorRef* ref, const WrapSpec* spec, tb_torch_tensor** out) {
  const TensorView* view = ref;
  if (spec->action == WrapAction::kShare || spec->quant.count != 0) {
    return g_host->setError(TB_INVALID_OPTION,
                            "a quantized or aliased tensor needs a torch that tensor_bridge knows");
  }
  const Gil gil;
  const tb_dtype_row row = rowOf(spec->dtype);
  // A looked-up element has another size than its byte in TensorFlow's memory.
  const bool looks_up = spec->action == WrapAction::kLookup;
  const Owned shape(shapeTuple(view->dl.shape, view->dl.ndim));
  const Owned strides(view->dl.strides == nullptr ? Py_NewRef(Py_None)
                                                  : shapeTuple(view->dl.strides, view->dl.ndim));
  if (!shape || !strides) return reportPythonError();
  const Owned pair =
      hooks::copying_empty.call("(sOOLi)", row.torch_name, shape.get(), strides.get(),
                                static_cast<long long>(view->nbytes), looks_up ? 1 : 0);
  PyObject* tensor;
  unsigned long long address;
  if (!pair || PyArg_ParseTuple(pair.get(), "OK", &tensor, &address) == 0) {
    return reportPythonError();
  }
  auto* data = reinterpret_cast<void*>(static_cast<uintptr_t>(address));
  if (view->dl.data != nullptr && view->nbytes > 0) {
    if (looks_up) {
      lookUp(*view, spec->lookup, static_cast<size_t>(row.itemsize), data);
    } else {
      std::memcpy(data, view->dl.data, static_cast<size_t>(view->nbytes));
    }
  }
  *out = handleOf(Py_NewRef(tensor));
  return TB_OK;
}

_object* sharePython(TensorRef*, const WrapSpec*) {
  g_host->setError(TB_INTERNAL, "a copying adapter was asked to share");
  return nullptr;
}

_object* toPython(tb_torch_tensor* tensor) { return objectOf(tensor); }

void release(tb_torch_tensor* tensor) {
  if (g_host->processExiting()) return;
  const Gil gil;
  Py_DECREF(objectOf(tensor));
}

void releaseOwner(void* owner) { release(static_cast<tb_torch_tensor*>(owner)); }

tb_status view(tb_torch_tensor* tensor, int64_t* shape, int64_t* strides, TensorRef* out) {
  const Gil gil;
  const Description found(tensor);
  if (!found || !readSizes(found.shape, shape) || !readSizes(found.strides, strides)) {
    return reportPythonError();
  }
  if (found.obstacle != Obstacle::kNone && found.obstacle != Obstacle::kStrided) {
    const std::string message =
        std::string("expected a dense tensor with memory of its own, got one that is ") +
        found.obstacle_name;
    return g_host->setError(TB_TORCH, message.c_str());
  }
  if (found.dtype == Dtype::kUnknown) {
    return g_host->setError(TB_UNSUPPORTED_DTYPE, "the tensor's dtype has no row in the table");
  }
  static_cast<TensorView&>(*out) = TensorView{};
  out->dtype = found.dtype;
  out->nbytes = found.nbytes;
  out->dl.data = found.data();
  out->dl.ndim = found.ndim();
  out->dl.device = DLDevice{kDLCPU, 0};
  out->dl.shape = shape;
  out->dl.strides = strides;
  out->read_only = true;
  Py_INCREF(objectOf(tensor));
  out->owner = tensor;
  out->release = releaseOwner;
  return TB_OK;
}

tb_status mutableData(tb_torch_tensor* tensor, void** data) {
  const Gil gil;
  Owned address(PyObject_CallMethod(objectOf(tensor), "data_ptr", nullptr));
  *data = address ? PyLong_AsVoidPtr(address.get()) : nullptr;
  return PyErr_Occurred() == nullptr ? TB_OK : reportPythonError();
}

tb_torch_tensor* fromPython(_object* object) { return handleOf(object); }

void describe(tb_torch_tensor* tensor, bool, TorchFacts* facts) {
  const Gil gil;
  // Read before this thread describes another tensor.
  thread_local int64_t shape[kMaxDims];
  *facts = TorchFacts{};
  facts->dtype = Dtype::kUnknown;
  facts->device = DLDevice{kDLCPU, 0};
  facts->obstacle = Obstacle::kWrapped;
  const Description found(tensor);
  if (!found || !readSizes(found.shape, shape)) {
    PyErr_Clear();
    return;
  }
  facts->dtype = found.dtype;
  facts->requires_grad = found.requires_grad != 0;
  facts->ndim = found.ndim();
  facts->shape = shape;
  facts->data = found.data();
  facts->nbytes = found.nbytes;
  if (found.obstacle == Obstacle::kDevice) facts->device = DLDevice{kDLExtDev, 0};
  const bool unknown = found.dtype == Dtype::kUnknown && (found.obstacle == Obstacle::kNone ||
                                                          found.obstacle >= Obstacle::kConjugate);
  std::snprintf(facts->name, sizeof(facts->name), "%s", unknown ? found.dtype_name : found.name);
  facts->obstacle = unknown ? Obstacle::kUnknownDtype : found.obstacle;
}

tb_status share(tb_torch_tensor*, void**, ReleaseFn*, void**) { return TB_COPY_REQUIRED; }

// `cast` is a torch dtype's name, or null.
tb_status copyValues(tb_torch_tensor* tensor, const char* cast, void* out) {
  const Gil gil;
  const Owned triple = hooks::copying_values.call("(Oz)", objectOf(tensor), cast);
  PyObject* values;
  unsigned long long address;
  long long nbytes;
  if (!triple || PyArg_ParseTuple(triple.get(), "OKL", &values, &address, &nbytes) == 0) {
    return reportPythonError();
  }
  if (nbytes > 0) {
    std::memcpy(out, reinterpret_cast<void*>(static_cast<uintptr_t>(address)),
                static_cast<size_t>(nbytes));
  }
  return TB_OK;
}

tb_status copyOut(tb_torch_tensor* tensor, void* out) { return copyValues(tensor, nullptr, out); }

tb_status castOut(tb_torch_tensor* tensor, bool floating, void* out) {
  return copyValues(tensor, floating ? "float64" : "int64", out);
}

// A copied tensor shares no memory, and leaves none behind.
tb_status takePrevious(tb_torch_tensor*, void** owner, ReleaseFn*) {
  *owner = nullptr;
  return TB_OK;
}

const TorchAdapter kTable = {
    kTorchAdapterAbi,
    sizeof(TorchAdapter),
    "copying",
    /*protects=*/false,
    /*protects_gpu=*/false,
    /*copies=*/true,
    hasDevice,
    currentDevice,
    resolveDevice,
    releaseLater,
    waitForReleases,
    wrap,
    sharePython,
    toPython,
    release,
    view,
    mutableData,
    /*shares=*/false,
    fromPython,
    describe,
    share,
    copyOut,
    castOut,
    takePrevious,
};

}  // namespace

const void* copyingAdapter(uint32_t abi, const void* host) {
  if (abi != kTorchAdapterAbi) return nullptr;
  g_host = static_cast<const TorchHost*>(host);
  return &kTable;
}

}  // namespace tensor_bridge
