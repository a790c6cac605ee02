#include "extension/errors.h"

#include <cstring>

namespace tensor_bridge::python {
namespace {

// A new reference to the class for `status`, or null with an exception set.
PyObject* exceptionClass(tb_status status) {
  PyObject* module = PyImport_ImportModule("tensor_bridge.errors");
  if (module == nullptr) return nullptr;
  PyObject* table = PyObject_GetAttrString(module, "BY_STATUS");
  Py_DECREF(module);
  if (table == nullptr) return nullptr;
  PyObject* key = PyLong_FromLong(status);
  PyObject* type = key == nullptr ? nullptr : PyObject_GetItem(table, key);
  Py_XDECREF(key);
  Py_DECREF(table);
  return type;
}

}  // namespace

PyObject* textOf(const char* message) {
  return PyUnicode_DecodeUTF8(message, static_cast<Py_ssize_t>(std::strlen(message)), "replace");
}

PyObject* raiseStatus(tb_status status) { return raiseStatusAt(status, ""); }

PyObject* raiseStatusAt(tb_status status, const char* path) {
  if (PyErr_Occurred() != nullptr) return nullptr;
  PyObject* message = textOf(tb_last_error());
  if (message != nullptr && path[0] != '\0') {
    PyObject* placed = PyUnicode_FromFormat("at %s: %U", path, message);
    Py_DECREF(message);
    message = placed;
  }
  if (message == nullptr) return nullptr;
  PyObject* type = exceptionClass(status);
  if (type != nullptr) {
    PyErr_SetObject(type, message);
    Py_DECREF(type);
  }
  Py_DECREF(message);
  return nullptr;
}

PyObject* raisePlaced(tb_status status, const tb_bundle_place& place) {
  raiseStatus(status);
  if (status != TB_CHECKPOINT) return nullptr;
  PyObject* type = nullptr;
  PyObject* value = nullptr;
  PyObject* traceback = nullptr;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  PyObject* offset = PyLong_FromLongLong(place.offset);
  PyObject* entry = PyUnicode_DecodeUTF8(place.entry, place.entry_size, "surrogateescape");
  if (offset == nullptr || entry == nullptr ||
      PyObject_SetAttrString(value, "offset", offset) != 0 ||
      PyObject_SetAttrString(value, "entry", entry) != 0) {
    PyErr_Clear();
  }
  Py_XDECREF(offset);
  Py_XDECREF(entry);
  PyErr_Restore(type, value, traceback);
  return nullptr;
}

PyObject* raiseNothingConverted(PyObject* structure, bool to_torch) {
  PyObject* type = exceptionClass(TB_UNSUPPORTED_TYPE);
  PyObject* kind =
      PyObject_GetAttrString(reinterpret_cast<PyObject*>(Py_TYPE(structure)), "__name__");
  if (type != nullptr && kind != nullptr) {
    PyErr_Format(type, "expected a structure with %s values in it, got a %U without any",
                 to_torch ? "TensorFlow" : "torch", kind);
  }
  Py_XDECREF(type);
  Py_XDECREF(kind);
  return nullptr;
}

PyObject* raiseInvalidHandle(const char* message) {
  PyObject* type = exceptionClass(TB_INVALID_HANDLE);
  if (type != nullptr) {
    PyErr_SetString(type, message);
    Py_DECREF(type);
  }
  return nullptr;
}

PyObject* raiseInvalidOption(const char* format, PyObject* argument) {
  PyObject* type = exceptionClass(TB_INVALID_OPTION);
  if (type != nullptr) {
    PyErr_Format(type, format, argument);
    Py_DECREF(type);
  }
  return nullptr;
}

}  // namespace tensor_bridge::python
