#define PY_SSIZE_T_CLEAN  // PyArg_ParseTuple writes sizes as Py_ssize_t
#include "extension/example.h"

#include <vector>

#include "extension/example_plan.h"
#include "extension/reading.h"

namespace tensor_bridge::python {
namespace {

constexpr const char* kBatch = "tensor_bridge.example_batch";

void destroySpec(PyObject* capsule) {
  tb_example_spec_release(
      static_cast<tb_example_spec*>(PyCapsule_GetPointer(capsule, kExampleSpec)));
}

// A batch keeps its spec alive: the capsule's context is a reference to the spec's capsule.
void destroyBatch(PyObject* capsule) {
  tb_example_batch_release(static_cast<tb_example_batch*>(PyCapsule_GetPointer(capsule, kBatch)));
  Py_XDECREF(static_cast<PyObject*>(PyCapsule_GetContext(capsule)));
}

// Reads a column from (in_lists, key, type, kind, stride, required, defaults, default ends).
bool readColumn(PyObject* tuple, tb_example_column* out, std::vector<int64_t>* ends) {
  *out = sized<tb_example_column>();
  long long stride = 0;
  Py_ssize_t key_size = 0;
  Py_ssize_t defaults_size = 0;
  const char* defaults = nullptr;
  PyObject* strings = nullptr;
  if (!PyArg_ParseTuple(tuple, "iy#iiLiy#O", &out->in_lists, &out->key, &key_size, &out->type,
                        &out->kind, &stride, &out->required, &defaults, &defaults_size, &strings)) {
    return false;
  }
  const Py_ssize_t count = PyTuple_Size(strings);
  if (count < 0) return false;
  for (Py_ssize_t i = 0; i < count; ++i) {
    ends->push_back(PyLong_AsLongLong(PyTuple_GetItem(strings, i)));
  }
  out->stride = stride;
  out->key_size = key_size;
  out->defaults = defaults;
  out->defaults_size = defaults_size;
  out->default_ends = ends->data();
  out->num_default_ends = static_cast<int64_t>(ends->size());
  return PyErr_Occurred() == nullptr;
}

// Py_BuildValue releases the arguments of "N", and fails if one of them is null.
PyObject* keyTuple(const tb_example_key& key) {
  return Py_BuildValue("(NNiL)", PyBool_FromLong(key.in_lists), bytesOf(key.key, key.key_size),
                       key.type, static_cast<long long>(key.count));
}

}  // namespace

PyObject* exampleKeys(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  const Integers integers(args, nargs, 2, "example_keys");
  const void* record = integers.address(0);
  const size_t size = integers.size(1);
  tb_example_keys* read = nullptr;
  if (integers.failed() || !readPlaced([&](tb_bundle_place* place) {
        return tb_example_keys_read(record, size, &read, place);
      })) {
    return nullptr;
  }
  const HandlePointer<tb_example_keys, tb_example_keys_release> keys(read);
  return listOf(read, tb_example_key_get, keyTuple);
}

PyObject* exampleSpec(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  const Integers integers(args, nargs, 2, "example_spec");
  if (integers.failed()) return nullptr;
  const Py_ssize_t count = PyTuple_Size(args[0]);
  const int64_t sequence = integers.number(1);
  if (integers.failed()) return nullptr;
  std::vector<tb_example_column> columns(static_cast<size_t>(count));
  std::vector<std::vector<int64_t>> ends(columns.size());
  for (Py_ssize_t i = 0; i < count; ++i) {
    const auto at = static_cast<size_t>(i);
    if (!readColumn(PyTuple_GetItem(args[0], i), &columns[at], &ends[at])) return nullptr;
  }
  tb_example_spec* spec = nullptr;
  const tb_status status = tb_example_spec_new(columns.data(), static_cast<int32_t>(count),
                                               static_cast<int32_t>(sequence), &spec);
  if (status != TB_OK) return raiseStatus(status);
  PyObject* capsule = PyCapsule_New(spec, kExampleSpec, destroySpec);
  if (capsule == nullptr) tb_example_spec_release(spec);
  return capsule;
}

PyObject* exampleScan(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  const Integers integers(args, nargs, 6, "example_scan");
  if (integers.failed()) return nullptr;
  const auto* spec = static_cast<tb_example_spec*>(PyCapsule_GetPointer(args[0], kExampleSpec));
  const void* base = integers.address(1);
  const auto* begins = static_cast<const int64_t*>(integers.address(2));
  const auto* sizes = static_cast<const int64_t*>(integers.address(3));
  const int64_t count = integers.number(4);
  const int64_t columns = integers.number(5);
  tb_example_batch* batch = nullptr;
  if (spec == nullptr || integers.failed() || !readPlaced([&](tb_bundle_place* place) {
        return tb_example_scan(spec, base, begins, sizes, count, &batch, place);
      })) {
    return nullptr;
  }
  PyObject* capsule = PyCapsule_New(batch, kBatch, destroyBatch);
  if (capsule == nullptr) {
    tb_example_batch_release(batch);
    return nullptr;
  }
  PyCapsule_SetContext(capsule, Py_NewRef(args[0]));
  PyObject* counts = tupleOf(5 * columns, [&](Py_ssize_t i) -> PyObject* {
    auto size = sized<tb_example_size>();
    const tb_status status = tb_example_size_get(batch, static_cast<int32_t>(i / 5), &size);
    if (status != TB_OK) return raiseStatus(status);
    const int64_t numbers[] = {size.values, size.bytes, size.rows, size.max_rows, size.max_values};
    return PyLong_FromLongLong(numbers[i % 5]);
  });
  return Py_BuildValue("(NN)", capsule, counts);
}

PyObject* exampleSingles(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  const Integers integers(args, nargs, 6, "example_singles");
  if (integers.failed()) return nullptr;
  const auto* spec = static_cast<tb_example_spec*>(PyCapsule_GetPointer(args[0], kExampleSpec));
  ExamplePlan* plan = spec == nullptr ? nullptr : ExamplePlan::of(args[1]);
  if (plan == nullptr) return nullptr;
  const void* base = integers.address(2);
  const auto* begins = static_cast<const int64_t*>(integers.address(3));
  const auto* sizes = static_cast<const int64_t*>(integers.address(4));
  const int64_t count = integers.number(5);
  Owned list(integers.failed() ? nullptr : PyList_New(0));
  for (int64_t i = 0; list && i < count; ++i) {
    // Another thread could not do much while a few kB are parsed.
    constexpr int64_t kGilFreeBytes = 64 * 1024;
    tb_parsed_batch* parsed = nullptr;
    const auto parse = [&] {
      return tb_example_parse(spec, base, begins + i, sizes + i, 1, &parsed, nullptr);
    };
    const tb_status status = sizes[i] > kGilFreeBytes ? withoutGil(parse) : parse();
    if (status == TB_CHECKPOINT) break;  // the caller parses it again, for the message
    if (status != TB_OK) return raiseStatus(status);
    const HandlePointer<tb_parsed_batch, tb_parsed_batch_release> batch(parsed);
    if (!append(list, plan->value(parsed, 1, /*single=*/true))) return nullptr;
  }
  return list.release();
}

PyObject* exampleFill(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  const Integers integers(args, nargs, 2, "example_fill");
  if (integers.failed()) return nullptr;
  const auto* batch = static_cast<tb_example_batch*>(PyCapsule_GetPointer(args[0], kBatch));
  const Py_ssize_t count = batch == nullptr ? -1 : PyList_Size(args[1]);
  if (count < 0) return nullptr;
  std::vector<tb_example_memory> columns(static_cast<size_t>(count) / 4);
  for (Py_ssize_t i = 0; i < count; ++i) {
    void* address = PyLong_AsVoidPtr(PyList_GetItem(args[1], i));
    if (PyErr_Occurred() != nullptr) return nullptr;
    tb_example_memory& column = columns[static_cast<size_t>(i) / 4];
    switch (i % 4) {
      case 0:
        column.values = address;
        break;
      case 1:
        column.offsets = static_cast<int64_t*>(address);
        break;
      case 2:
        column.index = static_cast<int64_t*>(address);
        break;
      default:
        column.lengths = static_cast<int64_t*>(address);
    }
  }
  if (!readPlaced([&](tb_bundle_place* place) {
        return tb_example_fill(batch, columns.data(), static_cast<int32_t>(columns.size()), place);
      })) {
    return nullptr;
  }
  Py_RETURN_NONE;
}

}  // namespace tensor_bridge::python
