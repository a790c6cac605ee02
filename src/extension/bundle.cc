#include "extension/bundle.h"

#include <cstring>
#include <memory>

#include "c_api/private_api.h"
#include "extension/errors.h"
#include "extension/values.h"

namespace tensor_bridge::python {
namespace {

struct BundleRelease {
  void operator()(tb_bundle* bundle) const { tb_bundle_release(bundle); }
};

PyObject* entryTuple(const tb_bundle_entry& entry) {
  // Py_BuildValue releases what "N" got, and fails if one of them is null.
  return Py_BuildValue(
      "(NiNiLLkN)", PyBytes_FromStringAndSize(entry.key, static_cast<Py_ssize_t>(entry.key_size)),
      entry.dtype, shapeTuple(entry.shape, entry.ndim), entry.shard,
      static_cast<long long>(entry.offset), static_cast<long long>(entry.size),
      static_cast<unsigned long>(entry.crc32c),
      sliceList(entry.slices, entry.num_slices, entry.ndim));
}

PyObject* entryList(const tb_bundle* bundle) {
  Owned list(PyList_New(0));
  tb_bundle_entry entry;
  entry.struct_size = sizeof(entry);
  for (int64_t i = 0; list && tb_bundle_entry_get(bundle, i, &entry) == TB_OK; ++i) {
    if (!append(list, entryTuple(entry))) return nullptr;
  }
  return list.release();
}

PyObject* blockList(const tb_bundle* bundle) {
  Owned list(PyList_New(0));
  tb_bundle_block block;
  for (int64_t i = 0; list && tb_bundle_block_get(bundle, i, &block) == TB_OK; ++i) {
    if (!append(list, blockTuple(block))) return nullptr;
  }
  return list.release();
}

}  // namespace

PyObject* bundleIndex(PyObject*, PyObject* data) {
  char* bytes = nullptr;
  Py_ssize_t size = 0;
  if (PyBytes_AsStringAndSize(data, &bytes, &size) != 0) return nullptr;
  tb_bundle_place place;
  place.struct_size = sizeof(place);
  tb_bundle* read = nullptr;
  const tb_status status = tb_bundle_read(bytes, static_cast<size_t>(size), &read, &place);
  if (status != TB_OK) return raisePlaced(status, place);
  const std::unique_ptr<tb_bundle, BundleRelease> bundle(read);
  return Py_BuildValue("(iNN)", tb_bundle_num_shards(bundle.get()), entryList(bundle.get()),
                       blockList(bundle.get()));
}

PyObject* bundleStrings(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  if (nargs != 4) return wrongCount("bundle_strings", 4, nargs);
  const auto* data = static_cast<const void*>(PyLong_AsVoidPtr(args[0]));
  const size_t size = PyLong_AsSize_t(args[1]);
  const int64_t count = PyLong_AsLongLong(args[2]);
  auto* offsets = static_cast<int64_t*>(PyLong_AsVoidPtr(args[3]));
  if (PyErr_Occurred() != nullptr) return nullptr;
  tb_bundle_place place;
  place.struct_size = sizeof(place);
  int64_t begin = 0;
  PyThreadState* state = PyEval_SaveThread();
  const tb_status status = tb_bundle_strings(data, size, count, offsets, &begin, &place);
  PyEval_RestoreThread(state);
  return status == TB_OK ? PyLong_FromLongLong(begin) : raisePlaced(status, place);
}

}  // namespace tensor_bridge::python
