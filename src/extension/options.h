// Keywords of a Python call as tb_convert_options. Not for: meaning; the bridge judges values that
// are well formed.
#ifndef TENSOR_BRIDGE_EXTENSION_OPTIONS_H_
#define TENSOR_BRIDGE_EXTENSION_OPTIONS_H_

#include <Python.h>

#include <vector>

#include "extension/hooks.h"
#include "extension/object.h"
#include "tensor_bridge/c_api.h"

namespace tensor_bridge::python {

/// Owns the arrays that `options` points to.
struct ParsedToTorchOptions {
  tb_convert_options options;
  std::vector<double> scale;
  std::vector<int64_t> zero_point;
};

/// Whether the keywords that concern composites and structures (strings, unknown, live) are taken:
/// one dense tensor ignores them, but checks their values.
enum ExtraKeywords { kDenseOnly, kWithExtras };

/// Reads `count` keyword values named by the tuple `names` (which may be null). False with an
/// exception set: TypeError for an unknown keyword, InvalidOptionError for an ill-formed value.
bool parseToTorchOptions(PyObject* names, PyObject* const* values, ExtraKeywords extras,
                         ParsedToTorchOptions* out);

/// The keywords of a call as a new dict.
Owned keywordDict(PyObject* names, PyObject* const* values);

/// The keywords of to_tf.
struct ParsedToTfOptions {
  tb_convert_back_options options;
  /// Borrowed; null or None where the result stays on the host.
  PyObject* device;
};

bool parseToTfOptions(PyObject* names, PyObject* const* values, ExtraKeywords extras,
                      ParsedToTfOptions* out);

/// Calls hook(t, **keywords): whatever is not one plain tensor.
PyObject* callOther(Hook* hook, PyObject* t, PyObject* names, PyObject* const* values);

/// Calls `function` again with the keyword `name` as the positional argument, where it was given as
/// one: rare, so it may cost an allocation.
PyObject* withKeywordAsPositional(PyObject* (*function)(PyObject*, PyObject* const*, Py_ssize_t,
                                                        PyObject*),
                                  const char* function_name, const char* name,
                                  PyObject* const* values, PyObject* names);

}  // namespace tensor_bridge::python

#endif  // TENSOR_BRIDGE_EXTENSION_OPTIONS_H_
