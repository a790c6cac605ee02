#include "extension/structure.h"

#include <string>

#include "extension/errors.h"
#include "extension/frameworks.h"
#include "extension/options.h"

namespace tensor_bridge::python {
namespace {

// Where a node is: on the C stack, written out only for messages and for _convert.
struct Path {
  const Path* parent;
  const char* prefix;  // of a root that is itself inside something
  PyObject* key;       // of a dict; null for a list or tuple
  Py_ssize_t index;
  PyObject* field;  // of a named tuple
};

// One conversion of a structure.
struct Walk {
  Direction direction;
  bool plain;  // no keyword: null options, the common case
  bool keep_unknown;
  PyObject* keywords;  // dict for _tree, made when first needed; borrowed where given
  PyObject* names;
  PyObject* const* values;
  ParsedOptions forward;
  ParsedBackOptions back;
  bool on_device;  // way back with device=: leaf by leaf in Python
  Py_ssize_t converted;
};

std::string written(const Path* path) {
  if (path == nullptr) return "";
  if (path->prefix != nullptr) return path->prefix;
  std::string text = written(path->parent);
  if (path->field != nullptr) {
    PyObject* encoded = PyUnicode_AsUTF8String(path->field);
    if (encoded != nullptr) text += std::string(".") + PyBytes_AsString(encoded);
    Py_XDECREF(encoded);
  } else if (path->key != nullptr) {
    PyObject* repr = PyObject_Repr(path->key);
    PyObject* encoded =
        repr == nullptr ? nullptr : PyUnicode_AsEncodedString(repr, "utf-8", "backslashreplace");
    text += "[";
    text += encoded == nullptr ? "?" : PyBytes_AsString(encoded);
    text += "]";
    Py_XDECREF(encoded);
    Py_XDECREF(repr);
  } else {
    text += "[" + std::to_string(path->index) + "]";
  }
  PyErr_Clear();
  return text;
}

PyObject* walk(Walk* w, PyObject* node, const Path* path);

PyObject* keywordsOf(Walk* w) {
  if (w->keywords == nullptr) w->keywords = keywordDict(w->names, w->values);
  return w->keywords;
}

// Composites, registered nodes, and whatever is unknown.
PyObject* walkInPython(Walk* w, PyObject* node, const Path* path) {
  PyObject* keywords = keywordsOf(w);
  PyObject* module = keywords == nullptr ? nullptr : PyImport_ImportModule("tensor_bridge._convert");
  if (module == nullptr) return nullptr;
  PyObject* pair =
      PyObject_CallMethod(module, "convert_unknown", "OiOs", node,
                          w->direction == kToTensorFlow ? 1 : 0, keywords, written(path).c_str());
  Py_DECREF(module);
  if (pair == nullptr) return nullptr;
  PyObject* result = PyTuple_GetItem(pair, 0);
  Py_XINCREF(result);
  PyObject* count = result == nullptr ? nullptr : PyTuple_GetItem(pair, 1);
  if (count != nullptr) w->converted += PyLong_AsSsize_t(count);
  Py_DECREF(pair);
  return result;
}

PyObject* convertLeaf(Walk* w, PyObject* leaf, const Path* path) {
  PyObject* result = nullptr;
  tb_status status;
  if (w->direction == kToTorch) {
    status = tb_py_tf_to_torch(leaf, w->plain ? nullptr : &w->forward.options, &result);
    if (status == TB_UNSUPPORTED_DTYPE) return walkInPython(w, leaf, path);
  } else {
    if (w->on_device) return walkInPython(w, leaf, path);
    status = tb_py_torch_to_tf(leaf, w->plain ? nullptr : &w->back.options, &result);
    if (status == TB_UNSUPPORTED_TYPE) return walkInPython(w, leaf, path);
  }
  if (status != TB_OK) return raiseStatusAt(status, written(path).c_str());
  ++w->converted;
  return result;
}

PyObject* walkList(Walk* w, PyObject* list, const Path* path) {
  PyObject* result = PyList_New(0);
  // The size is read each time: the GIL may be released while a leaf is converted.
  for (Py_ssize_t i = 0; result != nullptr && i < PyList_Size(list); ++i) {
    const Path here{path, nullptr, nullptr, i, nullptr};
    PyObject* item = Py_NewRef(PyList_GetItem(list, i));
    PyObject* converted = walk(w, item, &here);
    Py_DECREF(item);
    if (converted == nullptr || PyList_Append(result, converted) != 0) {
      Py_XDECREF(converted);
      Py_DECREF(result);
      return nullptr;
    }
    Py_DECREF(converted);
  }
  return result;
}

// A tuple, or a named tuple with the names `fields`.
PyObject* walkTuple(Walk* w, PyObject* tuple, PyObject* fields, const Path* path) {
  const Py_ssize_t size = PyTuple_Size(tuple);
  PyObject* result = PyTuple_New(size);
  for (Py_ssize_t i = 0; result != nullptr && i < size; ++i) {
    PyObject* field = fields == nullptr ? nullptr : PyTuple_GetItem(fields, i);
    const Path here{path, nullptr, nullptr, i, field};
    PyObject* converted = walk(w, PyTuple_GetItem(tuple, i), &here);
    if (converted == nullptr) {
      Py_DECREF(result);
      return nullptr;
    }
    PyTuple_SetItem(result, i, converted);
  }
  return result;
}

PyObject* walkNamedTuple(Walk* w, PyObject* tuple, const Path* path) {
  auto* type = reinterpret_cast<PyObject*>(Py_TYPE(tuple));
  PyObject* fields = PyObject_GetAttrString(type, "_fields");
  if (fields == nullptr) return nullptr;
  PyObject* items = walkTuple(w, tuple, fields, path);
  Py_DECREF(fields);
  if (items == nullptr) return nullptr;
  PyObject* result = PyObject_CallMethod(type, "_make", "(O)", items);
  Py_DECREF(items);
  return result;
}

PyObject* walkDict(Walk* w, PyObject* dict, const Path* path) {
  // A snapshot: another thread may change the dict while the GIL is released.
  PyObject* items = PyDict_Items(dict);
  PyObject* result = items == nullptr ? nullptr : PyDict_New();
  const Py_ssize_t size = result == nullptr ? 0 : PyList_Size(items);
  for (Py_ssize_t i = 0; i < size; ++i) {
    PyObject* pair = PyList_GetItem(items, i);
    PyObject* key = PyTuple_GetItem(pair, 0);
    const Path here{path, nullptr, key, 0, nullptr};
    PyObject* converted = walk(w, PyTuple_GetItem(pair, 1), &here);
    if (converted == nullptr || PyDict_SetItem(result, key, converted) != 0) {
      Py_XDECREF(converted);
      Py_DECREF(items);
      Py_DECREF(result);
      return nullptr;
    }
    Py_DECREF(converted);
  }
  Py_XDECREF(items);
  return result;
}

bool isNamedTuple(PyObject* object) {
  if (!PyTuple_Check(object) || PyTuple_CheckExact(object)) return false;
  auto* type = reinterpret_cast<PyObject*>(Py_TYPE(object));
  PyObject* fields = PyObject_GetAttrString(type, "_fields");
  if (fields == nullptr) {
    PyErr_Clear();
    return false;
  }
  const bool matches = PyTuple_Check(fields) && PyTuple_Size(fields) == PyTuple_Size(object);
  Py_DECREF(fields);
  return matches;
}

// Data that belongs to neither framework and stays as it is.
bool isPlain(PyObject* object) {
  return object == Py_None || PyLong_Check(object) || PyFloat_Check(object) ||
         PyUnicode_Check(object) || PyBytes_Check(object) || PyComplex_Check(object);
}

PyObject* walkNode(Walk* w, PyObject* node, const Path* path) {
  if (PyDict_CheckExact(node)) return walkDict(w, node, path);
  if (PyList_CheckExact(node)) return walkList(w, node, path);
  if (PyTuple_CheckExact(node)) return walkTuple(w, node, nullptr, path);
  if (isNamedTuple(node)) return walkNamedTuple(w, node, path);
  return walkInPython(w, node, path);
}

PyObject* walk(Walk* w, PyObject* node, const Path* path) {
  const bool forward = w->direction == kToTorch;
  if (forward ? isEager(node) : isTorch(node)) return convertLeaf(w, node, path);
  if (isPlain(node) || (forward ? isTorch(node) : isEager(node))) return Py_NewRef(node);
  if (Py_EnterRecursiveCall(" while converting a nested structure") != 0) return nullptr;
  PyObject* result = walkNode(w, node, path);
  Py_LeaveRecursiveCall();
  return result;
}

// Reads the keywords. False with an exception set.
bool begin(Walk* w) {
  w->plain = w->names == nullptr || PyTuple_Size(w->names) == 0;
  const bool ready = w->direction == kToTorch ? ensureReady() : ensureBackReady();
  if (!ready) return false;
  if (w->plain) return true;
  if (w->direction == kToTorch) return parseOptions(w->names, w->values, kWithExtras, &w->forward);
  if (!parseBackOptions(w->names, w->values, kWithExtras, &w->back)) return false;
  w->on_device = w->back.device != nullptr && w->back.device != Py_None;
  return true;
}

}  // namespace

bool isContainer(PyObject* object) {
  return PyDict_CheckExact(object) || PyList_CheckExact(object) || PyTuple_CheckExact(object) ||
         isNamedTuple(object);
}

PyObject* convertStructure(PyObject* structure, Direction direction, PyObject* names,
                           PyObject* const* values) {
  Walk w{};
  w.direction = direction;
  w.names = names;
  w.values = values;
  if (!begin(&w)) return nullptr;
  PyObject* result = walk(&w, structure, nullptr);
  Py_XDECREF(w.keywords);
  if (result != nullptr && w.converted == 0) {
    Py_DECREF(result);
    return raiseNothingConverted(structure, direction == kToTorch);
  }
  return result;
}

PyObject* convertNode(PyObject*, PyObject* args) {
  PyObject* node;
  int back;
  PyObject* keywords;
  const char* path;
  if (!PyArg_ParseTuple(args, "OiO!s:convert_node", &node, &back, &PyDict_Type, &keywords, &path)) {
    return nullptr;
  }
  Walk w{};
  w.direction = back != 0 ? kToTensorFlow : kToTorch;
  w.keywords = keywords;
  PyObject* names = PyTuple_New(PyDict_Size(keywords));
  std::vector<PyObject*> values;
  PyObject* key;
  PyObject* value;
  Py_ssize_t position = 0;
  Py_ssize_t count = 0;
  while (names != nullptr && PyDict_Next(keywords, &position, &key, &value)) {
    PyTuple_SetItem(names, count++, Py_NewRef(key));
    values.push_back(value);
  }
  if (names == nullptr) return nullptr;
  w.names = names;
  w.values = values.data();
  const Path root{nullptr, path, nullptr, 0, nullptr};
  PyObject* result = begin(&w) ? walk(&w, node, &root) : nullptr;
  Py_DECREF(names);
  if (result == nullptr) return nullptr;
  PyObject* pair = Py_BuildValue("(Nn)", result, w.converted);
  return pair;
}

}  // namespace tensor_bridge::python
