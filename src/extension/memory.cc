#include "extension/memory.h"

#include "c_api/private_api.h"
#include "extension/errors.h"
#include "extension/frameworks.h"
#include "extension/hooks.h"

namespace tensor_bridge::python {

PyObject* gpuOfAddress(PyObject*, PyObject* address) {
  const void* pointer = PyLong_AsVoidPtr(address);
  if (PyErr_Occurred() != nullptr) return nullptr;
  return PyLong_FromLong(tb_gpu_of_address(pointer));
}

PyObject* requireTorchCuda(PyObject*, PyObject*) {
  const tb_status status = tb_require_torch_cuda();
  if (status != TB_OK) return raiseStatus(status);
  Py_RETURN_NONE;
}

int32_t gpuOfLogical(int32_t logical) {
  const Gil gil;
  const Owned ordinal = hooks::gpu_of_logical.call("(i)", logical);
  const int32_t result = ordinal ? static_cast<int32_t>(PyLong_AsLong(ordinal.get())) : -1;
  PyErr_Clear();
  return result;
}

PyObject* releasePrevious(PyObject*, PyObject* x) {
  if (!isTorch(x)) {
    PyErr_SetString(PyExc_TypeError, "expected a torch.Tensor");
    return nullptr;
  }
  if (!ensureReady()) return nullptr;
  int32_t released = 0;
  const tb_status status = tb_py_torch_release_previous(x, &released);
  return status == TB_OK ? PyLong_FromLong(released) : raiseStatus(status);
}

PyObject* tfAddress(PyObject*, PyObject* t) {
  const void* address = nullptr;
  const tb_status status = tb_py_tf_address(t, &address);
  return status == TB_OK ? PyLong_FromVoidPtr(const_cast<void*>(address)) : raiseStatus(status);
}

}  // namespace tensor_bridge::python
