#include "extension/options.h"

#include <utility>

#include "extension/errors.h"
#include "extension/hooks.h"
#include "extension/values.h"

namespace tensor_bridge::python {
namespace {

bool isNone(PyObject* value) { return value == nullptr || value == Py_None; }

bool is(PyObject* name, const char* text) {
  return PyUnicode_CompareWithASCIIString(name, text) == 0;
}

bool keep(PyObject* value, PyObject** place) {
  *place = value;
  return true;
}

bool unexpected(PyObject* name, const char* known) {
  return static_cast<bool>(hooks::refuse_keyword.call("(Os)", name, known));
}

// False, with an error set, at the first keyword that `parse` refuses.
template <typename Parse>
bool forEachKeyword(PyObject* names, PyObject* const* values, const Parse& parse) {
  const Py_ssize_t count = names == nullptr ? 0 : PyTuple_Size(names);
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (!parse(PyTuple_GetItem(names, i), values[i])) return false;
  }
  return true;
}

bool parseCopy(PyObject* value, int32_t* copy) {
  if (value == Py_None) {
    *copy = TB_COPY_AUTO;
  } else if (value == Py_True) {
    *copy = TB_COPY_ALWAYS;
  } else if (value == Py_False) {
    *copy = TB_COPY_NEVER;
  } else {
    raiseInvalidOption("copy must be None, True or False, got %R", value);
    return false;
  }
  return true;
}

// The number of a text; false without one.
template <size_t kCount>
bool numberOf(PyObject* value, const std::pair<const char*, int32_t> (&texts)[kCount],
              int32_t* number) {
  if (!PyUnicode_Check(value)) return false;
  for (const auto& [text, found] : texts) {
    if (PyUnicode_CompareWithASCIIString(value, text) == 0) {
      *number = found;
      return true;
    }
  }
  return false;
}

bool parseOnWrite(PyObject* value, tb_convert_options* options) {
  constexpr std::pair<const char*, int32_t> kTexts[] = {
      {"copy", TB_ON_WRITE_COPY}, {"raise", TB_ON_WRITE_RAISE}, {"alias", TB_ON_WRITE_ALIAS}};
  if (numberOf(value, kTexts, &options->on_write)) return true;
  raiseInvalidOption("on_write must be 'copy', 'raise' or 'alias', got %R", value);
  return false;
}

bool parseGrad(PyObject* value, tb_convert_back_options* options) {
  constexpr std::pair<const char*, int32_t> kTexts[] = {{"detach", TB_GRAD_DETACH},
                                                        {"raise", TB_GRAD_RAISE}};
  if (numberOf(value, kTexts, &options->grad)) return true;
  raiseInvalidOption("grad must be 'detach' or 'raise', got %R", value);
  return false;
}

bool parseTfDtype(PyObject* value, tb_convert_back_options* options) {
  const Owned number = hooks::tf_dtype_number.call("(O)", value);
  if (!number) return false;
  options->tf_dtype = static_cast<int32_t>(PyLong_AsLong(number.get()));
  return PyErr_Occurred() == nullptr;
}

bool parseDevice(PyObject* value, tb_convert_options* options) {
  const Owned pair = hooks::device_pair.call("(O)", value);
  options->has_device = 1;
  return pair &&
         PyArg_ParseTuple(pair.get(), "ii", &options->device_type, &options->device_id) != 0;
}

// `scale` and `zero_point` as lists of equal length.
bool parseQuantization(PyObject* scale, PyObject* zero_point, ParsedToTorchOptions* out) {
  const Owned pair = hooks::quantization_lists.call("(OO)", scale == nullptr ? Py_None : scale,
                                                    zero_point == nullptr ? Py_None : zero_point);
  if (!pair) return false;
  PyObject* scales = PyTuple_GetItem(pair.get(), 0);
  PyObject* zero_points = PyTuple_GetItem(pair.get(), 1);
  const Py_ssize_t count = PyList_Size(scales);
  for (Py_ssize_t i = 0; i < count; ++i) {
    out->scale.push_back(PyFloat_AsDouble(PyList_GetItem(scales, i)));
    out->zero_point.push_back(PyLong_AsLongLong(PyList_GetItem(zero_points, i)));
  }
  if (PyErr_Occurred() != nullptr) return false;
  out->options.num_scales = count;
  out->options.scale = out->scale.data();
  out->options.zero_point = out->zero_point.data();
  return true;
}

bool isExtra(PyObject* name) {
  return is(name, "strings") || is(name, "unknown") || is(name, "live");
}

bool parseRaw(PyObject* value, tb_convert_options* options) {
  options->raw = value == Py_True;
  if (!PyBool_Check(value)) raiseInvalidOption("raw must be True or False, got %R", value);
  return PyBool_Check(value) != 0;
}

bool checkExtra(PyObject* name, PyObject* value) {
  return static_cast<bool>(hooks::check_extra.call("(OO)", name, value));
}

bool parseAxis(PyObject* value, tb_convert_options* options) {
  if (!PyLong_Check(value) || PyBool_Check(value)) {
    raiseInvalidOption("axis must be None or an int, got %R", value);
    return false;
  }
  int overflow = 0;
  options->axis = PyLong_AsLongLongAndOverflow(value, &overflow);
  options->has_axis = 1;
  if (overflow != 0) {
    raiseInvalidOption("axis must fit in 64 bits, got %R", value);
    return false;
  }
  return PyErr_Occurred() == nullptr;
}

}  // namespace

bool parseToTorchOptions(PyObject* names, PyObject* const* values, ExtraKeywords extras,
                         ParsedToTorchOptions* out) {
  tb_convert_options* options = &out->options;
  tb_convert_options_init(options);
  PyObject* scale = nullptr;
  PyObject* zero_point = nullptr;
  const auto parse = [&](PyObject* name, PyObject* value) {
    if (is(name, "copy")) return parseCopy(value, &options->copy);
    if (is(name, "on_write")) return parseOnWrite(value, options);
    if (is(name, "device")) return isNone(value) || parseDevice(value, options);
    if (is(name, "raw")) return parseRaw(value, options);
    if (is(name, "axis")) return isNone(value) || parseAxis(value, options);
    if (is(name, "scale")) return keep(value, &scale);
    if (is(name, "zero_point")) return keep(value, &zero_point);
    if (extras == kWithExtras && isExtra(name)) return checkExtra(name, value);
    return unexpected(name,
                      extras == kWithExtras
                          ? "copy device on_write raw scale zero_point axis strings unknown live"
                          : "copy device on_write raw scale zero_point axis");
  };
  if (!forEachKeyword(names, values, parse)) return false;
  if (!isNone(scale) || !isNone(zero_point)) return parseQuantization(scale, zero_point, out);
  return true;
}

bool parseToTfOptions(PyObject* names, PyObject* const* values, ExtraKeywords extras,
                      ParsedToTfOptions* out) {
  tb_convert_back_options* options = &out->options;
  tb_convert_back_options_init(options);
  out->device = nullptr;
  return forEachKeyword(names, values, [&](PyObject* name, PyObject* value) {
    if (is(name, "copy")) return parseCopy(value, &options->copy);
    if (is(name, "grad")) return parseGrad(value, options);
    if (is(name, "device")) return keep(value, &out->device);
    if (is(name, "dtype")) return isNone(value) || parseTfDtype(value, options);
    if (extras == kWithExtras && is(name, "unknown")) return checkExtra(name, value);
    return unexpected(
        name, extras == kWithExtras ? "copy device dtype grad unknown" : "copy device dtype grad");
  });
}

Owned keywordDict(PyObject* names, PyObject* const* values) {
  Owned dict(PyDict_New());
  const Py_ssize_t count = names == nullptr ? 0 : PyTuple_Size(names);
  for (Py_ssize_t i = 0; dict && i < count; ++i) {
    if (PyDict_SetItem(dict.get(), PyTuple_GetItem(names, i), values[i]) != 0) return Owned();
  }
  return dict;
}

PyObject* callOther(Hook* hook, PyObject* t, PyObject* names, PyObject* const* values) {
  PyObject* function = hook->get();
  const Owned keywords = function == nullptr ? Owned() : keywordDict(names, values);
  const Owned positional(keywords ? PyTuple_Pack(1, t) : nullptr);
  return positional ? PyObject_Call(function, positional.get(), keywords.get()) : nullptr;
}

PyObject* withKeywordAsPositional(PyObject* (*function)(PyObject*, PyObject* const*, Py_ssize_t,
                                                        PyObject*),
                                  const char* function_name, const char* name,
                                  PyObject* const* values, PyObject* names) {
  const Py_ssize_t count = names == nullptr ? 0 : PyTuple_Size(names);
  std::vector<PyObject*> arguments(1, nullptr);
  const Owned rest(PyList_New(0));
  for (Py_ssize_t i = 0; rest && i < count; ++i) {
    PyObject* keyword = PyTuple_GetItem(names, i);
    if (PyUnicode_CompareWithASCIIString(keyword, name) == 0) {
      arguments[0] = values[i];
    } else if (PyList_Append(rest.get(), keyword) == 0) {
      arguments.push_back(values[i]);
    } else {
      return nullptr;
    }
  }
  const Owned others(rest ? PyList_AsTuple(rest.get()) : nullptr);
  if (!others) return nullptr;
  if (arguments[0] == nullptr) return wrongCount(function_name, 1, 0);
  return function(nullptr, arguments.data(), 1, arguments.size() == 1 ? nullptr : others.get());
}

}  // namespace tensor_bridge::python
