// The functions of tensor_bridge._C that read and write files of records. Not for: the contents of
// records (example.h), opening files (python/tensor_bridge/records).
#ifndef TENSOR_BRIDGE_EXTENSION_RECORDS_H_
#define TENSOR_BRIDGE_EXTENSION_RECORDS_H_

#include <Python.h>

#include "extension/reading.h"

namespace tensor_bridge::python {

/// An argument that is the address of int64.
int64_t* numbers(const Integers& integers, int index);

/// Files in five arguments from `first` on: addresses of the files' addresses, sizes and ends, the
/// number of files, and the address of the offsets.
tb_record_files recordFiles(const Integers& integers, int first);

PyObject* recordsScan(PyObject* module, PyObject* const* args, Py_ssize_t nargs);
PyObject* recordsAt(PyObject* module, PyObject* const* args, Py_ssize_t nargs);
PyObject* recordBytes(PyObject* module, PyObject* const* args, Py_ssize_t nargs);
PyObject* recordsGather(PyObject* module, PyObject* const* args, Py_ssize_t nargs);
PyObject* recordsFrame(PyObject* module, PyObject* const* args, Py_ssize_t nargs);

}  // namespace tensor_bridge::python

#endif  // TENSOR_BRIDGE_EXTENSION_RECORDS_H_
