// From torch to TensorFlow as Python functions. Not for: anything but one tensor; what is not a
// torch.Tensor goes to tensor_bridge._convert.
#ifndef TENSOR_BRIDGE_EXTENSION_TO_TF_H_
#define TENSOR_BRIDGE_EXTENSION_TO_TF_H_

#include <Python.h>

namespace tensor_bridge::python {

/// convert_pytorch_to_tf(x, /, *, copy, device, dtype, grad) -> tf.Tensor
PyObject* convertPytorchToTf(PyObject* self, PyObject* const* args, Py_ssize_t nargs,
                             PyObject* names);
/// convert_tensor_back(x, /, *, ...) -> tf.Tensor, one dense tensor only
PyObject* convertTensorBack(PyObject* self, PyObject* const* args, Py_ssize_t nargs,
                            PyObject* names);
/// explain_torch(x, /, *, copy, dtype, grad) -> tuple; x is a torch tensor
PyObject* explainTorch(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* names);

}  // namespace tensor_bridge::python

#endif  // TENSOR_BRIDGE_EXTENSION_TO_TF_H_
