// From a tb_status to a Python exception of tensor_bridge.errors.
// Not for: defining exceptions; they are Python classes.
#ifndef TENSOR_BRIDGE_PYTHON_ERRORS_H_
#define TENSOR_BRIDGE_PYTHON_ERRORS_H_

#include <Python.h>

#include "tensor_bridge/c_api.h"

namespace tensor_bridge::python {

/// Sets the exception for `status` with tb_last_error(), unless a Python exception is set already.
/// Always returns null.
PyObject* raiseStatus(tb_status status);

/// Sets InvalidOptionError. Always returns null.
PyObject* raiseInvalidOption(const char* format, PyObject* argument);

}  // namespace tensor_bridge::python

#endif  // TENSOR_BRIDGE_PYTHON_ERRORS_H_
