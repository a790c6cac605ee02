// Small Python values that several functions of the extension return or raise.
// Not for: reading arguments (options.h).
#ifndef TENSOR_BRIDGE_EXTENSION_VALUES_H_
#define TENSOR_BRIDGE_EXTENSION_VALUES_H_

#include <Python.h>

#include <memory>

#include "c_api/private_api.h"
#include "extension/errors.h"
#include "extension/object.h"

namespace tensor_bridge::python {

/// A zeroed struct of the C interface with its size set.
template <typename Struct>
Struct sized() {
  Struct made{};
  made.struct_size = sizeof(made);
  return made;
}

/// A handle of the C interface, released at the end.
template <auto release>
struct Released {
  template <typename Handle>
  void operator()(Handle* handle) const {
    release(handle);
  }
};
template <typename Handle, auto release>
using HandlePointer = std::unique_ptr<Handle, Released<release>>;

/// Sets TypeError for a wrong number of positional arguments. Always returns null.
PyObject* wrongCount(const char* name, Py_ssize_t expected, Py_ssize_t got);

/// A new tuple of make(0), make(1), ..., each a new reference; null as soon as one is null.
template <typename Make>
PyObject* tupleOf(Py_ssize_t count, Make make) {
  Owned tuple(PyTuple_New(count));
  for (Py_ssize_t i = 0; tuple && i < count; ++i) {
    PyObject* item = make(i);
    if (item == nullptr) return nullptr;
    PyTuple_SetItem(tuple.get(), i, item);
  }
  return tuple.release();
}

/// The sizes as a new tuple of ints, or null with an exception set.
PyObject* shapeTuple(const int64_t* shape, int32_t ndim);

/// The argument of tensor_bridge._explanation.from_native; `shape` has explanation.ndim sizes.
PyObject* explanationTuple(const tb_explanation& explanation, const int64_t* shape);

/// The same, for the explanation that explain(&explanation, shape, capacity) fills in.
template <typename Explain>
PyObject* explained(Explain explain) {
  constexpr int32_t kMaxDims = 254;  // TensorFlow's TensorShape::MaxDimensions()
  auto explanation = sized<tb_explanation>();
  int64_t shape[kMaxDims];
  const tb_status status = explain(&explanation, shape, kMaxDims);
  return status == TB_OK ? explanationTuple(explanation, shape) : raiseStatus(status);
}

/// Appends a new reference, which it consumes; false with a Python error set. For a null reference
/// the error is already set.
bool append(const Owned& list, PyObject* item);

}  // namespace tensor_bridge::python

#endif  // TENSOR_BRIDGE_EXTENSION_VALUES_H_
