#include "extension/frameworks.h"

#include "extension/errors.h"
#include "extension/hooks.h"
#include "extension/object.h"
#include "tensor_bridge/c_api.h"

namespace tensor_bridge::python::detail {

// Types are kept after the first use and never freed, like the frameworks' own types.
PyTypeObject* g_eager_type = nullptr;
PyTypeObject* g_tensor_type = nullptr;
PyTypeObject* g_parameter_type = nullptr;
PyTypeObject* g_uninitialized_type = nullptr;
bool g_ready = false;
bool g_both_ready = false;

namespace {

PyTypeObject* typeOf(PyObject* module, const char* name) {
  PyObject* type = module == nullptr ? nullptr : PyObject_GetAttrString(module, name);
  if (type == nullptr) PyErr_Clear();
  return reinterpret_cast<PyTypeObject*>(type);
}

}  // namespace

bool isEagerSlow(PyObject* object) {
  if (tb_py_is_eager_tensor(object) == 0) return false;
  g_eager_type = Py_TYPE(object);
  Py_INCREF(reinterpret_cast<PyObject*>(g_eager_type));
  return true;
}

bool isTorchSlow(PyObject* object) {
  if (g_tensor_type == nullptr) {
    // torch is not imported for this test: without torch there is no torch tensor.
    PyObject* modules = PyImport_GetModuleDict();
    g_tensor_type = typeOf(PyDict_GetItemString(modules, "torch"), "Tensor");
    if (g_tensor_type == nullptr) return false;
    PyObject* parameter = PyDict_GetItemString(modules, "torch.nn.parameter");
    g_parameter_type = typeOf(parameter, "Parameter");
    g_uninitialized_type = typeOf(parameter, "UninitializedTensorMixin");
  }
  PyTypeObject* type = Py_TYPE(object);
  // A lazy module's parameter looks like an empty tensor, but has no value.
  return PyType_IsSubtype(type, g_tensor_type) != 0 &&
         (g_uninitialized_type == nullptr || PyType_IsSubtype(type, g_uninitialized_type) == 0);
}

bool ensureReadySlow() {
  const Owned version = hooks::ensure.call();
  int major = 0;
  int minor = 0;
  int proven = 0;
  if (!version || PyArg_ParseTuple(version.get(), "iip", &major, &minor, &proven) == 0) {
    return false;
  }
  const tb_status status = tb_py_use_torch(major, minor, proven);
  if (status != TB_OK) {
    raiseStatus(status);
    return false;
  }
  if (const char* reason = tb_py_copying_reason()) {
    const Owned text(textOf(reason));
    if (!text || !hooks::say_that_it_copies.call("(O)", text.get())) return false;
  }
  g_ready = true;
  return true;
}

bool ensureBothReadySlow() {
  if (!ensureReady() || !hooks::ensure_tensorflow.call()) return false;
  g_both_ready = true;
  return true;
}

}  // namespace tensor_bridge::python::detail

namespace tensor_bridge::python {

PyObject* isTorchTensor(PyObject*, PyObject* x) { return PyBool_FromLong(isTorch(x)); }

PyObject* isEagerTensor(PyObject*, PyObject* t) { return PyBool_FromLong(isEager(t)); }

PyObject* hasHandle(PyObject*, PyObject* t) {
  return PyBool_FromLong(isEager(t) && tb_py_has_handle(t) != 0);
}

}  // namespace tensor_bridge::python
