// tb_data_element: one element of a dataset as torch tensors, a flat list of slots, made from the
// outputs of a DatasetIterator. Not for: threads (dataset_stream.h), or the nesting of the element,
// which Python restores.
#ifndef TENSOR_BRIDGE_BRIDGE_DATASET_ELEMENT_H_
#define TENSOR_BRIDGE_BRIDGE_DATASET_ELEMENT_H_

#include <vector>

#include "adapters/tensorflow/dataset_iterator.h"
#include "adapters/torch_abi.h"
#include "bridge/strings.h"
#include "c_api/private_api.h"

namespace tensor_bridge {

/// Owns exactly one of: a tensor, with a shape if it holds the bytes of strings; strings in
/// TensorFlow's memory; a handle for an eager tensor.
struct DataSlot {
  tb_torch_tensor* tensor = nullptr;
  TfeHandle handle;
  StringsPointer strings;
  std::vector<int64_t> shape;
};

/// The kinds of the outputs, and the options of their conversion.
struct DataPlan {
  std::vector<tb_data_component> components;
  size_t num_slots = 0;
  bool string_lists = false;
  /// No options were given, so the common conversion may use the fast path.
  bool defaults = true;
  tb_convert_options values;
  /// Row splits and indices keep their dtype, and writes never go through to TensorFlow.
  tb_convert_options structural;
};

/// Throws Error{kInvalidOption}. The arrays that `options` points to are not kept.
DataPlan makeDataPlan(const tb_data_options& options);

}  // namespace tensor_bridge

struct tb_data_element {
  tb_data_element() = default;
  ~tb_data_element();
  tb_data_element(const tb_data_element&) = delete;
  tb_data_element& operator=(const tb_data_element&) = delete;

  std::vector<tensor_bridge::DataSlot> slots;
  int64_t nbytes = 0;
};

namespace tensor_bridge {

/// Converts; takes the outputs that the element keeps from `outputs`. Needs no GIL. Throws Error.
void fillElement(const DataPlan& plan, DatasetIterator* iterator, HandleList* outputs,
                 tb_data_element* element);

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_BRIDGE_DATASET_ELEMENT_H_
