#include "extension/stored.h"

#include "extension/reading.h"

namespace tensor_bridge::python {
namespace {

PyObject* scaleTuple(const tb_stored_tensor& tensor) {
  return tupleOf(tensor.num_scales,
                 [&](Py_ssize_t i) { return PyFloat_FromDouble(tensor.scales[i]); });
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

PyObject* tensorList(PyObject* const* args, Py_ssize_t nargs, const char* name,
                     PyObject* (*make)(const tb_stored_tensor&)) {
  const Integers integers(args, nargs, 2, name);
  const void* data = integers.address(0);
  const size_t size = integers.size(1);
  tb_stored* read = nullptr;
  if (integers.failed() || !readPlaced([&](tb_bundle_place* place) {
        return tb_stored_read(data, size, &read, place);
      })) {
    return nullptr;
  }
  const HandlePointer<tb_stored, tb_stored_release> stored(read);
  return listOf(read, tb_stored_get, make);
}

PyObject* noneIf(bool done) { return done ? Py_NewRef(Py_None) : nullptr; }

}  // namespace

PyObject* storedFormat(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  const Integers integers(args, nargs, 2, "stored_format");
  const void* data = integers.address(0);
  const size_t size = integers.size(1);
  return integers.failed() ? nullptr : PyLong_FromLong(tb_stored_format_of(data, size));
}

PyObject* graphConstants(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  return tensorList(args, nargs, "graph_constants", constantTuple);
}

PyObject* tfliteTensors(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  return tensorList(args, nargs, "tflite_tensors", tfliteTuple);
}

PyObject* tensorDescribe(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  const Integers integers(args, nargs, 2, "tensor_describe");
  const void* message = integers.address(0);
  const size_t size = integers.size(1);
  int32_t dtype = 0;
  int32_t ndim = 0;
  int64_t shape[254];  // TensorFlow's TensorShape::MaxDimensions()
  if (integers.failed() || !readPlaced([&](tb_bundle_place* place) {
        return tb_tensor_describe(message, size, &dtype, &ndim, shape, place);
      })) {
    return nullptr;
  }
  return Py_BuildValue("(iN)", dtype, shapeTuple(shape, ndim));
}

PyObject* tensorValues(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  const Integers integers(args, nargs, 5, "tensor_values");
  const void* message = integers.address(0);
  const size_t size = integers.size(1);
  const auto dtype = static_cast<int32_t>(integers.number(2));
  const int64_t count = integers.number(3);
  void* out = integers.address(4);
  return noneIf(!integers.failed() && readPlaced([&](tb_bundle_place* place) {
    return tb_tensor_values(message, size, dtype, count, out, place);
  }));
}

PyObject* tensorStrings(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  const Integers integers(args, nargs, 5, "tensor_strings");
  const void* message = integers.address(0);
  const size_t size = integers.size(1);
  const int64_t count = integers.number(2);
  auto* offsets = static_cast<int64_t*>(integers.address(3));
  void* out = integers.address(4);
  int64_t total = 0;
  const bool done = !integers.failed() && readPlaced([&](tb_bundle_place* place) {
    return tb_tensor_strings(message, size, count, &total, offsets, out, place);
  });
  return done ? PyLong_FromLongLong(total) : nullptr;
}

PyObject* tfliteUnpack(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  const Integers integers(args, nargs, 4, "tflite_unpack");
  const void* data = integers.address(0);
  const auto bits = static_cast<int32_t>(integers.number(1));
  const int64_t count = integers.number(2);
  void* out = integers.address(3);
  return noneIf(!integers.failed() && readPlaced([&](tb_bundle_place*) -> tb_status {
    tb_tflite_unpack(data, bits, count, out);
    return TB_OK;
  }));
}

PyObject* tfliteStrings(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  const Integers integers(args, nargs, 4, "tflite_strings");
  const void* data = integers.address(0);
  const size_t size = integers.size(1);
  const int64_t count = integers.number(2);
  auto* offsets = static_cast<int64_t*>(integers.address(3));
  return noneIf(!integers.failed() && readPlaced([&](tb_bundle_place* place) {
    return tb_tflite_strings(data, size, count, offsets, place);
  }));
}

}  // namespace tensor_bridge::python
