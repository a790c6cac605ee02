#include "extension/bundle.h"

#include "extension/reading.h"

namespace tensor_bridge::python {
namespace {

// Py_BuildValue releases what "N" got, and fails if one of them is null.
PyObject* entryTuple(const tb_bundle_entry& entry) {
  return Py_BuildValue("(NiNiLLkN)", bytesOf(entry.key, entry.key_size), entry.dtype,
                       shapeTuple(entry.shape, entry.ndim), entry.shard,
                       static_cast<long long>(entry.offset), static_cast<long long>(entry.size),
                       static_cast<unsigned long>(entry.crc32c),
                       sliceList(entry.slices, entry.num_slices, entry.ndim));
}

}  // namespace

PyObject* bundleIndex(PyObject*, PyObject* data) {
  char* bytes = nullptr;
  Py_ssize_t size = 0;
  if (PyBytes_AsStringAndSize(data, &bytes, &size) != 0) return nullptr;
  tb_bundle* read = nullptr;
  if (!readPlaced([&](tb_bundle_place* place) {
        return tb_bundle_read(bytes, static_cast<size_t>(size), &read, place);
      })) {
    return nullptr;
  }
  const HandlePointer<tb_bundle, tb_bundle_release> bundle(read);
  return Py_BuildValue("(iNN)", tb_bundle_num_shards(read),
                       listOf(read, tb_bundle_entry_get, entryTuple),
                       listOf(read, tb_bundle_block_get, blockTuple, tb_bundle_block{}));
}

PyObject* bundleStrings(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  const Integers integers(args, nargs, 4, "bundle_strings");
  const void* data = integers.address(0);
  const size_t size = integers.size(1);
  const int64_t count = integers.number(2);
  auto* offsets = static_cast<int64_t*>(integers.address(3));
  int64_t begin = 0;
  const bool done = !integers.failed() && readPlaced([&](tb_bundle_place* place) {
    return tb_bundle_strings(data, size, count, offsets, &begin, place);
  });
  return done ? PyLong_FromLongLong(begin) : nullptr;
}

}  // namespace tensor_bridge::python
