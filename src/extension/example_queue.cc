// Queues of batches as Python functions; declared in example.h.

#include "extension/example.h"
#include "extension/example_plan.h"
#include "extension/reading.h"
#include "extension/records.h"

namespace tensor_bridge::python {
namespace {

constexpr const char* kQueue = "tensor_bridge.example_queue";

// Stands for a closed queue in a capsule.
char closed;

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

PyObject* failureOf(const tb_parsed_info& info) {
  if (info.failed == 0) return Py_NewRef(Py_None);
  return Py_BuildValue("(iiLLN)", info.failed, info.fault, static_cast<long long>(info.file),
                       static_cast<long long>(info.offset), textOf(info.message));
}

}  // namespace

PyObject* exampleQueue(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  const Integers integers(args, nargs, 16, "example_queue");
  if (integers.failed()) return nullptr;
  const tb_example_spec* spec = nullptr;
  if (args[0] != Py_None) {
    spec = static_cast<tb_example_spec*>(PyCapsule_GetPointer(args[0], kExampleSpec));
    if (spec == nullptr) return nullptr;
  }
  const auto flag = [&](int index) { return static_cast<int32_t>(integers.number(index)); };
  const tb_record_files files = recordFiles(integers, 1);
  auto options = sized<tb_queue_options>();
  options.numbers = numbers(integers, 6);
  options.num_numbers = integers.number(7);
  options.first = integers.number(8);
  options.step = integers.number(9);
  options.batch_size = integers.number(10);
  options.ahead = integers.number(11);
  options.threads = flag(12);
  options.verify = flag(13);
  options.skip = flag(14);
  options.drop_last = flag(15);
  if (integers.failed()) return nullptr;
  tb_example_queue* queue = nullptr;
  const tb_status status = tb_example_queue_new(spec, &files, &options, &queue);
  if (status != TB_OK) return raiseStatus(status);
  PyObject* capsule = PyCapsule_New(queue, kQueue, destroyQueue);
  if (capsule == nullptr) {
    release(queue);
    return nullptr;
  }
  PyCapsule_SetContext(capsule, Py_NewRef(args[0]));
  return capsule;
}

PyObject* exampleQueueReady(PyObject*, PyObject* capsule) {
  tb_example_queue* queue = queueOf(capsule);
  return queue == nullptr ? nullptr : PyLong_FromLongLong(tb_example_queue_ready(queue));
}

PyObject* exampleQueueTake(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  if (nargs != 2) return wrongCount("example_queue_take", 2, nargs);
  tb_example_queue* queue = queueOf(args[0]);
  ExamplePlan* plan = queue == nullptr ? nullptr : ExamplePlan::of(args[1]);
  if (plan == nullptr) return nullptr;
  tb_parsed_batch* taken = nullptr;
  const tb_status status = withoutGil([&] { return tb_example_queue_take(queue, &taken); });
  if (status != TB_OK) return raiseStatus(status);
  if (taken == nullptr) Py_RETURN_NONE;
  const HandlePointer<tb_parsed_batch, tb_parsed_batch_release> batch(taken);
  auto info = sized<tb_parsed_info>();
  const tb_status described = tb_parsed_batch_info(taken, &info);
  if (described != TB_OK) return raiseStatus(described);
  // Py_BuildValue releases what "N" got, and fails if one of them is null.
  return Py_BuildValue(
      "(NNLLLLL)", failureOf(info),
      info.failed == 0 ? plan->value(taken, info.count, /*single=*/false) : Py_NewRef(Py_None),
      static_cast<long long>(info.count), static_cast<long long>(info.bytes),
      static_cast<long long>(info.skipped_records), static_cast<long long>(info.skipped_bytes),
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
