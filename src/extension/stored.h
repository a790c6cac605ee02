// Frozen graphs and TensorFlow Lite's models as Python functions. Not for: files, names, tensors
// (tensor_bridge.checkpoint). Memory comes as an address; _C.pyi describes the results.
#ifndef TENSOR_BRIDGE_EXTENSION_STORED_H_
#define TENSOR_BRIDGE_EXTENSION_STORED_H_

#include <Python.h>

namespace tensor_bridge::python {

/// stored_format(address, size) -> int
PyObject* storedFormat(PyObject* self, PyObject* const* args, Py_ssize_t nargs);
/// graph_constants(address, size) -> list of tuples
PyObject* graphConstants(PyObject* self, PyObject* const* args, Py_ssize_t nargs);
/// tflite_tensors(address, size) -> list of tuples
PyObject* tfliteTensors(PyObject* self, PyObject* const* args, Py_ssize_t nargs);
/// tensor_describe(address, size) -> (dtype, shape)
PyObject* tensorDescribe(PyObject* self, PyObject* const* args, Py_ssize_t nargs);
/// tensor_values(address, size, dtype, count, out_address)
PyObject* tensorValues(PyObject* self, PyObject* const* args, Py_ssize_t nargs);
/// tensor_strings(address, size, count, offsets_address, out_address) -> total
PyObject* tensorStrings(PyObject* self, PyObject* const* args, Py_ssize_t nargs);
/// tflite_unpack(address, bits, count, out_address)
PyObject* tfliteUnpack(PyObject* self, PyObject* const* args, Py_ssize_t nargs);
/// tflite_strings(address, size, count, offsets_address)
PyObject* tfliteStrings(PyObject* self, PyObject* const* args, Py_ssize_t nargs);

}  // namespace tensor_bridge::python

#endif  // TENSOR_BRIDGE_EXTENSION_STORED_H_
