#include "extension/values.h"

namespace tensor_bridge::python {

PyObject* wrongCount(const char* name, Py_ssize_t expected, Py_ssize_t got) {
  PyErr_Format(PyExc_TypeError, "%s() takes exactly %zd positional argument%s (%zd given)", name,
               expected, expected == 1 ? "" : "s", got);
  return nullptr;
}

PyObject* shapeTuple(const int64_t* shape, int32_t ndim) {
  return tupleOf(ndim, [&](Py_ssize_t i) { return PyLong_FromLongLong(shape[i]); });
}

bool append(const Owned& list, PyObject* item) {
  const Owned owned(item);
  return owned && PyList_Append(list.get(), item) == 0;
}

PyObject* explanationTuple(const tb_explanation& e, const int64_t* shape) {
  // Py_BuildValue releases what "N" got, and fails if one of them is null.
  PyObject* dims = e.ndim < 0 ? Py_NewRef(Py_None) : shapeTuple(shape, e.ndim);
  return Py_BuildValue("(iiiNLssss)", e.action, e.status, e.on_write, dims,
                       static_cast<long long>(e.nbytes), e.tf_dtype, e.torch_dtype, e.device,
                       e.reason);
}

}  // namespace tensor_bridge::python
