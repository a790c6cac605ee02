// Nested structures in one native pass: list, tuple, dict and named tuple are walked here, every
// other node and every composite value goes to tensor_bridge._convert. Not for: one tensor
// (to_torch.h, to_tf.h).
#ifndef TENSOR_BRIDGE_EXTENSION_STRUCTURE_H_
#define TENSOR_BRIDGE_EXTENSION_STRUCTURE_H_

#include <Python.h>

namespace tensor_bridge::python {

enum Direction { kToTorch, kToTensorFlow };

/// Exactly a list, tuple or dict, or a named tuple.
bool isContainer(PyObject* object);

/// Converts every leaf of `structure`. A new reference to a structure of the same kind, or null
/// with an exception set: TypeError if a leaf is neither convertible nor plain data (unless
/// unknown="keep"), or if nothing was converted.
PyObject* convertStructure(PyObject* structure, Direction direction, PyObject* names,
                           PyObject* const* values);

/// convert_node(value, to_tf, options, path) -> (result, number of converted leaves): a part of a
/// structure, for tensor_bridge._convert. `path` is where it is, for messages.
PyObject* convertNode(PyObject* self, PyObject* args);

}  // namespace tensor_bridge::python

#endif  // TENSOR_BRIDGE_EXTENSION_STRUCTURE_H_
