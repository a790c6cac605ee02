#include "extension/strings.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "extension/errors.h"
#include "extension/frameworks.h"
#include "extension/hooks.h"
#include "extension/options.h"
#include "extension/values.h"
#include "tensor_bridge/c_api.h"

namespace tensor_bridge::python {
namespace {

using StringsPointer = HandlePointer<tb_strings, tb_strings_release>;

bool openTf(PyObject* t, StringsPointer* out) {
  if (!ensureReady()) return false;
  tb_strings* strings = nullptr;
  const tb_status status = tb_py_strings_from_tf(t, &strings);
  if (status != TB_OK) {
    raiseStatus(status);
    return false;
  }
  out->reset(strings);
  return true;
}

bool parseShape(PyObject* tuple, std::vector<int64_t>* shape) {
  if (!PyTuple_Check(tuple)) {
    PyErr_SetString(PyExc_TypeError, "expected the shape as a tuple of ints");
    return false;
  }
  const Py_ssize_t ndim = PyTuple_Size(tuple);
  for (Py_ssize_t i = 0; i < ndim; ++i) {
    const int64_t size = PyLong_AsLongLong(PyTuple_GetItem(tuple, i));
    if (size == -1 && PyErr_Occurred() != nullptr) return false;
    shape->push_back(size);
  }
  return true;
}

// The first three of `args` are the tensors and the shape.
bool openTorch(PyObject* const* args, StringsPointer* out) {
  if (!isTorch(args[0]) || !isTorch(args[1])) {
    PyErr_SetString(PyExc_TypeError, "expected two torch tensors, bytes and offsets");
    return false;
  }
  std::vector<int64_t> shape;
  if (!parseShape(args[2], &shape) || !ensureReady()) return false;
  tb_strings* strings = nullptr;
  const tb_status status = tb_py_strings_from_torch(args[0], args[1], shape.data(),
                                                    static_cast<int32_t>(shape.size()), &strings);
  if (status != TB_OK) {
    raiseStatus(status);
    return false;
  }
  out->reset(strings);
  return true;
}

// A run of the garbage collector amid a million new lists would look at all of them and free
// nothing. No Python code runs meanwhile.
class CollectorPause {
 public:
  explicit CollectorPause(bool pause) : was_enabled_(pause && PyGC_Disable() != 0) {}
  ~CollectorPause() {
    if (was_enabled_) PyGC_Enable();
  }
  CollectorPause(const CollectorPause&) = delete;
  CollectorPause& operator=(const CollectorPause&) = delete;

 private:
  bool was_enabled_;
};

class BytesMaker {
 public:
  PyObject* operator()(const tb_string& string) const {
    return PyBytes_FromStringAndSize(string.data, static_cast<Py_ssize_t>(string.size));
  }
};

class StrMaker {
 public:
  StrMaker(const char* encoding, const char* errors)
      : encoding_(encoding), errors_(errors), utf8_(std::strcmp(encoding, "utf-8") == 0) {}
  PyObject* operator()(const tb_string& string) const {
    const auto size = static_cast<Py_ssize_t>(string.size);
    return utf8_ ? PyUnicode_DecodeUTF8(string.data, size, errors_)
                 : PyUnicode_Decode(string.data, size, encoding_, errors_);
  }

 private:
  const char* encoding_;
  const char* errors_;
  bool utf8_;
};

// Nested lists in the shape of `strings`. Null results have an exception set.
template <typename Maker>
class ListBuilder {
 public:
  ListBuilder(const tb_strings* strings, const Maker& make)
      : strings_(strings),
        make_(make),
        count_(tb_strings_count(strings)),
        ndim_(tb_strings_ndim(strings)),
        shape_(tb_strings_shape(strings)) {}

  PyObject* build() {
    const CollectorPause pause(ndim_ > 1);
    return level(0);
  }

 private:
  // Number of strings that are looked up at a time.
  static constexpr int64_t kChunk = 256;

  PyObject* level(int32_t dim) {
    if (dim == ndim_) return refill() ? make_(chunk_[used_++]) : nullptr;
    const auto size = static_cast<Py_ssize_t>(shape_[dim]);
    Owned list(PyList_New(size));
    if (!list) return nullptr;
    const bool filled =
        dim + 1 == ndim_ ? fill(list.get(), size) : fillNested(list.get(), size, dim + 1);
    return filled ? list.release() : nullptr;
  }

  bool fillNested(PyObject* list, Py_ssize_t size, int32_t dim) {
    for (Py_ssize_t i = 0; i < size; ++i) {
      PyObject* item = level(dim);
      if (item == nullptr) return false;
      PyList_SetItem(list, i, item);
    }
    return true;
  }

  bool fill(PyObject* list, Py_ssize_t size) {
    for (Py_ssize_t i = 0; i < size;) {
      if (used_ == filled_ && !refill()) return false;
      const Py_ssize_t run = std::min<Py_ssize_t>(size - i, filled_ - used_);
      const tb_string* strings = chunk_ + used_;
      for (Py_ssize_t k = 0; k < run; ++k) {
        PyObject* item = make_(strings[k]);
        if (item == nullptr) return false;
        PyList_SetItem(list, i + k, item);
      }
      used_ += run;
      i += run;
    }
    return true;
  }

  bool refill() {
    first_ += filled_;
    used_ = 0;
    filled_ = std::min(kChunk, count_ - first_);
    const tb_status status = tb_strings_get(strings_, first_, filled_, chunk_);
    if (status != TB_OK) raiseStatus(status);
    return status == TB_OK;
  }

  const tb_strings* strings_;
  Maker make_;
  int64_t count_;
  int32_t ndim_;
  const int64_t* shape_;
  int64_t first_ = 0;
  int64_t filled_ = 0;
  int64_t used_ = 0;
  tb_string chunk_[kChunk];
};

template <typename Maker>
PyObject* nestedList(const StringsPointer& strings, const Maker& make) {
  return ListBuilder<Maker>(strings.get(), make).build();
}

// A field of an instance whose class forbids assignment.
bool setField(const Owned& object, PyObject* name, PyObject* value) {
  return name != nullptr && PyObject_GenericSetAttr(object.get(), name, value) == 0;
}

// The shape as a torch.Size. The latest one is kept: a batch often has the shape of the one before,
// and making it takes a tenth of a small conversion.
PyObject* sizeOf(const tb_strings* strings) {
  static PyObject* type = nullptr;  // the three are guarded by the GIL
  static PyObject* latest = nullptr;
  static std::vector<int64_t> latest_sizes;
  const int32_t ndim = tb_strings_ndim(strings);
  const int64_t* shape = tb_strings_shape(strings);
  if (latest == nullptr ||
      !std::equal(shape, shape + ndim, latest_sizes.begin(), latest_sizes.end())) {
    if (type == nullptr) type = hooks::size_type.call().release();
    const Owned sizes(type == nullptr ? nullptr : shapeTuple(shape, ndim));
    Owned made(sizes ? PyObject_CallFunctionObjArgs(type, sizes.get(), nullptr) : nullptr);
    if (!made) return nullptr;
    const Owned old(std::exchange(latest, made.release()));
    latest_sizes.assign(shape, shape + ndim);
  }
  return Py_NewRef(latest);
}

// Null with an exception set; valid while `text` is.
const char* asText(PyObject* text) {
  Py_ssize_t size = 0;
  return PyUnicode_AsUTF8AndSize(text, &size);
}

}  // namespace

PyObject* stringsList(const tb_strings* strings) {
  return ListBuilder<BytesMaker>(strings, BytesMaker()).build();
}

PyObject* stringTensor(PyObject* type, PyObject* bytes, PyObject* offsets, PyObject* size) {
  static PyObject* const bytes_name = PyUnicode_InternFromString("bytes");
  static PyObject* const offsets_name = PyUnicode_InternFromString("offsets");
  static PyObject* const shape_name = PyUnicode_InternFromString("shape");
  auto* of = reinterpret_cast<PyTypeObject*>(type);
  const auto alloc = reinterpret_cast<allocfunc>(PyType_GetSlot(of, Py_tp_alloc));
  Owned made(alloc(of, 0));
  if (!made || !setField(made, bytes_name, bytes) || !setField(made, offsets_name, offsets) ||
      !setField(made, shape_name, size)) {
    return nullptr;
  }
  return made.release();
}

tb_status stringTensorOf(PyObject* t, const tb_convert_options* options, PyObject** out) {
  *out = nullptr;
  tb_strings* opened = nullptr;
  tb_status status = tb_py_strings_from_tf(t, &opened);
  if (status != TB_OK) return status;
  const StringsPointer strings(opened);
  Owned bytes;
  Owned offsets;
  status = tb_py_strings_to_torch(opened, options, bytes.out(), offsets.out());
  if (status != TB_OK) return status;
  PyObject* type = hooks::string_tensor.get();
  const Owned size(type == nullptr ? nullptr : sizeOf(opened));
  if (size) *out = stringTensor(type, bytes.get(), offsets.get(), size.get());
  return TB_OK;
}

PyObject* stringsToTorch(PyObject*, PyObject* const* args, Py_ssize_t nargs, PyObject* names) {
  if (nargs != 1) return wrongCount("strings_to_torch", 1, nargs);
  ParsedToTorchOptions parsed;
  if (!ensureReady() || !parseToTorchOptions(names, args + nargs, kDenseOnly, &parsed))
    return nullptr;
  PyObject* made = nullptr;
  const tb_status status = stringTensorOf(args[0], &parsed.options, &made);
  return status == TB_OK ? made : raiseStatus(status);
}

PyObject* explainStringsToTorch(PyObject*, PyObject* const* args, Py_ssize_t nargs,
                                PyObject* names) {
  if (nargs != 1) return wrongCount("explain_strings_to_torch", 1, nargs);
  ParsedToTorchOptions parsed;
  if (!ensureReady() || !parseToTorchOptions(names, args + nargs, kDenseOnly, &parsed))
    return nullptr;
  StringsPointer strings;
  if (!openTf(args[0], &strings)) return nullptr;
  auto explanation = sized<tb_explanation>();
  const tb_status status = tb_strings_explain(strings.get(), &parsed.options, &explanation);
  return status == TB_OK ? explanationTuple(explanation, tb_strings_shape(strings.get()))
                         : raiseStatus(status);
}

PyObject* explainStringsToTf(PyObject*, PyObject* const* args, Py_ssize_t nargs, PyObject* names) {
  if (nargs != 3) return wrongCount("explain_strings_to_tf", 3, nargs);
  ParsedToTfOptions parsed;
  if (!parseToTfOptions(names, args + nargs, kDenseOnly, &parsed)) return nullptr;
  StringsPointer strings;
  if (!openTorch(args, &strings)) return nullptr;
  auto explanation = sized<tb_explanation>();
  const tb_status status = tb_strings_explain_back(strings.get(), &parsed.options, &explanation);
  return status == TB_OK ? explanationTuple(explanation, tb_strings_shape(strings.get()))
                         : raiseStatus(status);
}

PyObject* tfStringsList(PyObject*, PyObject* t) {
  StringsPointer strings;
  return openTf(t, &strings) ? nestedList(strings, BytesMaker()) : nullptr;
}

PyObject* torchStringsList(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  if (nargs != 5) return wrongCount("torch_strings_list", 5, nargs);
  StringsPointer strings;
  if (!openTorch(args, &strings)) return nullptr;
  if (args[3] == Py_None) return nestedList(strings, BytesMaker());
  const char* encoding = asText(args[3]);
  const char* errors = encoding == nullptr ? nullptr : asText(args[4]);
  return errors == nullptr ? nullptr : nestedList(strings, StrMaker(encoding, errors));
}

PyObject* stringsToTf(PyObject*, PyObject* const* args, Py_ssize_t nargs, PyObject* names) {
  if (nargs != 3) return wrongCount("strings_to_tf", 3, nargs);
  ParsedToTfOptions parsed;
  if (!ensureBothReady() || !parseToTfOptions(names, args + nargs, kDenseOnly, &parsed)) {
    return nullptr;
  }
  StringsPointer strings;
  if (!openTorch(args, &strings)) return nullptr;
  PyObject* result = nullptr;
  const tb_status status = tb_py_strings_to_tf(strings.get(), &parsed.options, &result);
  return status == TB_OK ? result : raiseStatus(status);
}

}  // namespace tensor_bridge::python
