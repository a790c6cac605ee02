#include "extension/v1.h"

#include <memory>

#include "c_api/private_api.h"
#include "extension/errors.h"
#include "extension/values.h"
#include "tensor_bridge/c_api.h"

namespace tensor_bridge::python {
namespace {

constexpr const char* kCapsule = "tensor_bridge.v1";

struct Release {
  void operator()(tb_v1_slice* slice) const { tb_v1_slice_release(slice); }
};

// Py_BuildValue releases what "N" got, and fails if one of them is null.
PyObject* tensorTuple(const tb_v1_tensor& tensor) {
  return Py_BuildValue(
      "(NiNN)", PyBytes_FromStringAndSize(tensor.name, static_cast<Py_ssize_t>(tensor.name_size)),
      tensor.dtype, shapeTuple(tensor.shape, tensor.ndim),
      sliceList(tensor.slices, tensor.num_slices, tensor.ndim));
}

PyObject* tensorList(const tb_v1* v1) {
  Owned list(PyList_New(0));
  tb_v1_tensor tensor;
  tensor.struct_size = sizeof(tensor);
  for (int64_t i = 0; list && tb_v1_tensor_get(v1, i, &tensor) == TB_OK; ++i) {
    if (!append(list, tensorTuple(tensor))) return nullptr;
  }
  return list.release();
}

PyObject* blockList(const tb_v1* v1) {
  Owned list(PyList_New(0));
  tb_bundle_block block;
  for (int64_t i = 0; list && tb_v1_block_get(v1, i, &block) == TB_OK; ++i) {
    if (!append(list, blockTuple(block))) return nullptr;
  }
  return list.release();
}

PyObject* extent(int64_t offset, int64_t size) {
  return Py_BuildValue("(LL)", static_cast<long long>(offset), static_cast<long long>(size));
}

PyObject* valuesTuple(const tb_v1_values& values) {
  PyObject* plain = values.offset < 0 ? Py_NewRef(Py_None) : extent(values.offset, values.size);
  PyObject* message =
      values.message_offset < 0
          ? PyByteArray_FromStringAndSize(static_cast<const char*>(values.message),
                                          static_cast<Py_ssize_t>(values.message_size))
          : extent(values.message_offset, values.message_size);
  return Py_BuildValue("(NN)", plain, message);
}

tb_v1* v1Of(PyObject* capsule) {
  return static_cast<tb_v1*>(PyCapsule_GetPointer(capsule, kCapsule));
}

void destroy(PyObject* capsule) { tb_v1_release(v1Of(capsule)); }

}  // namespace

PyObject* v1Index(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  if (nargs != 2) return wrongCount("v1_index", 2, nargs);
  const void* data = PyLong_AsVoidPtr(args[0]);
  const size_t size = PyLong_AsSize_t(args[1]);
  if (PyErr_Occurred() != nullptr) return nullptr;
  tb_bundle_place place;
  place.struct_size = sizeof(place);
  tb_v1* read = nullptr;
  const tb_status status = tb_v1_read(data, size, &read, &place);
  if (status != TB_OK) return raisePlaced(status, place);
  PyObject* capsule = PyCapsule_New(read, kCapsule, destroy);
  if (capsule == nullptr) {
    tb_v1_release(read);
    return nullptr;
  }
  return Py_BuildValue("(NNN)", tensorList(read), blockList(read), capsule);
}

PyObject* v1Slice(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  if (nargs != 6) return wrongCount("v1_slice", 6, nargs);
  const void* data = PyLong_AsVoidPtr(args[0]);
  const size_t size = PyLong_AsSize_t(args[1]);
  tb_v1* v1 = v1Of(args[2]);
  char* key = nullptr;
  Py_ssize_t key_size = 0;
  if (v1 == nullptr || PyBytes_AsStringAndSize(args[3], &key, &key_size) != 0) return nullptr;
  const auto dtype = static_cast<int32_t>(PyLong_AsLong(args[4]));
  const int64_t count = PyLong_AsLongLong(args[5]);
  if (PyErr_Occurred() != nullptr) return nullptr;
  tb_bundle_place place;
  place.struct_size = sizeof(place);
  tb_v1_slice* found = nullptr;
  PyThreadState* state = PyEval_SaveThread();
  const tb_status status = tb_v1_slice_find(v1, data, size, key, static_cast<size_t>(key_size),
                                            dtype, count, &found, &place);
  PyEval_RestoreThread(state);
  if (status != TB_OK) return raisePlaced(status, place);
  const std::unique_ptr<tb_v1_slice, Release> slice(found);
  tb_v1_values values;
  values.struct_size = sizeof(values);
  const tb_status got = tb_v1_slice_values(found, &values);
  return got == TB_OK ? valuesTuple(values) : raiseStatus(got);
}

}  // namespace tensor_bridge::python
