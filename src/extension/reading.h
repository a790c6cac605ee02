// Shared by the readers of files: integers as arguments, the place of a failure, C structs as lists
// of tuples. Memory comes as an address; _C.pyi describes the results.
// Not for: a particular format (bundle.h, stored.h, v1.h).
#ifndef TENSOR_BRIDGE_EXTENSION_READING_H_
#define TENSOR_BRIDGE_EXTENSION_READING_H_

#include <Python.h>

#include "c_api/private_api.h"
#include "extension/errors.h"
#include "extension/values.h"

namespace tensor_bridge::python {

/// The positional arguments of a call that takes `expected` of them, read as integers. An error is
/// kept for failed(), which is called after the last argument was read.
class Integers {
 public:
  Integers(PyObject* const* args, Py_ssize_t nargs, Py_ssize_t expected, const char* name)
      : args_(args), good_(nargs == expected) {
    if (!good_) wrongCount(name, expected, nargs);
  }

  void* address(int index) const { return good_ ? PyLong_AsVoidPtr(args_[index]) : nullptr; }
  int64_t number(int index) const { return good_ ? PyLong_AsLongLong(args_[index]) : 0; }
  size_t size(int index) const { return good_ ? PyLong_AsSize_t(args_[index]) : 0; }
  bool failed() const { return PyErr_Occurred() != nullptr; }

 private:
  PyObject* const* args_;
  bool good_;
};

/// Calls call() without the GIL.
template <typename Call>
tb_status withoutGil(Call call) {
  PyThreadState* state = PyEval_SaveThread();
  const tb_status status = call();
  PyEval_RestoreThread(state);
  return status;
}

/// Calls read(&place) without the GIL. False with an exception that has the place.
template <typename Read>
bool readPlaced(Read read) {
  auto place = sized<tb_bundle_place>();
  const tb_status status = withoutGil([&] { return read(&place); });
  if (status != TB_OK) raisePlaced(status, place);
  return status == TB_OK;
}

/// A new list of make(item) for every item that get(handle, index, &item) returns.
template <typename Handle, typename Item>
PyObject* listOf(const Handle* handle, tb_status (*get)(const Handle*, int64_t, Item*),
                 PyObject* (*make)(const Item&), Item item = sized<Item>()) {
  Owned list(PyList_New(0));
  for (int64_t i = 0; list; ++i) {
    const tb_status status = get(handle, i, &item);
    if (status == TB_INVALID_OPTION) break;  // past the end
    if (status != TB_OK) return raiseStatus(status);
    if (!append(list, make(item))) return nullptr;
  }
  return list.release();
}

/// (offset, size), or None if the offset is below 0.
PyObject* extent(int64_t offset, int64_t size);

PyObject* bytesOf(const char* data, int64_t size);

/// The slices of a partitioned tensor, each a tuple of `ndim` pairs (start, length).
PyObject* sliceList(const int64_t* slices, int32_t count, int32_t ndim);

/// (offset, size, checksum) of a block.
PyObject* blockTuple(const tb_bundle_block& block);

}  // namespace tensor_bridge::python

#endif  // TENSOR_BRIDGE_EXTENSION_READING_H_
