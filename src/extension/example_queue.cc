// Queues of batches as Python functions; declared in example.h.

#include "dlpack/dlpack.h"
#include "extension/example.h"
#include "extension/reading.h"

namespace tensor_bridge::python {
namespace {

constexpr const char* kQueue = "tensor_bridge.example_queue";
constexpr const char* kTensor = "dltensor";

// Stands for a closed queue in a capsule.
char closed;

struct Tensor {
  DLManagedTensor managed{};
  int64_t size = 0;
};

void release(void* queue) {
  PyThreadState* state = PyEval_SaveThread();
  tb_example_queue_release(static_cast<tb_example_queue*>(queue));
  PyEval_RestoreThread(state);
}

// A queue keeps its spec alive: the capsule's context is a reference to the spec's capsule.
void destroyQueue(PyObject* capsule) {
  void* queue = PyCapsule_GetPointer(capsule, kQueue);
  if (queue != &closed) release(queue);
  Py_XDECREF(static_cast<PyObject*>(PyCapsule_GetContext(capsule)));
}

// The queue of a capsule; null with an exception set if it is closed.
tb_example_queue* queueOf(PyObject* capsule) {
  void* queue = PyCapsule_GetPointer(capsule, kQueue);
  if (queue != &closed) return static_cast<tb_example_queue*>(queue);
  raiseInvalidHandle("expected a queue that is open, got one that was closed");
  return nullptr;
}

void destroyTensor(PyObject* capsule) {
  if (PyCapsule_IsValid(capsule, kTensor) == 0) return;
  auto* managed = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule, kTensor));
  managed->deleter(managed);
}

// A DLPack capsule of one dimension over a part of the batch's memory, which it keeps alive.
PyObject* tensorOf(tb_parsed_batch* batch, void* data, int64_t size, DLDataType dtype) {
  auto* tensor = new Tensor;
  tensor->size = size;
  DLTensor& inner = tensor->managed.dl_tensor;
  inner.data = data;
  inner.device = {kDLCPU, 0};
  inner.ndim = 1;
  inner.dtype = dtype;
  inner.shape = &tensor->size;
  tb_parsed_batch_retain(batch);
  tensor->managed.manager_ctx = batch;
  // Called on any thread, without the GIL. The structure is the first member of Tensor.
  tensor->managed.deleter = [](DLManagedTensor* self) {
    tb_parsed_batch_release(static_cast<tb_parsed_batch*>(self->manager_ctx));
    delete reinterpret_cast<Tensor*>(self);
  };
  PyObject* capsule = PyCapsule_New(&tensor->managed, kTensor, destroyTensor);
  if (capsule == nullptr) tensor->managed.deleter(&tensor->managed);
  return capsule;
}

PyObject* columnTuple(tb_parsed_batch* batch, const tb_parsed_column& column) {
  constexpr DLDataType kInt64{kDLInt, 64, 1};
  const DLDataType values = column.type == 1   ? DLDataType{kDLUInt, 8, 1}
                            : column.type == 2 ? DLDataType{kDLFloat, 32, 1}
                                               : kInt64;
  const auto tensor = [&](void* data, int64_t size, DLDataType dtype) {
    return data == nullptr ? Py_NewRef(Py_None) : tensorOf(batch, data, size, dtype);
  };
  // Py_BuildValue releases the arguments of "N", and fails if one of them is null.
  return Py_BuildValue(
      "(NNNNLLL)", tensor(column.values, column.num_values, values),
      tensor(column.offsets, column.num_offsets, kInt64),
      tensor(column.index, column.num_index, kInt64),
      tensor(column.lengths, column.num_lengths, kInt64), static_cast<long long>(column.count),
      static_cast<long long>(column.max_rows), static_cast<long long>(column.max_values));
}

PyObject* columnList(tb_parsed_batch* batch, int32_t count) {
  Owned list(PyList_New(0));
  auto column = sized<tb_parsed_column>();
  for (int32_t i = 0; list && i < count; ++i) {
    const tb_status status = tb_parsed_column_get(batch, i, &column);
    if (status != TB_OK) return raiseStatus(status);
    if (!append(list, columnTuple(batch, column))) return nullptr;
  }
  return list.release();
}

PyObject* failureOf(const tb_parsed_info& info) {
  if (info.failed == 0) return Py_NewRef(Py_None);
  return Py_BuildValue("(iiLLN)", info.failed, info.fault, static_cast<long long>(info.file),
                       static_cast<long long>(info.offset), textOf(info.message));
}

}  // namespace

PyObject* exampleQueue(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  const Integers integers(args, nargs, 9, "example_queue");
  if (integers.failed()) return nullptr;
  const tb_example_spec* spec = nullptr;
  if (args[0] != Py_None) {
    spec = static_cast<tb_example_spec*>(PyCapsule_GetPointer(args[0], kExampleSpec));
    if (spec == nullptr) return nullptr;
  }
  auto files = sized<tb_record_files>();
  files.data = static_cast<const void* const*>(integers.address(1));
  files.sizes = static_cast<const int64_t*>(integers.address(2));
  files.ends = static_cast<const int64_t*>(integers.address(3));
  files.count = integers.number(4);
  files.offsets = static_cast<const int64_t*>(integers.address(5));
  const auto verify = static_cast<int32_t>(integers.number(6));
  const auto skip = static_cast<int32_t>(integers.number(7));
  const auto threads = static_cast<int32_t>(integers.number(8));
  if (integers.failed()) return nullptr;
  tb_example_queue* queue = nullptr;
  const tb_status status = tb_example_queue_new(spec, &files, verify, skip, threads, &queue);
  if (status != TB_OK) return raiseStatus(status);
  PyObject* capsule = PyCapsule_New(queue, kQueue, destroyQueue);
  if (capsule == nullptr) {
    release(queue);
    return nullptr;
  }
  PyCapsule_SetContext(capsule, Py_NewRef(args[0]));
  return capsule;
}

PyObject* exampleQueueSubmit(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  const Integers integers(args, nargs, 3, "example_queue_submit");
  if (integers.failed()) return nullptr;
  tb_example_queue* queue = queueOf(args[0]);
  if (queue == nullptr) return nullptr;
  const auto* numbers = static_cast<const int64_t*>(integers.address(1));
  const int64_t count = integers.number(2);
  if (integers.failed()) return nullptr;
  const tb_status status = tb_example_queue_submit(queue, numbers, count);
  if (status != TB_OK) return raiseStatus(status);
  Py_RETURN_NONE;
}

PyObject* exampleQueueReady(PyObject*, PyObject* capsule) {
  tb_example_queue* queue = queueOf(capsule);
  return queue == nullptr ? nullptr : PyLong_FromLongLong(tb_example_queue_ready(queue));
}

PyObject* exampleQueueTake(PyObject*, PyObject* capsule) {
  tb_example_queue* queue = queueOf(capsule);
  if (queue == nullptr) return nullptr;
  tb_parsed_batch* taken = nullptr;
  const tb_status status = withoutGil([&] { return tb_example_queue_take(queue, &taken); });
  if (status != TB_OK) return raiseStatus(status);
  const HandlePointer<tb_parsed_batch, tb_parsed_batch_release> batch(taken);
  auto info = sized<tb_parsed_info>();
  const tb_status described = tb_parsed_batch_info(taken, &info);
  if (described != TB_OK) return raiseStatus(described);
  // Py_BuildValue releases the arguments of "N", and fails if one of them is null.
  return Py_BuildValue("(NNLLLLL)", failureOf(info), columnList(taken, info.columns),
                       static_cast<long long>(info.count), static_cast<long long>(info.bytes),
                       static_cast<long long>(info.skipped_records),
                       static_cast<long long>(info.skipped_bytes),
                       static_cast<long long>(info.nanoseconds));
}

PyObject* exampleQueueClose(PyObject*, PyObject* capsule) {
  void* queue = PyCapsule_GetPointer(capsule, kQueue);
  if (queue == nullptr) return nullptr;
  if (queue == &closed) Py_RETURN_NONE;
  if (PyCapsule_SetPointer(capsule, &closed) != 0) return nullptr;
  release(queue);
  Py_RETURN_NONE;
}

}  // namespace tensor_bridge::python
