#include "extension/reading.h"

namespace tensor_bridge::python {

PyObject* extent(int64_t offset, int64_t size) {
  if (offset < 0) return Py_NewRef(Py_None);
  return Py_BuildValue("(LL)", static_cast<long long>(offset), static_cast<long long>(size));
}

PyObject* bytesOf(const char* data, int64_t size) {
  return PyBytes_FromStringAndSize(data, static_cast<Py_ssize_t>(size));
}

PyObject* sliceList(const int64_t* slices, int32_t count, int32_t ndim) {
  Owned list(PyList_New(0));
  for (int32_t i = 0; list && i < count; ++i) {
    if (!append(list, shapeTuple(slices + int64_t{2} * i * ndim, 2 * ndim))) return nullptr;
  }
  return list.release();
}

PyObject* blockTuple(const tb_bundle_block& block) {
  return Py_BuildValue("(LLk)", static_cast<long long>(block.offset),
                       static_cast<long long>(block.size),
                       static_cast<unsigned long>(block.crc32c));
}

}  // namespace tensor_bridge::python
