// From TensorFlow to torch as Python functions, for one tensor. Not for: other values, which go to
// tensor_bridge._convert.
#ifndef TENSOR_BRIDGE_EXTENSION_TO_TORCH_H_
#define TENSOR_BRIDGE_EXTENSION_TO_TORCH_H_

#include <Python.h>

namespace tensor_bridge::python {

/// convert_tf_to_pytorch(t, /, *, ...) -> torch.Tensor
PyObject* convertTfToPytorch(PyObject* self, PyObject* const* args, Py_ssize_t nargs,
                             PyObject* names);
/// The same for one dense tensor only, without the keywords of composites and structures:
/// tensor_to_torch(t, /, *, ...) -> torch.Tensor
PyObject* tensorToTorch(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* names);
/// explain_to_torch(t, /, *, ...) -> tuple; t is an eager tensor
PyObject* explainToTorch(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* names);
/// variable_to_torch(handle, context, tf_dtype, /, *, ...) -> torch.Tensor
PyObject* variableToTorch(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* names);
/// explain_variable(handle, context, tf_dtype, /, *, ...) -> tuple
PyObject* explainVariable(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* names);

}  // namespace tensor_bridge::python

#endif  // TENSOR_BRIDGE_EXTENSION_TO_TORCH_H_
