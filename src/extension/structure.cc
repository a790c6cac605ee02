#include "extension/structure.h"

#include <string>

#include "extension/errors.h"
#include "extension/frameworks.h"
#include "extension/hooks.h"
#include "extension/object.h"
#include "extension/options.h"
#include "extension/strings.h"
#include "extension/values.h"

namespace tensor_bridge::python {
namespace {

// The path of a node: kept on the C stack, and written out only for messages and for _convert.
struct Path {
  const Path* parent;
  const char* prefix;  // the path of the root, if it is inside another structure
  PyObject* key;       // of a dict; null for a list or tuple
  Py_ssize_t index;
  PyObject* field;  // of a named tuple
};

// One conversion of a structure.
struct Walk {
  Direction direction;
  bool plain;           // no keyword: null options, the common case
  PyObject* keywords;   // dict for _convert, borrowed: the given one, or made_keywords
  Owned made_keywords;  // made when first needed
  PyObject* names;
  PyObject* const* values;
  ParsedToTorchOptions to_torch;
  ParsedToTfOptions to_tf;
  bool on_device;  // to_tf with device=: leaf by leaf in Python
  Py_ssize_t converted;
};

std::string written(const Path* path) {
  if (path == nullptr) return "";
  if (path->prefix != nullptr) return path->prefix;
  std::string text = written(path->parent);
  if (path->field != nullptr) {
    const Owned encoded(PyUnicode_AsUTF8String(path->field));
    if (encoded) text += std::string(".") + PyBytes_AsString(encoded.get());
  } else if (path->key != nullptr) {
    const Owned repr(PyObject_Repr(path->key));
    const Owned encoded(repr ? PyUnicode_AsEncodedString(repr.get(), "utf-8", "backslashreplace")
                             : nullptr);
    text += "[";
    text += encoded ? PyBytes_AsString(encoded.get()) : "?";
    text += "]";
  } else {
    text += "[" + std::to_string(path->index) + "]";
  }
  PyErr_Clear();
  return text;
}

PyObject* walk(Walk* w, PyObject* node, const Path* path);

PyObject* keywordsOf(Walk* w) {
  if (w->keywords == nullptr) {
    w->made_keywords = keywordDict(w->names, w->values);
    w->keywords = w->made_keywords.get();
  }
  return w->keywords;
}

// Composites, registered nodes, and unknown values.
PyObject* walkInPython(Walk* w, PyObject* node, const Path* path) {
  PyObject* keywords = keywordsOf(w);
  if (keywords == nullptr) return nullptr;
  const Owned pair = hooks::convert_unknown.call(
      "(OiOs)", node, w->direction == kToTensorFlow ? 1 : 0, keywords, written(path).c_str());
  PyObject* result;
  Py_ssize_t converted;
  if (!pair || PyArg_ParseTuple(pair.get(), "On", &result, &converted) == 0) return nullptr;
  w->converted += converted;
  return Py_NewRef(result);
}

PyObject* convertLeaf(Walk* w, PyObject* leaf, const Path* path) {
  PyObject* result = nullptr;
  tb_status status;
  if (w->direction == kToTorch) {
    status = tb_py_tf_to_torch(leaf, w->plain ? nullptr : &w->to_torch.options, &result);
    if (status == TB_UNSUPPORTED_DTYPE) {
      if (w->plain) status = stringTensorOf(leaf, nullptr, &result);
      if (status == TB_UNSUPPORTED_DTYPE) return walkInPython(w, leaf, path);
      if (status == TB_OK && result == nullptr) return nullptr;
    }
  } else {
    if (w->on_device) return walkInPython(w, leaf, path);
    status = tb_py_torch_to_tf(leaf, w->plain ? nullptr : &w->to_tf.options, &result);
    if (status == TB_UNSUPPORTED_TYPE) return walkInPython(w, leaf, path);
  }
  if (status != TB_OK) return raiseStatusAt(status, written(path).c_str());
  ++w->converted;
  return result;
}

PyObject* walkList(Walk* w, PyObject* list, const Path* path) {
  Owned result(PyList_New(0));
  // The size is read each time: the GIL may be released while a leaf is converted.
  for (Py_ssize_t i = 0; result && i < PyList_Size(list); ++i) {
    const Path here{path, nullptr, nullptr, i, nullptr};
    const Owned item(Py_NewRef(PyList_GetItem(list, i)));
    if (!append(result, walk(w, item.get(), &here))) return nullptr;
  }
  return result.release();
}

// A tuple, or a named tuple with the names `fields`.
PyObject* walkTuple(Walk* w, PyObject* tuple, PyObject* fields, const Path* path) {
  return tupleOf(PyTuple_Size(tuple), [&](Py_ssize_t i) {
    PyObject* field = fields == nullptr ? nullptr : PyTuple_GetItem(fields, i);
    const Path here{path, nullptr, nullptr, i, field};
    return walk(w, PyTuple_GetItem(tuple, i), &here);
  });
}

PyObject* walkNamedTuple(Walk* w, PyObject* tuple, const Path* path) {
  auto* type = reinterpret_cast<PyObject*>(Py_TYPE(tuple));
  const Owned fields(PyObject_GetAttrString(type, "_fields"));
  const Owned items(fields ? walkTuple(w, tuple, fields.get(), path) : nullptr);
  return items ? PyObject_CallMethod(type, "_make", "(O)", items.get()) : nullptr;
}

PyObject* walkDict(Walk* w, PyObject* dict, const Path* path) {
  // A snapshot: another thread may change the dict while the GIL is released.
  const Owned items(PyDict_Items(dict));
  Owned result(items ? PyDict_New() : nullptr);
  const Py_ssize_t size = result ? PyList_Size(items.get()) : 0;
  for (Py_ssize_t i = 0; i < size; ++i) {
    PyObject* pair = PyList_GetItem(items.get(), i);
    PyObject* key = PyTuple_GetItem(pair, 0);
    const Path here{path, nullptr, key, 0, nullptr};
    const Owned converted(walk(w, PyTuple_GetItem(pair, 1), &here));
    if (!converted || PyDict_SetItem(result.get(), key, converted.get()) != 0) return nullptr;
  }
  return result.release();
}

bool isNamedTuple(PyObject* object) {
  if (!PyTuple_Check(object) || PyTuple_CheckExact(object)) return false;
  auto* type = reinterpret_cast<PyObject*>(Py_TYPE(object));
  const Owned fields(PyObject_GetAttrString(type, "_fields"));
  if (!fields) {
    PyErr_Clear();
    return false;
  }
  return PyTuple_Check(fields.get()) && PyTuple_Size(fields.get()) == PyTuple_Size(object);
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
  const bool to_torch = w->direction == kToTorch;
  if (to_torch ? isEager(node) : isTorch(node)) return convertLeaf(w, node, path);
  if (isPlain(node) || (to_torch ? isTorch(node) : isEager(node))) return Py_NewRef(node);
  if (Py_EnterRecursiveCall(" while converting a nested structure") != 0) return nullptr;
  PyObject* result = walkNode(w, node, path);
  Py_LeaveRecursiveCall();
  return result;
}

// Reads the keywords. False with an exception set.
bool begin(Walk* w) {
  w->plain = w->names == nullptr || PyTuple_Size(w->names) == 0;
  const bool ready = w->direction == kToTorch ? ensureReady() : ensureBothReady();
  if (!ready) return false;
  if (w->plain) return true;
  if (w->direction == kToTorch)
    return parseToTorchOptions(w->names, w->values, kWithExtras, &w->to_torch);
  if (!parseToTfOptions(w->names, w->values, kWithExtras, &w->to_tf)) return false;
  w->on_device = w->to_tf.device != nullptr && w->to_tf.device != Py_None;
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
  Owned result(walk(&w, structure, nullptr));
  if (result && w.converted == 0) {
    return raiseNothingConverted(structure, direction == kToTorch);
  }
  return result.release();
}

PyObject* convertNode(PyObject*, PyObject* args) {
  PyObject* node;
  int to_tf;
  PyObject* keywords;
  const char* path;
  if (!PyArg_ParseTuple(args, "OiO!s:convert_node", &node, &to_tf, &PyDict_Type, &keywords,
                        &path)) {
    return nullptr;
  }
  Walk w{};
  w.direction = to_tf != 0 ? kToTensorFlow : kToTorch;
  w.keywords = keywords;
  const Owned names(PyTuple_New(PyDict_Size(keywords)));
  std::vector<PyObject*> values;
  PyObject* key;
  PyObject* value;
  Py_ssize_t position = 0;
  Py_ssize_t count = 0;
  while (names && PyDict_Next(keywords, &position, &key, &value)) {
    PyTuple_SetItem(names.get(), count++, Py_NewRef(key));
    values.push_back(value);
  }
  if (!names) return nullptr;
  w.names = names.get();
  w.values = values.data();
  const Path root{nullptr, path, nullptr, 0, nullptr};
  PyObject* result = begin(&w) ? walk(&w, node, &root) : nullptr;
  return result == nullptr ? nullptr : Py_BuildValue("(Nn)", result, w.converted);
}

}  // namespace tensor_bridge::python
