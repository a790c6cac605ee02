#include "extension/v1.h"

#include "extension/reading.h"

namespace tensor_bridge::python {
namespace {

constexpr const char* kCapsule = "tensor_bridge.v1";

// Py_BuildValue releases what "N" got, and fails if one of them is null.
PyObject* tensorTuple(const tb_v1_tensor& tensor) {
  return Py_BuildValue("(NiNN)", bytesOf(tensor.name, tensor.name_size), tensor.dtype,
                       shapeTuple(tensor.shape, tensor.ndim),
                       sliceList(tensor.slices, tensor.num_slices, tensor.ndim));
}

PyObject* valuesTuple(const tb_v1_values& values) {
  PyObject* message =
      values.message_offset < 0
          ? PyByteArray_FromStringAndSize(static_cast<const char*>(values.message),
                                          static_cast<Py_ssize_t>(values.message_size))
          : extent(values.message_offset, values.message_size);
  return Py_BuildValue("(NN)", extent(values.offset, values.size), message);
}

tb_v1* v1Of(PyObject* capsule) {
  return static_cast<tb_v1*>(PyCapsule_GetPointer(capsule, kCapsule));
}

void destroy(PyObject* capsule) { tb_v1_release(v1Of(capsule)); }

}  // namespace

PyObject* v1Index(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  const Integers integers(args, nargs, 2, "v1_index");
  const void* data = integers.address(0);
  const size_t size = integers.size(1);
  tb_v1* read = nullptr;
  if (integers.failed() ||
      !readPlaced([&](tb_bundle_place* place) { return tb_v1_read(data, size, &read, place); })) {
    return nullptr;
  }
  PyObject* capsule = PyCapsule_New(read, kCapsule, destroy);
  if (capsule == nullptr) {
    tb_v1_release(read);
    return nullptr;
  }
  return Py_BuildValue("(NNN)", listOf(read, tb_v1_tensor_get, tensorTuple),
                       listOf(read, tb_v1_block_get, blockTuple, tb_bundle_block{}), capsule);
}

PyObject* v1Slice(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  const Integers integers(args, nargs, 6, "v1_slice");
  if (integers.failed()) return nullptr;
  tb_v1* v1 = v1Of(args[2]);
  char* key = nullptr;
  Py_ssize_t key_size = 0;
  if (v1 == nullptr || PyBytes_AsStringAndSize(args[3], &key, &key_size) != 0) return nullptr;
  const void* data = integers.address(0);
  const size_t size = integers.size(1);
  const auto dtype = static_cast<int32_t>(integers.number(4));
  const int64_t count = integers.number(5);
  tb_v1_slice* found = nullptr;
  if (integers.failed() || !readPlaced([&](tb_bundle_place* place) {
        return tb_v1_slice_find(v1, data, size, key, static_cast<size_t>(key_size), dtype, count,
                                &found, place);
      })) {
    return nullptr;
  }
  const HandlePointer<tb_v1_slice, tb_v1_slice_release> slice(found);
  auto values = sized<tb_v1_values>();
  const tb_status status = tb_v1_slice_values(found, &values);
  return status == TB_OK ? valuesTuple(values) : raiseStatus(status);
}

}  // namespace tensor_bridge::python
