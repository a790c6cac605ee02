// Strings as Python functions: TensorFlow's as two torch tensors or nested lists, and the reverse.
// Not for: the class StringTensor; tensor_bridge.composite.string has it.
#ifndef TENSOR_BRIDGE_EXTENSION_STRINGS_H_
#define TENSOR_BRIDGE_EXTENSION_STRINGS_H_

#include <Python.h>

#include "tensor_bridge/c_api.h"

namespace tensor_bridge::python {

/// Nested lists of bytes in the shape of `strings`, or null with an exception set.
PyObject* stringsList(const tb_strings* strings);

/// What StringTensor._unchecked() makes: an instance of the class `type`, without its checks.
PyObject* stringTensor(PyObject* type, PyObject* bytes, PyObject* offsets, PyObject* size);

/// The StringTensor of an eager tensor, by default options (null) or others; ensureReady() has been
/// called. A failure has a status; a null `out` with TB_OK has an exception set instead.
tb_status stringTensorOf(PyObject* t, const tb_convert_options* options, PyObject** out);

/// strings_to_torch(t, /, *, ...) -> StringTensor; t is an eager tensor of strings
PyObject* stringsToTorch(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* names);
/// explain_strings_to_torch(t, /, *, ...) -> tuple, as explain_to_torch
PyObject* explainStringsToTorch(PyObject* self, PyObject* const* args, Py_ssize_t nargs,
                                PyObject* names);
/// explain_strings_to_tf(bytes, offsets, shape, /, *, copy, dtype, grad) -> tuple, as explain_to_tf
PyObject* explainStringsToTf(PyObject* self, PyObject* const* args, Py_ssize_t nargs,
                             PyObject* names);
/// tf_strings_list(t, /) -> nested lists of bytes, straight from TensorFlow's memory
PyObject* tfStringsList(PyObject* self, PyObject* t);
/// torch_strings_list(bytes, offsets, shape, encoding, errors, /) -> nested lists of bytes, or of
/// str unless encoding is None
PyObject* torchStringsList(PyObject* self, PyObject* const* args, Py_ssize_t nargs);
/// strings_to_tf(bytes, offsets, shape, /, *, copy, device, dtype, grad) -> tf.Tensor
PyObject* stringsToTf(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* names);

}  // namespace tensor_bridge::python

#endif  // TENSOR_BRIDGE_EXTENSION_STRINGS_H_
