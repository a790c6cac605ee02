#include "extension/example_plan.h"

#include <algorithm>

#include "dlpack/dlpack.h"
#include "extension/frameworks.h"
#include "extension/hooks.h"
#include "extension/reading.h"
#include "extension/strings.h"

namespace tensor_bridge::python {
namespace {

constexpr const char* kPlan = "tensor_bridge.example_plan";
constexpr const char* kTensor = "dltensor";

struct Managed {
  DLManagedTensor tensor{};
  std::vector<int64_t> shape;
};

void destroyTensor(PyObject* capsule) {
  if (PyCapsule_IsValid(capsule, kTensor) == 0) return;
  auto* managed = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule, kTensor));
  managed->deleter(managed);
}

// A tensor by torch's own function, for a torch whose memory layout is not known.
PyObject* fromDlpack(tb_parsed_batch* batch, void* data, DLDataType dtype, const Dims& shape) {
  auto* made = new Managed;
  made->shape.assign(shape.sizes, shape.sizes + shape.count);
  DLTensor& inner = made->tensor.dl_tensor;
  inner.data = data;
  inner.device = {kDLCPU, 0};
  inner.ndim = shape.count;
  inner.dtype = dtype;
  inner.shape = made->shape.data();
  tb_parsed_batch_retain(batch);
  made->tensor.manager_ctx = batch;
  // On any thread, without the GIL. The structure is the first member of what was allocated.
  made->tensor.deleter = [](DLManagedTensor* self) {
    tb_parsed_batch_release(static_cast<tb_parsed_batch*>(self->manager_ctx));
    delete reinterpret_cast<Managed*>(self);
  };
  const Owned capsule(PyCapsule_New(&made->tensor, kTensor, destroyTensor));
  if (!capsule) {
    made->tensor.deleter(&made->tensor);
    return nullptr;
  }
  return hooks::copying_from_capsule.call("(O)", capsule.get()).release();
}

// Part 0 to 3 of a column (tb_py_parsed_tensor); None for a part that it does not have.
PyObject* tensorOf(tb_parsed_batch* batch, int64_t index, const tb_parsed_column& column, int part,
                   const Dims& shape) {
  PyObject* made = nullptr;
  const tb_status status = tb_py_parsed_tensor(batch, index, part, shape.sizes, shape.count, &made);
  if (status == TB_OK) return made;
  if (status != TB_FRAMEWORK) return raiseStatus(status);
  constexpr DLDataType kInt64{kDLInt, 64, 1};
  const DLDataType values = column.type == 1   ? DLDataType{kDLUInt, 8, 1}
                            : column.type == 2 ? DLDataType{kDLFloat, 32, 1}
                                               : kInt64;
  void* const data[] = {column.values, column.offsets, column.index, column.lengths};
  return fromDlpack(batch, data[part], part == 0 ? values : kInt64, shape);
}

bool readShape(PyObject* tuple, std::vector<int64_t>* out) {
  const Py_ssize_t ndim = PyTuple_Size(tuple);
  if (ndim > Dims::kMost - 2) {  // a batch has up to two more
    PyErr_SetString(PyExc_ValueError, "expected a shape of fewer dimensions");
    return false;
  }
  for (Py_ssize_t i = 0; i < ndim; ++i) {
    out->push_back(PyLong_AsLongLong(PyTuple_GetItem(tuple, i)));
  }
  return ndim >= 0 && PyErr_Occurred() == nullptr;
}

}  // namespace

ExamplePlan* ExamplePlan::of(PyObject* capsule) {
  return static_cast<ExamplePlan*>(PyCapsule_GetPointer(capsule, kPlan));
}

bool ExamplePlan::read(PyObject* columns, int64_t form, PyObject* string_tensor, PyObject* size) {
  const Py_ssize_t count = PyTuple_Size(columns);
  if (count < 0) return false;
  form_ = form;
  string_tensor_ = Owned(Py_NewRef(string_tensor));
  size_ = Owned(Py_NewRef(size));
  for (Py_ssize_t i = 0; i < count; ++i) {
    Column& column = columns_.emplace_back();
    PyObject* key = nullptr;
    PyObject* shape = nullptr;
    long long kind = 0;
    int in_lists = 0;
    if (!PyArg_ParseTuple(PyTuple_GetItem(columns, i), "OLpO!", &key, &kind, &in_lists,
                          &PyTuple_Type, &shape) ||
        !readShape(shape, &column.shape)) {
      return false;
    }
    column.key = Owned(Py_NewRef(key));
    column.kind = kind;
    column.in_lists = in_lists != 0;
  }
  return true;
}

PyObject* ExamplePlan::value(tb_parsed_batch* batch, int64_t count, bool single) {
  Owned result;
  if (form_ != kFirst) result = Owned(form_ == kDict ? PyDict_New() : PyList_New(0));
  if (form_ != kFirst && !result) return nullptr;
  auto column = sized<tb_parsed_column>();
  for (size_t i = 0; i < columns_.size(); ++i) {
    const auto index = static_cast<int64_t>(i);
    const tb_status status = tb_parsed_column_get(batch, index, &column);
    if (status != TB_OK) return raiseStatus(status);
    if (form_ == kColumns) {
      if (!append(result, columnTuple(batch, index, column, count))) return nullptr;
      continue;
    }
    Owned made(values(batch, index, column, count, single));
    if (!made || form_ == kFirst) return made.release();
    if (PyDict_SetItem(result.get(), columns_[i].key.get(), made.get()) != 0) return nullptr;
  }
  return result.release();
}

PyObject* ExamplePlan::values(tb_parsed_batch* batch, int64_t index, const tb_parsed_column& column,
                              int64_t count, bool single) {
  Column& asked = columns_[static_cast<size_t>(index)];
  Dims shape;
  if (asked.kind >= kSparse) {
    shape.push(column.count);
  } else {
    if (!single) shape.push(count);
    if (asked.kind == kPadded) shape.push(column.max_rows);
    for (const int64_t size : asked.shape) shape.push(size);
  }
  if (column.type != 1) return tensorOf(batch, index, column, 0, shape);
  const Owned bytes(tensorOf(batch, index, column, 0, Dims(column.num_values)));
  if (!bytes) return nullptr;
  const Owned offsets(tensorOf(batch, index, column, 1, Dims(column.num_offsets)));
  return offsets ? strings(&asked, bytes.get(), offsets.get(), shape) : nullptr;
}

PyObject* ExamplePlan::strings(Column* column, PyObject* bytes, PyObject* offsets,
                               const Dims& shape) {
  const int64_t* end = shape.sizes + shape.count;
  if (!column->size || !std::equal(shape.sizes, end, column->sizes.begin(), column->sizes.end())) {
    const Owned sizes(shapeTuple(shape.sizes, shape.count));
    if (!sizes) return nullptr;
    column->size = Owned(PyObject_CallFunctionObjArgs(size_.get(), sizes.get(), nullptr));
    if (!column->size) return nullptr;
    column->sizes.assign(shape.sizes, end);
  }
  return stringTensor(string_tensor_.get(), bytes, offsets, column->size.get());
}

PyObject* ExamplePlan::columnTuple(tb_parsed_batch* batch, int64_t index,
                                   const tb_parsed_column& column, int64_t count) {
  const Column& asked = columns_[static_cast<size_t>(index)];
  const auto part = [&](bool there, int number, const Dims& shape) {
    return there ? tensorOf(batch, index, column, number, shape) : Py_NewRef(Py_None);
  };
  Dims places(asked.in_lists ? 3 : 2);
  places.push(column.count);
  if (asked.kind == kRagged) places = Dims(column.num_index);
  // Py_BuildValue releases what "N" got, and fails if one of them is null.
  return Py_BuildValue(
      "(NNNLL)", values(batch, index, column, count, false), part(asked.kind >= kSparse, 2, places),
      part(column.lengths != nullptr, 3, Dims(column.num_lengths)),
      static_cast<long long>(column.max_rows), static_cast<long long>(column.max_values));
}

PyObject* examplePlan(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  const Integers integers(args, nargs, 4, "example_plan");
  if (integers.failed()) return nullptr;
  const int64_t form = integers.number(1);
  if (integers.failed()) return nullptr;
  // Without it tensors are made by torch's own function.
  if (!ensureReady()) PyErr_Clear();
  auto* plan = new ExamplePlan;
  const auto destroy = [](PyObject* capsule) { delete ExamplePlan::of(capsule); };
  PyObject* capsule = PyCapsule_New(plan, kPlan, destroy);
  if (capsule == nullptr) {
    delete plan;
  } else if (!plan->read(args[0], form, args[2], args[3])) {
    Py_DECREF(capsule);
    capsule = nullptr;
  }
  return capsule;
}

}  // namespace tensor_bridge::python
