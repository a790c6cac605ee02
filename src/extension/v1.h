// Checkpoints of TensorFlow's first format as Python functions. Not for: files, names, tensors
// (tensor_bridge.checkpoint). Memory comes as an address; _C.pyi describes the results.
#ifndef TENSOR_BRIDGE_EXTENSION_V1_H_
#define TENSOR_BRIDGE_EXTENSION_V1_H_

#include <Python.h>

namespace tensor_bridge::python {

/// v1_index(address, size) -> (tensors, blocks, capsule of the finder of slices)
PyObject* v1Index(PyObject* self, PyObject* const* args, Py_ssize_t nargs);
/// v1_slice(address, size, capsule, key, dtype, count) -> (values, message)
PyObject* v1Slice(PyObject* self, PyObject* const* args, Py_ssize_t nargs);

}  // namespace tensor_bridge::python

#endif  // TENSOR_BRIDGE_EXTENSION_V1_H_
