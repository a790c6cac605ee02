// From a tb_status to a Python exception of tensor_bridge.errors.
// Not for: defining exceptions; they are Python classes.
#ifndef TENSOR_BRIDGE_EXTENSION_ERRORS_H_
#define TENSOR_BRIDGE_EXTENSION_ERRORS_H_

#include <Python.h>

#include "c_api/private_api.h"

namespace tensor_bridge::python {

/// A new str of a C message. Messages of TensorFlow and torch are usually UTF-8, but may quote any
/// data: bytes that are not UTF-8 are replaced. Null with a Python error set if there is no memory.
PyObject* textOf(const char* message);

/// Sets the exception for `status` with tb_last_error(), unless a Python exception is set already.
/// Always returns null.
PyObject* raiseStatus(tb_status status);

/// The same for a leaf of a structure: the message begins with the leaf's path.
PyObject* raiseStatusAt(tb_status status, const char* path);

/// The same for a function that reads a file: a CheckpointError has the place as its attributes.
PyObject* raisePlaced(tb_status status, const tb_bundle_place& place);

/// Sets UnsupportedTypeError: a structure without anything to convert. Always returns null.
PyObject* raiseNothingConverted(PyObject* structure, bool to_torch);

/// Sets InvalidHandleError. Always returns null.
PyObject* raiseInvalidHandle(const char* message);

/// Sets InvalidOptionError. Always returns null.
PyObject* raiseInvalidOption(const char* format, PyObject* argument);

}  // namespace tensor_bridge::python

#endif  // TENSOR_BRIDGE_EXTENSION_ERRORS_H_
