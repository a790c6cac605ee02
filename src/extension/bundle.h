// The checkpoint format as Python functions. Not for: files, names, tensors
// (tensor_bridge.checkpoint).
#ifndef TENSOR_BRIDGE_EXTENSION_BUNDLE_H_
#define TENSOR_BRIDGE_EXTENSION_BUNDLE_H_

#include <Python.h>

namespace tensor_bridge::python {

/// bundle_index(data: bytes) -> (num_shards, entries, blocks)
PyObject* bundleIndex(PyObject* self, PyObject* data);
/// bundle_strings(address, size, count, offsets_address) -> begin
PyObject* bundleStrings(PyObject* self, PyObject* const* args, Py_ssize_t nargs);

}  // namespace tensor_bridge::python

#endif  // TENSOR_BRIDGE_EXTENSION_BUNDLE_H_
