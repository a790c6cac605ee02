// A plan: what Python values the columns of parsed records become, worked out once for a spec.
// Not for: parsing (example.cc), features that are more than a column (records/_spec_parser.py).
#ifndef TENSOR_BRIDGE_EXTENSION_EXAMPLE_PLAN_H_
#define TENSOR_BRIDGE_EXTENSION_EXAMPLE_PLAN_H_

#include <Python.h>

#include <cstdint>
#include <vector>

#include "c_api/private_api.h"
#include "extension/object.h"

namespace tensor_bridge::python {

/// Sizes of a tensor, on the stack.
struct Dims {
  static constexpr int32_t kMost = 254;  // TensorFlow's TensorShape::MaxDimensions()
  int64_t sizes[kMost];
  int32_t count = 0;

  Dims() {}
  explicit Dims(int64_t size) { push(size); }
  void push(int64_t size) { sizes[count++] = size; }
};

class ExamplePlan {
 public:
  /// The plan in a capsule of examplePlan(). Null with an exception set for another object.
  static ExamplePlan* of(PyObject* capsule);

  /// Reads the arguments of examplePlan(); false with an exception set.
  bool read(PyObject* columns, int64_t form, PyObject* string_tensor, PyObject* size);

  /// The value of a batch in the plan's form; null with an exception set. `single`: without the
  /// leading dimension, for a batch of one record in the form kDict.
  PyObject* value(tb_parsed_batch* batch, int64_t count, bool single);

 private:
  // kColumns: a list of (values, index, lengths, most rows, most values).
  enum Form : int64_t { kColumns = 0, kDict = 1, kFirst = 2 };
  enum Kind : int64_t { kFixed = 0, kPadded = 1, kSparse = 2, kRagged = 3 };

  struct Column {
    Owned key;
    int64_t kind = kFixed;
    bool in_lists = false;
    std::vector<int64_t> shape;  // of a record (kFixed), of a row (kPadded)
    // The torch.Size of the latest strings; most batches have as many.
    Owned size;
    std::vector<int64_t> sizes;
  };

  PyObject* values(tb_parsed_batch* batch, int64_t index, const tb_parsed_column& column,
                   int64_t count, bool single);
  PyObject* strings(Column* column, PyObject* bytes, PyObject* offsets, const Dims& shape);
  PyObject* columnTuple(tb_parsed_batch* batch, int64_t index, const tb_parsed_column& column,
                        int64_t count);

  int64_t form_ = kColumns;
  std::vector<Column> columns_;
  Owned string_tensor_;
  Owned size_;
};

/// example_plan(columns, form, StringTensor, torch.Size) -> capsule; _C.pyi says what the columns
/// are.
PyObject* examplePlan(PyObject* module, PyObject* const* args, Py_ssize_t nargs);

}  // namespace tensor_bridge::python

#endif  // TENSOR_BRIDGE_EXTENSION_EXAMPLE_PLAN_H_
