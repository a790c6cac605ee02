// Small Python values that several functions of the extension return or raise.
// Not for: reading arguments (options.h).
#ifndef TENSOR_BRIDGE_EXTENSION_VALUES_H_
#define TENSOR_BRIDGE_EXTENSION_VALUES_H_

#include <Python.h>

#include "c_api/private_api.h"
#include "extension/object.h"

namespace tensor_bridge::python {

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

/// What tensor_bridge._explanation.from_native takes; `shape` has explanation.ndim sizes.
PyObject* explanationTuple(const tb_explanation& explanation, const int64_t* shape);

/// The slices of a partitioned tensor, each a tuple of `ndim` pairs (start, length).
PyObject* sliceList(const int64_t* slices, int32_t count, int32_t ndim);

/// (offset, size, checksum) of a block.
PyObject* blockTuple(const tb_bundle_block& block);

/// Appends a new reference, which it consumes; false with a Python error set. A null one is an
/// error that is set already.
bool append(const Owned& list, PyObject* item);

}  // namespace tensor_bridge::python

#endif  // TENSOR_BRIDGE_EXTENSION_VALUES_H_
