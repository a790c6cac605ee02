// The two frameworks' types and readiness, as the extension sees them. Not for: versions and
// imports; tensor_bridge._frameworks decides those.
#ifndef TENSOR_BRIDGE_EXTENSION_FRAMEWORKS_H_
#define TENSOR_BRIDGE_EXTENSION_FRAMEWORKS_H_

#include <Python.h>

namespace tensor_bridge::python {

namespace detail {
extern PyTypeObject* g_eager_type;
extern PyTypeObject* g_tensor_type;
extern PyTypeObject* g_parameter_type;
extern bool g_ready;
extern bool g_both_ready;
bool isEagerSlow(PyObject* object);
bool isTorchSlow(PyObject* object);
bool ensureReadySlow();
bool ensureBothReadySlow();
}  // namespace detail

/// Whether `object` is exactly TensorFlow's EagerTensor. Checks the real type, not __class__,
/// because the object's memory is read.
inline bool isEager(PyObject* object) {
  return Py_TYPE(object) == detail::g_eager_type || detail::isEagerSlow(object);
}

/// Whether `object` is a torch.Tensor with a value, of a subclass or not; likewise by real type.
inline bool isTorch(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  return type == detail::g_tensor_type || type == detail::g_parameter_type ||
         detail::isTorchSlow(object);
}

/// Imports torch, checks both frameworks' versions, and loads the adapter; once. False with an
/// exception set.
inline bool ensureReady() { return detail::g_ready || detail::ensureReadySlow(); }

/// ensureReady(), and TensorFlow is imported, checked and initialised.
inline bool ensureBothReady() { return detail::g_both_ready || detail::ensureBothReadySlow(); }

/// is_torch_tensor(x) -> bool
PyObject* isTorchTensor(PyObject* self, PyObject* x);
/// is_eager_tensor(t) -> bool
PyObject* isEagerTensor(PyObject* self, PyObject* t);
/// has_handle(t) -> bool
PyObject* hasHandle(PyObject* self, PyObject* t);

}  // namespace tensor_bridge::python

#endif  // TENSOR_BRIDGE_EXTENSION_FRAMEWORKS_H_
