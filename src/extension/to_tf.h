// From torch to TensorFlow as Python functions, for one tensor. Not for: other values, which go to
// tensor_bridge._convert.
#ifndef TENSOR_BRIDGE_EXTENSION_TO_TF_H_
#define TENSOR_BRIDGE_EXTENSION_TO_TF_H_

#include <Python.h>

namespace tensor_bridge::python {

/// convert_pytorch_to_tf(x, /, *, copy, device, dtype, grad) -> tf.Tensor
PyObject* convertPytorchToTf(PyObject* self, PyObject* const* args, Py_ssize_t nargs,
                             PyObject* names);
/// tensor_to_tf(x, /, *, ...) -> tf.Tensor, one dense tensor only
PyObject* tensorToTf(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* names);
/// explain_to_tf(x, /, *, copy, dtype, grad) -> tuple; x is a torch tensor
PyObject* explainToTf(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* names);

}  // namespace tensor_bridge::python

#endif  // TENSOR_BRIDGE_EXTENSION_TO_TF_H_
