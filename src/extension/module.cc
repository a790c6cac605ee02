// The extension module tensor_bridge._C: CPython's limited API, no torch version, no framework.

#include <Python.h>
#ifdef __linux__
#include <malloc.h>
#endif

#include "c_api/private_api.h"
#include "extension/bundle.h"
#include "extension/copying_torch.h"
#include "extension/dataset.h"
#include "extension/dlpack.h"
#include "extension/example.h"
#include "extension/example_plan.h"
#include "extension/frameworks.h"
#include "extension/memory.h"
#include "extension/object.h"
#include "extension/records.h"
#include "extension/stored.h"
#include "extension/strings.h"
#include "extension/structure.h"
#include "extension/to_tf.h"
#include "extension/to_torch.h"
#include "extension/v1.h"
#include "extension/values.h"
#include "tensor_bridge/c_api.h"

namespace tensor_bridge::python {
namespace {

PyObject* dtypeRows(PyObject*, PyObject*) {
  Owned list(PyList_New(0));
  auto row = sized<tb_dtype_row>();
  for (int32_t i = 0; list && tb_dtype_row_get(i, &row) == TB_OK; ++i) {
    if (!append(list,
                Py_BuildValue("(siiissss)", row.name, row.tf_enum, row.torch_scalar, row.itemsize,
                              row.torch_name, row.kind, row.nearest, row.reason))) {
      return nullptr;
    }
  }
  return list.release();
}

PyObject* narrowValues(PyObject*, PyObject* tf_enum) {
  const long number = PyLong_AsLong(tf_enum);
  if (PyErr_Occurred() != nullptr) return nullptr;
  int64_t nbytes = 0;
  const void* values = tb_narrow_values(static_cast<int32_t>(number), &nbytes);
  if (values == nullptr) Py_RETURN_NONE;
  return PyBytes_FromStringAndSize(static_cast<const char*>(values),
                                   static_cast<Py_ssize_t>(nbytes));
}

PyObject* liveOwners(PyObject*, PyObject*) { return PyLong_FromLongLong(tb_live_owners()); }

// glibc keeps the free pages of its heap, which holds blocks of up to 32 MB, until the last block
// after them is freed too.
PyObject* trimHeap(PyObject*, PyObject*) {
#ifdef __GLIBC__
  Py_BEGIN_ALLOW_THREADS;
  malloc_trim(0);
  Py_END_ALLOW_THREADS;
#endif
  Py_RETURN_NONE;
}

template <typename Function>
PyCFunction asCFunction(Function* function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

PyDoc_STRVAR(
    kToTorchDoc,
    "convert_tf_to_pytorch(t, *, copy=None, device=None, on_write='copy', raw=False, "
    "scale=None, zero_point=None, axis=None, strings='tensor', unknown='raise', live=False)\n--\n\n"
    "Converts TensorFlow values to torch, without NumPy.\n\n"
    "Takes an eager tf.Tensor, a composite value (variables, strings, ragged and sparse values,\n"
    "Keras models, ...), or a nested structure of such values: dicts, lists, tuples, named\n"
    "tuples, dataclasses and classes registered with optree.\n\n"
    "The result has the same shape. If torch has the dtype, it shares TensorFlow's memory, and is\n"
    "protected: the first write moves the torch tensor to its own memory if TensorFlow still\n"
    "holds the buffer, so TensorFlow never sees a write. Otherwise it is a copy in the nearest\n"
    "dtype that holds all values. It is contiguous, a leaf without grad, and keeps TensorFlow's\n"
    "buffer alive. A variable is converted as a snapshot of its current value.\n\n"
    "Args:\n"
    "  t: The value. Graph tensors, resources and variants are refused.\n"
    "  copy: None shares if possible and copies otherwise; False never copies; True always does.\n"
    "  device: The device of the result (str, int or torch.device); None is that of t.\n"
    "  on_write: What the first write to shared memory does: 'copy' moves the torch tensor if\n"
    "    TensorFlow still holds the memory, 'raise' raises BufferError, 'alias' writes to\n"
    "    TensorFlow's memory (only for memory that nothing else uses).\n"
    "  raw: True returns the stored bytes of a dtype that torch lacks as uint8, and the plain\n"
    "    integers of a quantized one.\n"
    "  scale: Scale of a quantized dtype: a number, or a sequence with one for each channel.\n"
    "  zero_point: Zero point of a quantized dtype: an int, or a sequence of as many as scale.\n"
    "  axis: The channel axis of per-channel quantization.\n"
    "  strings: 'tensor' returns a StringTensor, 'list' nested lists of bytes.\n"
    "  unknown: What to do with leaves of a structure that are values of neither framework:\n"
    "    'raise' or 'keep'.\n"
    "  live: True converts a variable to a LiveView, whose writes reach the variable.\n\n"
    "Returns:\n"
    "  A torch.Tensor with the same shape and values, or the torch form of another value.\n\n"
    "Raises:\n"
    "  UnsupportedTypeError: t is not a TensorFlow value that can be converted.\n"
    "  SymbolicTensorError: t is a graph tensor and has no value.\n"
    "  UnsupportedDtypeError: torch cannot represent the dtype.\n"
    "  CopyRequiredError: copy=False, and sharing is not possible.\n"
    "  UnsupportedDeviceError: A remote or packed tensor, or a device that torch cannot use.\n"
    "  InvalidOptionError: An invalid keyword, or an invalid combination of keywords.\n"
    "  TensorFlowError: The operation that produces t failed.\n"
    "  FrameworkError: torch or TensorFlow is missing or of an unsupported version.");

PyDoc_STRVAR(
    kToTfDoc,
    "convert_pytorch_to_tf(x, *, copy=None, device=None, dtype=None, grad='detach', "
    "unknown='raise')\n--\n\n"
    "Converts torch values to TensorFlow, without NumPy.\n\n"
    "Takes a torch.Tensor, the form in torch of any other value, or a structure of such values.\n\n"
    "The result shares torch's memory where TensorFlow can use it (host memory, row-major,\n"
    "aligned to 64 bytes) and keeps its bytes: the next write on the torch side moves torch,\n"
    "with all views of that storage, onto memory of its own. A tensor that came from\n"
    "TensorFlow and was not written to becomes the same buffer again.\n\n"
    "Writes through NumPy arrays and raw pointers from before the call cannot be intercepted:\n"
    "they change TensorFlow's tensor.\n\n"
    "Args:\n"
    "  x: The value. Strided, misaligned, conjugated and otherwise unshareable\n"
    "    tensors are copied exactly, in one pass.\n"
    "  copy: None shares if possible and copies otherwise; False never copies; True always does.\n"
    "  device: A TensorFlow device (\"CPU:0\", \"GPU:0\") or torch's name of one; None is the "
    "host.\n"
    "  dtype: A TensorFlow dtype that torch lacks (int4, uint4, int2, uint2,\n"
    "    float8_e4m3b11fnuz, float4_e2m1fn, quantized ones); every value is checked.\n"
    "  grad: 'detach' converts the values of a tensor that requires grad, 'raise' refuses it.\n"
    "  unknown: What to do with leaves of a structure that are values of neither framework:\n"
    "    'raise' or 'keep'.\n\n"
    "Returns:\n"
    "  An eager tf.Tensor with the same shape and values, or the TensorFlow form of another\n"
    "  value.\n\n"
    "Raises:\n"
    "  UnsupportedTypeError: x is not a torch value that can be converted, or has no memory.\n"
    "  UnsupportedDtypeError: TensorFlow cannot represent the dtype.\n"
    "  CopyRequiredError: copy=False, and sharing is not possible.\n"
    "  ValueRangeError: A value that dtype= cannot hold.\n"
    "  UnsupportedDeviceError: A device that TensorFlow lacks here, or a tensor without data.\n"
    "  InvalidOptionError: An invalid keyword, or an invalid combination of keywords.\n"
    "  FrameworkError: torch or TensorFlow is missing or of an unsupported version.");

PyMethodDef kMethods[] = {
    {"convert_tf_to_pytorch", asCFunction(convertTfToPytorch), METH_FASTCALL | METH_KEYWORDS,
     kToTorchDoc},
    {"tensor_to_torch", asCFunction(tensorToTorch), METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"tensor_to_tf", asCFunction(tensorToTf), METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"convert_pytorch_to_tf", asCFunction(convertPytorchToTf), METH_FASTCALL | METH_KEYWORDS,
     kToTfDoc},
    {"explain_to_tf", asCFunction(explainToTf), METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"is_torch_tensor", isTorchTensor, METH_O, nullptr},
    {"explain_to_torch", asCFunction(explainToTorch), METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"variable_to_torch", asCFunction(variableToTorch), METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"explain_variable", asCFunction(explainVariable), METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"dlpack_capsule", dlpackCapsule, METH_VARARGS, nullptr},
    {"torch_from_dlpack", asCFunction(torchFromDlpack), METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"dlpack_exchange_api", dlpackExchangeApi, METH_NOARGS, nullptr},
    {"capsule_is_read_only", capsuleIsReadOnly, METH_O, nullptr},
    {"convert_node", convertNode, METH_VARARGS, nullptr},
    {"strings_to_torch", asCFunction(stringsToTorch), METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"explain_strings_to_torch", asCFunction(explainStringsToTorch), METH_FASTCALL | METH_KEYWORDS,
     nullptr},
    {"explain_strings_to_tf", asCFunction(explainStringsToTf), METH_FASTCALL | METH_KEYWORDS,
     nullptr},
    {"tf_strings_list", tfStringsList, METH_O, nullptr},
    {"torch_strings_list", asCFunction(torchStringsList), METH_FASTCALL, nullptr},
    {"strings_to_tf", asCFunction(stringsToTf), METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"data_open", asCFunction(dataOpen), METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"data_next", asCFunction(dataNext), METH_FASTCALL, nullptr},
    {"data_next_flat", asCFunction(dataNextFlat), METH_FASTCALL, nullptr},
    {"data_build", asCFunction(dataBuild), METH_FASTCALL, nullptr},
    {"data_pause", dataPause, METH_O, nullptr},
    {"data_resume", dataResume, METH_O, nullptr},
    {"data_cancel", dataCancel, METH_O, nullptr},
    {"data_stats", dataStats, METH_O, nullptr},
    {"data_close", dataClose, METH_O, nullptr},
    {"snappy_unpack", snappyUnpack, METH_O, nullptr},
    {"bundle_index", bundleIndex, METH_O, nullptr},
    {"bundle_strings", asCFunction(bundleStrings), METH_FASTCALL, nullptr},
    {"stored_format", asCFunction(storedFormat), METH_FASTCALL, nullptr},
    {"graph_constants", asCFunction(graphConstants), METH_FASTCALL, nullptr},
    {"tflite_tensors", asCFunction(tfliteTensors), METH_FASTCALL, nullptr},
    {"tensor_describe", asCFunction(tensorDescribe), METH_FASTCALL, nullptr},
    {"tensor_values", asCFunction(tensorValues), METH_FASTCALL, nullptr},
    {"tensor_strings", asCFunction(tensorStrings), METH_FASTCALL, nullptr},
    {"tflite_unpack", asCFunction(tfliteUnpack), METH_FASTCALL, nullptr},
    {"tflite_strings", asCFunction(tfliteStrings), METH_FASTCALL, nullptr},
    {"example_spec", asCFunction(exampleSpec), METH_FASTCALL, nullptr},
    {"example_scan", asCFunction(exampleScan), METH_FASTCALL, nullptr},
    {"example_queue", asCFunction(exampleQueue), METH_FASTCALL, nullptr},
    {"example_queue_ready", exampleQueueReady, METH_O, nullptr},
    {"example_queue_take", asCFunction(exampleQueueTake), METH_FASTCALL, nullptr},
    {"example_queue_close", exampleQueueClose, METH_O, nullptr},
    {"example_keys", asCFunction(exampleKeys), METH_FASTCALL, nullptr},
    {"example_plan", asCFunction(examplePlan), METH_FASTCALL, nullptr},
    {"example_singles", asCFunction(exampleSingles), METH_FASTCALL, nullptr},
    {"example_fill", asCFunction(exampleFill), METH_FASTCALL, nullptr},
    {"records_scan", asCFunction(recordsScan), METH_FASTCALL, nullptr},
    {"records_at", asCFunction(recordsAt), METH_FASTCALL, nullptr},
    {"record_bytes", asCFunction(recordBytes), METH_FASTCALL, nullptr},
    {"records_gather", asCFunction(recordsGather), METH_FASTCALL, nullptr},
    {"records_frame", asCFunction(recordsFrame), METH_FASTCALL, nullptr},
    {"v1_index", asCFunction(v1Index), METH_FASTCALL, nullptr},
    {"v1_slice", asCFunction(v1Slice), METH_FASTCALL, nullptr},
    {"is_eager_tensor", isEagerTensor, METH_O, nullptr},
    {"has_handle", hasHandle, METH_O, nullptr},
    {"release_previous", releasePrevious, METH_O, nullptr},
    {"trim_heap", trimHeap, METH_NOARGS, nullptr},
    {"tf_address", tfAddress, METH_O, nullptr},
    {"gpu_of_address", gpuOfAddress, METH_O, nullptr},
    {"require_torch_cuda", requireTorchCuda, METH_NOARGS, nullptr},
    {"dtype_rows", dtypeRows, METH_NOARGS, nullptr},
    {"narrow_values", narrowValues, METH_O, nullptr},
    {"live_owners", liveOwners, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef kModule = {
    PyModuleDef_HEAD_INIT, "_C", nullptr, -1, kMethods, nullptr, nullptr, nullptr, nullptr};

void* saveThread() { return PyEval_SaveThread(); }
void restoreThread(void* state) { PyEval_RestoreThread(static_cast<PyThreadState*>(state)); }

}  // namespace
}  // namespace tensor_bridge::python

PyMODINIT_FUNC PyInit__C() {
  tensor_bridge::python::Owned module(PyModule_Create(&tensor_bridge::python::kModule));
  if (!module || PyModule_AddStringConstant(module.get(), "__version__", tb_version()) != 0) {
    return nullptr;
  }
  tb_py_set_gil_functions(tensor_bridge::python::saveThread, tensor_bridge::python::restoreThread);
  tb_py_set_gpu_of_logical(tensor_bridge::python::gpuOfLogical);
  tb_py_set_copying_torch(tensor_bridge::copyingAdapter);
  return module.release();
}
