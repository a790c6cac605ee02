// The functions of tensor_bridge._C that read and write files of records. Not for: the contents of
// records (example.h), opening files (python/tensor_bridge/records).
#ifndef TENSOR_BRIDGE_EXTENSION_RECORDS_H_
#define TENSOR_BRIDGE_EXTENSION_RECORDS_H_

#include <Python.h>

namespace tensor_bridge::python {

PyObject* recordsScan(PyObject* module, PyObject* const* args, Py_ssize_t nargs);
PyObject* recordsAt(PyObject* module, PyObject* const* args, Py_ssize_t nargs);
PyObject* recordBytes(PyObject* module, PyObject* const* args, Py_ssize_t nargs);
PyObject* recordsGather(PyObject* module, PyObject* const* args, Py_ssize_t nargs);
PyObject* recordsFrame(PyObject* module, PyObject* const* args, Py_ssize_t nargs);

}  // namespace tensor_bridge::python

#endif  // TENSOR_BRIDGE_EXTENSION_RECORDS_H_
