// The functions of tensor_bridge._C that parse Examples. Not for: files of records, the tensors
// that columns become (python/tensor_bridge/records).
#ifndef TENSOR_BRIDGE_EXTENSION_EXAMPLE_H_
#define TENSOR_BRIDGE_EXTENSION_EXAMPLE_H_

#include <Python.h>

namespace tensor_bridge::python {

/// The name of the capsules that exampleSpec() makes.
constexpr const char* kExampleSpec = "tensor_bridge.example_spec";

PyObject* exampleSpec(PyObject* module, PyObject* const* args, Py_ssize_t nargs);
PyObject* exampleScan(PyObject* module, PyObject* const* args, Py_ssize_t nargs);
PyObject* exampleQueue(PyObject* module, PyObject* const* args, Py_ssize_t nargs);
PyObject* exampleQueueReady(PyObject* module, PyObject* queue);
PyObject* exampleQueueTake(PyObject* module, PyObject* const* args, Py_ssize_t nargs);
PyObject* exampleQueueClose(PyObject* module, PyObject* queue);
PyObject* exampleKeys(PyObject* module, PyObject* const* args, Py_ssize_t nargs);
PyObject* exampleSingles(PyObject* module, PyObject* const* args, Py_ssize_t nargs);
PyObject* exampleFill(PyObject* module, PyObject* const* args, Py_ssize_t nargs);

}  // namespace tensor_bridge::python

#endif  // TENSOR_BRIDGE_EXTENSION_EXAMPLE_H_
