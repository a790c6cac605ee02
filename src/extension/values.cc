#include "extension/values.h"

namespace tensor_bridge::python {

PyObject* wrongCount(const char* name, Py_ssize_t expected, Py_ssize_t got) {
  PyErr_Format(PyExc_TypeError, "%s() takes exactly %zd positional argument%s (%zd given)", name,
               expected, expected == 1 ? "" : "s", got);
  return nullptr;
}

PyObject* shapeTuple(const int64_t* shape, int32_t ndim) {
  PyObject* tuple = PyTuple_New(ndim);
  for (int32_t i = 0; tuple != nullptr && i < ndim; ++i) {
    PyObject* size = PyLong_FromLongLong(shape[i]);
    if (size == nullptr) {
      Py_DECREF(tuple);
      return nullptr;
    }
    PyTuple_SetItem(tuple, i, size);
  }
  return tuple;
}

bool append(PyObject* list, PyObject* item) {
  if (item == nullptr) return false;
  const bool done = PyList_Append(list, item) == 0;
  Py_DECREF(item);
  return done;
}

PyObject* sliceList(const int64_t* slices, int32_t count, int32_t ndim) {
  PyObject* list = PyList_New(0);
  for (int32_t i = 0; list != nullptr && i < count; ++i) {
    if (!append(list, shapeTuple(slices + int64_t{2} * i * ndim, 2 * ndim))) Py_CLEAR(list);
  }
  return list;
}

PyObject* blockTuple(const tb_bundle_block& block) {
  return Py_BuildValue("(LLk)", static_cast<long long>(block.offset),
                       static_cast<long long>(block.size),
                       static_cast<unsigned long>(block.crc32c));
}

PyObject* explanationTuple(const tb_explanation& e, const int64_t* shape) {
  PyObject* dims = e.ndim < 0 ? Py_NewRef(Py_None) : shapeTuple(shape, e.ndim);
  if (dims == nullptr) return nullptr;
  return Py_BuildValue("(iiiNLssss)", e.action, e.status, e.on_write, dims,
                       static_cast<long long>(e.nbytes), e.tf_dtype, e.torch_dtype, e.device,
                       e.reason);
}

}  // namespace tensor_bridge::python
