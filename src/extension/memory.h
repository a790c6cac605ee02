// Where a tensor's memory is, and when it goes, as Python functions. Not for: conversions.
#ifndef TENSOR_BRIDGE_EXTENSION_MEMORY_H_
#define TENSOR_BRIDGE_EXTENSION_MEMORY_H_

#include <Python.h>

namespace tensor_bridge::python {

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

#endif  // TENSOR_BRIDGE_EXTENSION_MEMORY_H_
