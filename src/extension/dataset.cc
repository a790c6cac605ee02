#include "extension/dataset.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "c_api/private_api.h"
#include "extension/errors.h"
#include "extension/frameworks.h"
#include "extension/object.h"
#include "extension/options.h"
#include "extension/strings.h"
#include "extension/values.h"
#include "tensor_bridge/c_api.h"

namespace tensor_bridge::python {
namespace {

constexpr const char* kCapsule = "tensor_bridge.data";
// Interval at which an endless wait checks for signals (Ctrl-C).
constexpr int64_t kSliceMs = 100;
// A thread that does not end within this time after being cancelled is abandoned.
constexpr int64_t kCloseMs = 10000;
// tensorflow/core/framework/types.proto
constexpr int kTfString = 7;

// The nesting of an element: a value by its number, a tuple, a dict, or a call with the children.
struct Node {
  enum Kind { kValue, kTuple, kDict, kCall };
  Kind kind = kValue;
  Py_ssize_t value = 0;
  Owned object;  // kDict: the keys, kCall: the callable
  std::vector<Node> children;
};

// How a slot becomes values of the flat list.
enum class SlotKind { kTensor, kStringBytes, kStringList, kSkipped };

struct Iterator {
  tb_data_iterator* native = nullptr;
  // Number of calls running in it without the GIL; the last one closes it if closing was requested.
  int users = 0;
  bool closing = false;
  std::vector<SlotKind> slots;
  size_t num_values = 0;
  Node root;
  Owned on_failure;

  ~Iterator() { tb_py_data_close(native, kCloseMs); }
};

class Use {
 public:
  explicit Use(Iterator* iterator) : iterator_(iterator) { ++iterator_->users; }
  ~Use() {
    if (--iterator_->users == 0 && iterator_->closing) {
      tb_py_data_close(std::exchange(iterator_->native, nullptr), kCloseMs);
    }
  }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

 private:
  Iterator* iterator_;
};

using Values = std::vector<Owned>;

using ElementPointer = HandlePointer<tb_data_element, tb_data_element_release>;

Iterator* iteratorOf(PyObject* capsule) {
  return static_cast<Iterator*>(PyCapsule_GetPointer(capsule, kCapsule));
}

void destroy(PyObject* capsule) {
  // An exception may be set.
  const ErrorState error;
  delete iteratorOf(capsule);
}

// ---- the structure

bool badStructure(PyObject* description) {
  PyErr_Format(PyExc_ValueError, "no structure: %R", description);
  return false;
}

bool parseNode(PyObject* description, size_t num_values, Node* node) {
  if (PyLong_Check(description)) {
    node->value = PyLong_AsSsize_t(description);
    return (node->value >= 0 && static_cast<size_t>(node->value) < num_values) ||
           badStructure(description);
  }
  if (!PyTuple_Check(description) || PyTuple_Size(description) < 1) {
    return badStructure(description);
  }
  PyObject* kind = PyTuple_GetItem(description, 0);
  Py_ssize_t first = 1;
  if (PyUnicode_CompareWithASCIIString(kind, "tuple") == 0) {
    node->kind = Node::kTuple;
  } else {
    node->kind = PyUnicode_CompareWithASCIIString(kind, "dict") == 0 ? Node::kDict : Node::kCall;
    if (PyTuple_Size(description) < 2) return badStructure(description);
    node->object = Owned(Py_NewRef(PyTuple_GetItem(description, 1)));
    first = 2;
  }
  for (Py_ssize_t i = first; i < PyTuple_Size(description); ++i) {
    Node child;
    if (!parseNode(PyTuple_GetItem(description, i), num_values, &child)) return false;
    node->children.push_back(std::move(child));
  }
  if (node->kind == Node::kDict &&
      (!PyTuple_Check(node->object.get()) ||
       static_cast<size_t>(PyTuple_Size(node->object.get())) != node->children.size())) {
    return badStructure(description);
  }
  return true;
}

PyObject* build(const Node& node, const Values& values);

PyObject* buildTuple(const Node& node, const Values& values) {
  return tupleOf(static_cast<Py_ssize_t>(node.children.size()), [&](Py_ssize_t i) {
    return build(node.children[static_cast<size_t>(i)], values);
  });
}

PyObject* buildDict(const Node& node, const Values& values) {
  Owned dict(PyDict_New());
  for (size_t i = 0; dict && i < node.children.size(); ++i) {
    const Owned child(build(node.children[i], values));
    PyObject* key = PyTuple_GetItem(node.object.get(), static_cast<Py_ssize_t>(i));
    if (!child || PyDict_SetItem(dict.get(), key, child.get()) != 0) return nullptr;
  }
  return dict.release();
}

PyObject* build(const Node& node, const Values& values) {
  switch (node.kind) {
    case Node::kValue:
      return Py_NewRef(values[static_cast<size_t>(node.value)].get());
    case Node::kTuple:
      return buildTuple(node, values);
    case Node::kDict:
      return buildDict(node, values);
    default: {
      const Owned arguments(buildTuple(node, values));
      return arguments ? PyObject_Call(node.object.get(), arguments.get(), nullptr) : nullptr;
    }
  }
}

// ---- elements

// Sets the Python exception for the pipeline's failure. Always returns null.
PyObject* raiseFailure(const Iterator& iterator, tb_status status, const tb_data_outcome& outcome) {
  if (PyErr_Occurred() != nullptr) return nullptr;
  const Owned exception(PyObject_CallFunction(iterator.on_failure.get(), "LiiN",
                                              static_cast<long long>(outcome.ordinal), status,
                                              outcome.tf_code, textOf(tb_last_error())));
  if (exception) {
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception.get())), exception.get());
  }
  return nullptr;
}

bool fillValues(const Iterator& iterator, tb_data_element* element, Values* values) {
  values->reserve(iterator.num_values);
  for (size_t i = 0; i < iterator.slots.size(); ++i) {
    const auto slot = static_cast<int32_t>(i);
    const SlotKind kind = iterator.slots[i];
    if (kind == SlotKind::kSkipped) continue;
    if (kind == SlotKind::kStringList) {
      values->emplace_back(stringsList(tb_data_slot_strings(element, slot)));
    } else {
      const tb_status status = tb_py_data_slot(element, slot, values->emplace_back().out());
      if (status != TB_OK) raiseStatus(status);
    }
    if (kind == SlotKind::kStringBytes && values->back()) {
      int32_t ndim = 0;
      const int64_t* shape = tb_data_slot_shape(element, slot, &ndim);
      values->emplace_back(shapeTuple(shape, ndim));
    }
    if (!values->back()) return false;
  }
  return true;
}

enum class Got { kElement, kEnd, kNothing, kError };

// Waits up to `limit_ms`, or for ever if it is negative.
Got nextElement(Iterator* iterator, int64_t limit_ms, ElementPointer* out) {
  if (iterator->native == nullptr || iterator->closing) return Got::kEnd;
  Use use(iterator);
  auto outcome = sized<tb_data_outcome>();
  for (int64_t waited = 0;;) {
    const int64_t slice =
        limit_ms < 0 ? kSliceMs : std::max<int64_t>(std::min(kSliceMs, limit_ms - waited), 0);
    tb_data_element* element = nullptr;
    const tb_status status = tb_py_data_next(iterator->native, slice, &outcome, &element);
    if (status != TB_OK) {
      raiseFailure(*iterator, status, outcome);
      return Got::kError;
    }
    if (outcome.state == TB_DATA_ELEMENT) {
      out->reset(element);
      return Got::kElement;
    }
    if (outcome.state == TB_DATA_END) return Got::kEnd;
    if (PyErr_CheckSignals() != 0) return Got::kError;
    waited += slice;
    if (limit_ms >= 0 && waited >= limit_ms) return Got::kNothing;
  }
}

// For the arguments (capsule, seconds): the values of the next element. Null with an exception set.
Iterator* takeNext(PyObject* const* args, Values* values) {
  Iterator* iterator = iteratorOf(args[0]);
  const double seconds = iterator == nullptr ? 0 : PyFloat_AsDouble(args[1]);
  if (PyErr_Occurred() != nullptr) return nullptr;
  ElementPointer element;
  switch (
      nextElement(iterator, seconds < 0 ? -1 : static_cast<int64_t>(seconds * 1000), &element)) {
    case Got::kElement:
      break;
    case Got::kEnd:
      PyErr_SetNone(PyExc_StopIteration);
      return nullptr;
    case Got::kNothing:
      PyErr_SetNone(PyExc_TimeoutError);
      return nullptr;
    case Got::kError:
      return nullptr;
  }
  return fillValues(*iterator, element.get(), values) ? iterator : nullptr;
}

// ---- opening

bool parseComponents(PyObject* list, std::vector<tb_data_component>* out) {
  const Py_ssize_t count = PySequence_Size(list);
  if (count < 0) return false;
  for (Py_ssize_t i = 0; i < count; ++i) {
    const Owned item(PySequence_GetItem(list, i));
    tb_data_component component{};
    if (!item || PyArg_ParseTuple(item.get(), "iiiii", &component.kind, &component.tf_dtype,
                                  &component.values_dtype, &component.splits_dtype,
                                  &component.ragged_rank) == 0) {
      return false;
    }
    out->push_back(component);
  }
  return true;
}

void addStrings(bool lists, std::vector<SlotKind>* slots) {
  slots->push_back(lists ? SlotKind::kStringList : SlotKind::kStringBytes);
  slots->push_back(lists ? SlotKind::kSkipped : SlotKind::kTensor);
}

std::vector<SlotKind> slotKinds(const std::vector<tb_data_component>& components, bool lists) {
  std::vector<SlotKind> slots;
  for (const tb_data_component& component : components) {
    size_t tensors = 1;
    if (component.kind == TB_DATA_SPARSE) tensors = 3;
    if (component.kind == TB_DATA_STRINGS) {
      addStrings(lists, &slots);
      tensors = 0;
    } else if (component.kind == TB_DATA_RAGGED) {
      tensors = static_cast<size_t>(component.ragged_rank);
      if (component.values_dtype == kTfString) {
        addStrings(lists, &slots);
      } else {
        ++tensors;
      }
    }
    slots.insert(slots.end(), tensors, SlotKind::kTensor);
  }
  return slots;
}

size_t countValues(const std::vector<SlotKind>& slots) {
  size_t count = 0;
  for (const SlotKind kind : slots) {
    count += kind == SlotKind::kSkipped ? 0 : kind == SlotKind::kStringBytes ? 2 : 1;
  }
  return count;
}

}  // namespace

PyObject* dataOpen(PyObject*, PyObject* const* args, Py_ssize_t nargs, PyObject* names) {
  if (nargs != 8) return wrongCount("data_open", 8, nargs);
  ParsedToTorchOptions parsed;
  if (!ensureReady() || !parseToTorchOptions(names, args + nargs, kDenseOnly, &parsed))
    return nullptr;
  // TensorFlow's context capsule has no name.
  void* context = PyCapsule_GetPointer(args[1], nullptr);
  if (context == nullptr) return nullptr;
  std::vector<tb_data_component> components;
  if (!parseComponents(args[5], &components)) return nullptr;
  auto options = sized<tb_data_options>();
  options.prefetch = static_cast<int32_t>(PyLong_AsLong(args[2]));
  options.adaptive = PyObject_IsTrue(args[3]) == 1;
  options.string_lists = PyObject_IsTrue(args[4]) == 1;
  if (PyErr_Occurred() != nullptr) return nullptr;
  options.num_components = static_cast<int32_t>(components.size());
  options.components = components.data();
  options.convert = names == nullptr ? nullptr : &parsed.options;

  auto iterator = std::make_unique<Iterator>();
  iterator->slots = slotKinds(components, options.string_lists != 0);
  iterator->num_values = countValues(iterator->slots);
  if (!parseNode(args[6], iterator->num_values, &iterator->root)) return nullptr;
  iterator->on_failure = Owned(Py_NewRef(args[7]));
  const tb_status status = tb_py_data_open(args[0], context, &options, &iterator->native);
  if (status != TB_OK) return raiseStatus(status);
  PyObject* capsule = PyCapsule_New(iterator.get(), kCapsule, destroy);
  if (capsule != nullptr) iterator.release();
  return capsule;
}

PyObject* dataNext(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  if (nargs != 2) return wrongCount("data_next", 2, nargs);
  Values values;
  Iterator* iterator = takeNext(args, &values);
  return iterator == nullptr ? nullptr : build(iterator->root, values);
}

PyObject* dataNextFlat(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  if (nargs != 2) return wrongCount("data_next_flat", 2, nargs);
  Values values;
  if (takeNext(args, &values) == nullptr) return nullptr;
  Owned list(PyList_New(static_cast<Py_ssize_t>(values.size())));
  for (size_t i = 0; list && i < values.size(); ++i) {
    PyList_SetItem(list.get(), static_cast<Py_ssize_t>(i), values[i].release());
  }
  return list.release();
}

PyObject* dataBuild(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  if (nargs != 2) return wrongCount("data_build", 2, nargs);
  Iterator* iterator = iteratorOf(args[0]);
  const Py_ssize_t count = iterator == nullptr ? -1 : PySequence_Size(args[1]);
  if (count < 0) return nullptr;
  if (static_cast<size_t>(count) != iterator->num_values) {
    PyErr_Format(PyExc_ValueError, "expected %zu values, got %zd", iterator->num_values, count);
    return nullptr;
  }
  Values values;
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (!values.emplace_back(PySequence_GetItem(args[1], i))) return nullptr;
  }
  return build(iterator->root, values);
}

PyObject* dataPause(PyObject*, PyObject* capsule) {
  Iterator* iterator = iteratorOf(capsule);
  if (iterator == nullptr) return nullptr;
  if (iterator->native != nullptr && !iterator->closing) {
    Use use(iterator);
    const tb_status status = tb_py_data_pause(iterator->native);
    if (status != TB_OK) return raiseStatus(status);
  }
  return Py_NewRef(Py_None);
}

PyObject* dataResume(PyObject*, PyObject* capsule) {
  Iterator* iterator = iteratorOf(capsule);
  if (iterator == nullptr) return nullptr;
  tb_py_data_resume(iterator->native);
  return Py_NewRef(Py_None);
}

PyObject* dataCancel(PyObject*, PyObject* capsule) {
  Iterator* iterator = iteratorOf(capsule);
  if (iterator == nullptr) return nullptr;
  if (iterator->native != nullptr) {
    Use use(iterator);
    tb_py_data_cancel(iterator->native);
  }
  return Py_NewRef(Py_None);
}

PyObject* dataStats(PyObject*, PyObject* capsule) {
  Iterator* iterator = iteratorOf(capsule);
  if (iterator == nullptr) return nullptr;
  auto stats = sized<tb_data_stats>();
  if (iterator->native != nullptr) {
    const tb_status status = tb_data_stats_get(iterator->native, &stats);
    if (status != TB_OK) return raiseStatus(status);
  }
  return Py_BuildValue("(LLLLLLL)", static_cast<long long>(stats.elements),
                       static_cast<long long>(stats.bytes), static_cast<long long>(stats.failures),
                       static_cast<long long>(stats.wait_ns),
                       static_cast<long long>(stats.compute_ns),
                       static_cast<long long>(stats.make_ns), static_cast<long long>(stats.queued));
}

PyObject* dataClose(PyObject*, PyObject* capsule) {
  Iterator* iterator = iteratorOf(capsule);
  if (iterator == nullptr) return nullptr;
  if (iterator->native != nullptr && !iterator->closing) {
    iterator->closing = true;
    Use use(iterator);
    tb_py_data_cancel(iterator->native);
  }
  return Py_NewRef(Py_None);
}

PyObject* snappyUnpack(PyObject*, PyObject* packed) {
  char* data = nullptr;
  Py_ssize_t size = 0;
  if (PyBytes_AsStringAndSize(packed, &data, &size) != 0) return nullptr;
  const int64_t length = tb_snappy_length(data, static_cast<size_t>(size));
  if (length < 0) {
    PyErr_SetString(PyExc_ValueError, "expected bytes packed by Snappy, got another length");
    return nullptr;
  }
  Owned unpacked(PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(length)));
  if (unpacked &&
      tb_snappy_unpack(data, static_cast<size_t>(size), PyBytes_AsString(unpacked.get()),
                       static_cast<size_t>(length)) == 0) {
    PyErr_SetString(PyExc_ValueError, "expected bytes packed by Snappy, got damaged ones");
    return nullptr;
  }
  return unpacked.release();
}

}  // namespace tensor_bridge::python
