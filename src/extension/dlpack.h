// DLPack capsules and the C exchange API as Python objects. Not for: policy; tensor_bridge.dlpack
// decides what is shared.
#ifndef TENSOR_BRIDGE_EXTENSION_DLPACK_H_
#define TENSOR_BRIDGE_EXTENSION_DLPACK_H_

#include <Python.h>

namespace tensor_bridge::python {

/// dlpack_capsule(t, versioned, copy) -> capsule named "dltensor_versioned" or "dltensor". The old
/// kind cannot say READ_ONLY, so it is always made over a copy.
PyObject* dlpackCapsule(PyObject* self, PyObject* args);
/// torch_from_dlpack(capsule, /, *, ...) -> torch.Tensor; the capsule is consumed
PyObject* torchFromDlpack(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* names);
/// dlpack_exchange_api() -> capsule "dlpack_exchange_api" for tensor_bridge.dlpack.Exporter
PyObject* dlpackExchangeApi(PyObject* self, PyObject* unused);
/// capsule_is_read_only(capsule) -> bool
PyObject* capsuleIsReadOnly(PyObject* self, PyObject* capsule);

}  // namespace tensor_bridge::python

#endif  // TENSOR_BRIDGE_EXTENSION_DLPACK_H_
