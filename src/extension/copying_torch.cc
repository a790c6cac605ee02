#include "extension/copying_torch.h"

#include <Python.h>

#include <cstdio>
#include <cstring>
#include <string>

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

const TorchHost* g_host = nullptr;

PyObject* objectOf(tb_torch_tensor* tensor) { return reinterpret_cast<PyObject*>(tensor); }

tb_torch_tensor* handleOf(PyObject* object) { return reinterpret_cast<tb_torch_tensor*>(object); }

// The UTF-8 text of a str; "" if it is none.
std::string textOf(PyObject* object) {
  Owned bytes(object == nullptr ? nullptr : PyUnicode_AsUTF8String(object));
  const char* text = bytes ? PyBytes_AsString(bytes.get()) : nullptr;
  if (text == nullptr) PyErr_Clear();
  return text == nullptr ? "" : text;
}

// The Python exception as a status; clears it.
tb_status reportPythonError() {
  bool full;
  std::string message;
  {
    ErrorState error;
    PyObject* exception = error.exception();
    full = PyErr_GivenExceptionMatches(exception, PyExc_MemoryError) != 0;
    const Owned text(PyObject_Str(exception));
    message = textOf(text.get());
  }
  PyErr_Clear();
  full = full || message.find("can't allocate memory") != std::string::npos;
  return g_host->setError(full ? TB_OUT_OF_MEMORY : TB_TORCH, message.c_str());
}

bool readTuple(PyObject* tuple, int64_t* values) {
  const Py_ssize_t count = PyTuple_Size(tuple);
  for (Py_ssize_t i = 0; i < count; ++i) {
    values[i] = PyLong_AsLongLong(PyTuple_GetItem(tuple, i));
  }
  return PyErr_Occurred() == nullptr;
}

tb_dtype_row rowOf(Dtype dtype) {
  tb_dtype_row row{};
  row.struct_size = sizeof(row);
  if (tb_dtype_row_get(static_cast<int32_t>(dtype), &row) != TB_OK) row.torch_name = "";
  return row;
}

// The row with that torch name ("torch.float32").
Dtype dtypeOf(const std::string& torch_name) {
  for (int i = 0; i < static_cast<int>(Dtype::kCount); ++i) {
    const auto dtype = static_cast<Dtype>(i);
    if (torch_name == rowOf(dtype).torch_name) return dtype;
  }
  return Dtype::kUnknown;
}

// (tensor, address) -> both. The tensor is borrowed from the tuple.
bool readAddress(PyObject* pair, PyObject** tensor, void** address) {
  *tensor = PyTuple_GetItem(pair, 0);
  *address = PyLong_AsVoidPtr(PyTuple_GetItem(pair, 1));
  return PyErr_Occurred() == nullptr;
}

bool hasDevice(int32_t device_type) { return device_type == kDLCPU; }

int32_t currentDevice() { return -1; }

tb_status resolveDevice(TensorView*) {
  return g_host->setError(TB_UNSUPPORTED_DEVICE, "only host memory can be copied to this torch");
}

// Only views of GPU memory are released later.
tb_status releaseLater(TensorView* view) { return resolveDevice(view); }

void waitForReleases() {}

void lookUp(const TensorView& view, const void* table, size_t itemsize, void* out) {
  const auto* bytes = static_cast<const uint8_t*>(view.dl.data);
  auto* elements = static_cast<char*>(out);
  const auto* entries = static_cast<const char*>(table);
  for (int64_t i = 0; i < view.nbytes; ++i) {
    std::memcpy(elements + i * itemsize, entries + bytes[i] * itemsize, itemsize);
  }
}

tb_status wrap(const TensorView* view, const WrapSpec* spec, tb_torch_tensor** out) {
  if (spec->action == WrapAction::kShare || spec->quant.count != 0) {
    return g_host->setError(TB_INVALID_OPTION,
                            "a quantized or aliased tensor needs a torch that tensor_bridge knows");
  }
  const Gil gil;
  const tb_dtype_row row = rowOf(spec->dtype);
  // A looked-up element has another size than its byte in TensorFlow's memory.
  const bool looks_up = spec->action == WrapAction::kLookup;
  Owned pair(hooks::copying_empty.call("(sLi)", row.torch_name,
                                       static_cast<long long>(view->nbytes), looks_up ? 1 : 0));
  PyObject* flat = nullptr;
  void* data = nullptr;
  if (!pair || !readAddress(pair.get(), &flat, &data)) return reportPythonError();
  if (view->dl.data != nullptr && view->nbytes > 0) {
    if (looks_up) {
      lookUp(*view, spec->lookup, static_cast<size_t>(row.itemsize), data);
    } else {
      std::memcpy(data, view->dl.data, static_cast<size_t>(view->nbytes));
    }
  }
  Owned shape(shapeTuple(view->dl.shape, view->dl.ndim));
  Owned strides(view->dl.strides == nullptr ? nullptr
                                            : shapeTuple(view->dl.strides, view->dl.ndim));
  if (!shape) return reportPythonError();
  Owned tensor(
      hooks::copying_shaped.call("(OOO)", flat, shape.get(), strides ? strides.get() : Py_None));
  if (!tensor) return reportPythonError();
  *out = handleOf(tensor.release());
  return TB_OK;
}

_object* sharePython(const TensorView* view, const WrapSpec*) {
  view->release(view->owner);
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

tb_status view(tb_torch_tensor* tensor, int64_t* shape, int64_t* strides, TensorView* out) {
  const Gil gil;
  Owned tuple(hooks::copying_view.call("(O)", objectOf(tensor)));
  if (!tuple) return reportPythonError();
  PyObject* dims = PyTuple_GetItem(tuple.get(), 0);
  *out = TensorView{};
  out->dl.ndim = static_cast<int32_t>(PyTuple_Size(dims));
  if (!readTuple(dims, shape) || !readTuple(PyTuple_GetItem(tuple.get(), 1), strides)) {
    return reportPythonError();
  }
  out->dtype = dtypeOf(textOf(PyTuple_GetItem(tuple.get(), 2)));
  out->dl.data = PyLong_AsVoidPtr(PyTuple_GetItem(tuple.get(), 3));
  out->nbytes = PyLong_AsLongLong(PyTuple_GetItem(tuple.get(), 4));
  if (PyErr_Occurred() != nullptr) return reportPythonError();
  if (out->dtype == Dtype::kUnknown) {
    return g_host->setError(TB_UNSUPPORTED_DTYPE, "the tensor's dtype has no row in the table");
  }
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

// The names in tensor_bridge._copying.
Obstacle obstacleOf(const std::string& name) {
  const struct {
    const char* name;
    Obstacle obstacle;
  } known[] = {
      {"none", Obstacle::kNone},          {"not dense", Obstacle::kNotDense},
      {"meta", Obstacle::kMeta},          {"quantized", Obstacle::kQuantized},
      {"no memory", Obstacle::kNoMemory}, {"conjugate", Obstacle::kConjugate},
      {"negative", Obstacle::kNegative},  {"zero", Obstacle::kZero},
      {"mkldnn", Obstacle::kMkldnn},      {"device", Obstacle::kDevice},
      {"strided", Obstacle::kStrided},
  };
  for (const auto& row : known) {
    if (name == row.name) return row.obstacle;
  }
  return Obstacle::kWrapped;
}

void describe(tb_torch_tensor* tensor, bool, TorchFacts* facts) {
  const Gil gil;
  // Read before this thread describes another tensor.
  thread_local int64_t shape[kMaxDims];
  *facts = TorchFacts{};
  facts->dtype = Dtype::kUnknown;
  facts->device = DLDevice{kDLCPU, 0};
  facts->obstacle = Obstacle::kWrapped;
  Owned tuple(hooks::copying_describe.call("(O)", objectOf(tensor)));
  if (!tuple) {
    PyErr_Clear();
    return;
  }
  const auto item = [&](int i) { return PyTuple_GetItem(tuple.get(), i); };
  const Obstacle obstacle = obstacleOf(textOf(item(0)));
  const std::string dtype = textOf(item(1));
  facts->dtype = dtypeOf(dtype);
  facts->requires_grad = PyObject_IsTrue(item(2)) == 1;
  const Py_ssize_t ndim = PyTuple_Size(item(3));
  if (ndim < 0 || ndim > kMaxDims || !readTuple(item(3), shape)) {
    PyErr_Clear();
    return;
  }
  facts->ndim = static_cast<int32_t>(ndim);
  facts->shape = shape;
  facts->data = PyLong_AsVoidPtr(item(4));
  facts->nbytes = PyLong_AsLongLong(item(5));
  const std::string name = textOf(item(6));
  if (PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    return;
  }
  if (obstacle == Obstacle::kDevice) facts->device = DLDevice{kDLExtDev, 0};
  const bool unknown = facts->dtype == Dtype::kUnknown &&
                       (obstacle == Obstacle::kNone || obstacle >= Obstacle::kConjugate);
  std::snprintf(facts->name, sizeof(facts->name), "%s", (unknown ? dtype : name).c_str());
  facts->obstacle = unknown ? Obstacle::kUnknownDtype : obstacle;
}

tb_status share(tb_torch_tensor*, void**, ReleaseFn*, void**) { return TB_COPY_REQUIRED; }

// `cast` is a torch dtype's name, or null.
tb_status copyValues(tb_torch_tensor* tensor, const char* cast, void* out) {
  const Gil gil;
  Owned triple(hooks::copying_values.call("(Oz)", objectOf(tensor), cast));
  PyObject* values = nullptr;
  void* data = nullptr;
  if (!triple || !readAddress(triple.get(), &values, &data)) return reportPythonError();
  const long long nbytes = PyLong_AsLongLong(PyTuple_GetItem(triple.get(), 2));
  if (nbytes < 0) return reportPythonError();
  if (nbytes > 0) std::memcpy(out, data, static_cast<size_t>(nbytes));
  return TB_OK;
}

tb_status copyOut(tb_torch_tensor* tensor, void* out) { return copyValues(tensor, nullptr, out); }

tb_status castOut(tb_torch_tensor* tensor, bool floating, void* out) {
  return copyValues(tensor, floating ? "float64" : "int64", out);
}

// What was copied shares nothing, and leaves nothing.
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
