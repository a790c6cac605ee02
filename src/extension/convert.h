// The conversions as Python functions. Not for: anything but one tensor; what is not an eager
// tensor goes to tensor_bridge._dense.
#ifndef TENSOR_BRIDGE_EXTENSION_CONVERT_H_
#define TENSOR_BRIDGE_EXTENSION_CONVERT_H_

#include <Python.h>

namespace tensor_bridge::python {

/// convert_tf_to_pytorch(t, /, *, ...) -> torch.Tensor
PyObject* convertTfToPytorch(PyObject* self, PyObject* const* args, Py_ssize_t nargs,
                             PyObject* names);
/// The same for one dense tensor only, without the keywords of composites and structures:
/// convert_tensor(t, /, *, ...) -> torch.Tensor
PyObject* convertTensor(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* names);
/// explain_tensor(t, /, *, ...) -> tuple; t is an eager tensor
PyObject* explainTensor(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* names);
/// convert_variable(handle, context, tf_dtype, /, *, ...) -> torch.Tensor
PyObject* convertVariable(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* names);
/// explain_variable(handle, context, tf_dtype, /, *, ...) -> tuple
PyObject* explainVariable(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* names);
/// convert_pytorch_to_tf(x, /, *, copy, device, dtype, grad) -> tf.Tensor
PyObject* convertPytorchToTf(PyObject* self, PyObject* const* args, Py_ssize_t nargs,
                             PyObject* names);
/// convert_tensor_back(x, /, *, ...) -> tf.Tensor, one dense tensor only
PyObject* convertTensorBack(PyObject* self, PyObject* const* args, Py_ssize_t nargs,
                            PyObject* names);
/// explain_torch(x, /, *, copy, dtype, grad) -> tuple; x is a torch tensor
PyObject* explainTorch(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* names);
/// is_torch_tensor(x) -> bool
PyObject* isTorchTensor(PyObject* self, PyObject* x);
/// is_eager_tensor(t) -> bool
PyObject* isEagerTensor(PyObject* self, PyObject* t);
/// has_handle(t) -> bool
PyObject* hasHandle(PyObject* self, PyObject* t);
/// gpu_of_address(address: int) -> int
PyObject* gpuOfAddress(PyObject*, PyObject* address);

/// require_torch_cuda() -> None
PyObject* requireTorchCuda(PyObject*, PyObject*);

/// What tb_py_set_gpu_of_logical() takes: asks tensor_bridge._devices.
int32_t gpuOfLogical(int32_t logical);

/// release_previous(x) -> int, 0 or 1
PyObject* releasePrevious(PyObject* self, PyObject* x);
/// tf_address(t) -> int
PyObject* tfAddress(PyObject* self, PyObject* t);

}  // namespace tensor_bridge::python

#endif  // TENSOR_BRIDGE_EXTENSION_CONVERT_H_
