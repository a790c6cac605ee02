#include "extension/errors.h"

#include <cstring>

#include "extension/hooks.h"
#include "extension/object.h"

namespace tensor_bridge::python {
namespace {

// The class for `status`.
Owned exceptionClass(tb_status status) {
  PyObject* table = hooks::by_status.get();
  const Owned key(table == nullptr ? nullptr : PyLong_FromLong(status));
  return Owned(key ? PyObject_GetItem(table, key.get()) : nullptr);
}

}  // namespace

PyObject* textOf(const char* message) {
  return PyUnicode_DecodeUTF8(message, static_cast<Py_ssize_t>(std::strlen(message)), "replace");
}

PyObject* raiseStatus(tb_status status) { return raiseStatusAt(status, ""); }

PyObject* raiseStatusAt(tb_status status, const char* path) {
  if (PyErr_Occurred() != nullptr) return nullptr;
  Owned message(textOf(tb_last_error()));
  if (message && path[0] != '\0') {
    message = Owned(PyUnicode_FromFormat("at %s: %U", path, message.get()));
  }
  const Owned type = message ? exceptionClass(status) : Owned();
  if (type) PyErr_SetObject(type.get(), message.get());
  return nullptr;
}

PyObject* raisePlaced(tb_status status, const tb_bundle_place& place) {
  raiseStatus(status);
  if (status != TB_CHECKPOINT && status != TB_UNSUPPORTED_FILE) return nullptr;
  ErrorState error;
  const Owned offset(PyLong_FromLongLong(place.offset));
  const Owned entry(PyUnicode_DecodeUTF8(place.entry, place.entry_size, "surrogateescape"));
  // If these calls fail, their error is dropped and the exception stays without a place.
  if (offset && entry && PyObject_SetAttrString(error.exception(), "offset", offset.get()) == 0) {
    static_cast<void>(PyObject_SetAttrString(error.exception(), "entry", entry.get()));
  }
  return nullptr;
}

PyObject* raiseNothingConverted(PyObject* structure, bool to_torch) {
  const Owned type = exceptionClass(TB_UNSUPPORTED_TYPE);
  const Owned kind(
      PyObject_GetAttrString(reinterpret_cast<PyObject*>(Py_TYPE(structure)), "__name__"));
  if (type && kind) {
    PyErr_Format(type.get(), "expected a structure with %s values in it, got a %U without any",
                 to_torch ? "TensorFlow" : "torch", kind.get());
  }
  return nullptr;
}

PyObject* raiseInvalidHandle(const char* message) {
  const Owned type = exceptionClass(TB_INVALID_HANDLE);
  if (type) PyErr_SetString(type.get(), message);
  return nullptr;
}

PyObject* raiseInvalidOption(const char* format, PyObject* argument) {
  const Owned type = exceptionClass(TB_INVALID_OPTION);
  if (type) PyErr_Format(type.get(), format, argument);
  return nullptr;
}

}  // namespace tensor_bridge::python
