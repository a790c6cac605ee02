#include "extension/stored.h"

#include <memory>

#include "c_api/private_api.h"
#include "extension/errors.h"
#include "extension/values.h"
#include "tensor_bridge/c_api.h"

namespace tensor_bridge::python {
namespace {

struct StoredRelease {
  void operator()(tb_stored* stored) const { tb_stored_release(stored); }
};

// The arguments of a call, all integers.
class Integers {
 public:
  Integers(PyObject* const* args, Py_ssize_t nargs, Py_ssize_t expected, const char* name)
      : args_(args), good_(nargs == expected) {
    if (!good_) wrongCount(name, expected, nargs);
  }

  void* address(int index) { return good_ ? PyLong_AsVoidPtr(args_[index]) : nullptr; }
  int64_t number(int index) { return good_ ? PyLong_AsLongLong(args_[index]) : 0; }
  size_t size(int index) { return good_ ? PyLong_AsSize_t(args_[index]) : 0; }
  bool failed() const { return PyErr_Occurred() != nullptr; }

 private:
  PyObject* const* args_;
  bool good_;
};

PyObject* extent(int64_t offset, int64_t size) {
  if (offset < 0) return Py_NewRef(Py_None);
  return Py_BuildValue("(LL)", static_cast<long long>(offset), static_cast<long long>(size));
}

PyObject* scaleTuple(const tb_stored_tensor& tensor) {
  return tupleOf(tensor.num_scales,
                 [&](Py_ssize_t i) { return PyFloat_FromDouble(tensor.scales[i]); });
}

PyObject* bytesOf(const char* data, int64_t size) {
  return PyBytes_FromStringAndSize(data, static_cast<Py_ssize_t>(size));
}

// Py_BuildValue releases what "N" got, and fails if one of them is null.
PyObject* constantTuple(const tb_stored_tensor& tensor) {
  return Py_BuildValue("(NiNNNN)", bytesOf(tensor.name, tensor.name_size), tensor.dtype,
                       shapeTuple(tensor.shape, tensor.ndim), extent(tensor.offset, tensor.size),
                       extent(tensor.message_offset, tensor.message_size),
                       PyBool_FromLong(tensor.read_as_variable));
}

PyObject* tfliteTuple(const tb_stored_tensor& tensor) {
  PyObject* quantization = Py_BuildValue(
      "(NNi)", scaleTuple(tensor), shapeTuple(tensor.zero_points, tensor.num_scales), tensor.axis);
  return Py_BuildValue("(N(iN)iiiNNiN)", bytesOf(tensor.name, tensor.name_size),
                       tensor.subgraph_index, bytesOf(tensor.subgraph, tensor.subgraph_size),
                       tensor.type, tensor.dtype, tensor.bits,
                       shapeTuple(tensor.shape, tensor.ndim), extent(tensor.offset, tensor.size),
                       tensor.storage, quantization);
}

template <typename Make>
PyObject* tensorList(PyObject* const* args, Py_ssize_t nargs, const char* name, Make make) {
  Integers integers(args, nargs, 2, name);
  const void* data = integers.address(0);
  const size_t size = integers.size(1);
  if (integers.failed()) return nullptr;
  tb_bundle_place place;
  place.struct_size = sizeof(place);
  tb_stored* read = nullptr;
  const tb_status status = tb_stored_read(data, size, &read, &place);
  if (status != TB_OK) return raisePlaced(status, place);
  const std::unique_ptr<tb_stored, StoredRelease> stored(read);
  Owned list(PyList_New(0));
  tb_stored_tensor tensor;
  tensor.struct_size = sizeof(tensor);
  const int64_t count = tb_stored_count(read);
  for (int64_t i = 0; list && i < count; ++i) {
    static_cast<void>(tb_stored_get(read, i, &tensor));
    if (!append(list, make(tensor))) return nullptr;
  }
  return list.release();
}

}  // namespace

PyObject* storedFormat(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  Integers integers(args, nargs, 2, "stored_format");
  const void* data = integers.address(0);
  const size_t size = integers.size(1);
  if (integers.failed()) return nullptr;
  return PyLong_FromLong(tb_stored_format_of(data, size));
}

PyObject* graphConstants(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  return tensorList(args, nargs, "graph_constants", constantTuple);
}

PyObject* tfliteTensors(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  return tensorList(args, nargs, "tflite_tensors", tfliteTuple);
}

PyObject* tensorValues(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  Integers integers(args, nargs, 5, "tensor_values");
  const void* message = integers.address(0);
  const size_t size = integers.size(1);
  const auto dtype = static_cast<int32_t>(integers.number(2));
  const int64_t count = integers.number(3);
  void* out = integers.address(4);
  if (integers.failed()) return nullptr;
  tb_bundle_place place;
  place.struct_size = sizeof(place);
  PyThreadState* state = PyEval_SaveThread();
  const tb_status status = tb_tensor_values(message, size, dtype, count, out, &place);
  PyEval_RestoreThread(state);
  return status == TB_OK ? Py_NewRef(Py_None) : raisePlaced(status, place);
}

PyObject* tensorStrings(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  Integers integers(args, nargs, 5, "tensor_strings");
  const void* message = integers.address(0);
  const size_t size = integers.size(1);
  const int64_t count = integers.number(2);
  auto* offsets = static_cast<int64_t*>(integers.address(3));
  void* out = integers.address(4);
  if (integers.failed()) return nullptr;
  tb_bundle_place place;
  place.struct_size = sizeof(place);
  int64_t total = 0;
  PyThreadState* state = PyEval_SaveThread();
  const tb_status status = tb_tensor_strings(message, size, count, &total, offsets, out, &place);
  PyEval_RestoreThread(state);
  return status == TB_OK ? PyLong_FromLongLong(total) : raisePlaced(status, place);
}

PyObject* tfliteUnpack(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  Integers integers(args, nargs, 4, "tflite_unpack");
  const void* data = integers.address(0);
  const auto bits = static_cast<int32_t>(integers.number(1));
  const int64_t count = integers.number(2);
  void* out = integers.address(3);
  if (integers.failed()) return nullptr;
  PyThreadState* state = PyEval_SaveThread();
  tb_tflite_unpack(data, bits, count, out);
  PyEval_RestoreThread(state);
  return Py_NewRef(Py_None);
}

PyObject* tfliteStrings(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  Integers integers(args, nargs, 4, "tflite_strings");
  const void* data = integers.address(0);
  const size_t size = integers.size(1);
  const int64_t count = integers.number(2);
  auto* offsets = static_cast<int64_t*>(integers.address(3));
  if (integers.failed()) return nullptr;
  tb_bundle_place place;
  place.struct_size = sizeof(place);
  const tb_status status = tb_tflite_strings(data, size, count, offsets, &place);
  return status == TB_OK ? Py_NewRef(Py_None) : raisePlaced(status, place);
}

}  // namespace tensor_bridge::python
