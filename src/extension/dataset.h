// Iterators of tf.data as Python functions: a capsule for the iterator, and elements built in the
// nesting that Python described. Not for: the form of a dataset's elements (tensor_bridge.data).
#ifndef TENSOR_BRIDGE_EXTENSION_DATASET_H_
#define TENSOR_BRIDGE_EXTENSION_DATASET_H_

#include <Python.h>

namespace tensor_bridge::python {

/// data_open(resource, context, prefetch, adaptive, string_lists, components,
///   structure, on_failure, /, *, copy, on_write, raw) -> capsule
PyObject* dataOpen(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* names);
/// data_next(capsule, seconds) -> element; StopIteration at the end, TimeoutError after `seconds`
/// (negative: never)
PyObject* dataNext(PyObject* self, PyObject* const* args, Py_ssize_t nargs);
/// data_next_flat(capsule, seconds) -> list of the values that the element is built from
PyObject* dataNextFlat(PyObject* self, PyObject* const* args, Py_ssize_t nargs);
/// data_build(capsule, flat) -> element
PyObject* dataBuild(PyObject* self, PyObject* const* args, Py_ssize_t nargs);
/// data_pause(capsule), data_resume(capsule), data_cancel(capsule)
PyObject* dataPause(PyObject* self, PyObject* capsule);
PyObject* dataResume(PyObject* self, PyObject* capsule);
PyObject* dataCancel(PyObject* self, PyObject* capsule);
/// data_stats(capsule) -> (elements, bytes, failures, wait_ns, compute_ns, make_ns, queued)
PyObject* dataStats(PyObject* self, PyObject* capsule);
/// data_close(capsule): the capsule cannot be used afterwards
PyObject* dataClose(PyObject* self, PyObject* capsule);
/// snappy_unpack(packed) -> bytes; TensorFlow packs a saved iterator state so
PyObject* snappyUnpack(PyObject* self, PyObject* packed);

}  // namespace tensor_bridge::python

#endif  // TENSOR_BRIDGE_EXTENSION_DATASET_H_
