// TensorFlow's graphs: the constants of a GraphDef, also of one inside a MetaGraphDef (.meta) or a
// SavedModel (saved_model.pb). Not for: the values of a constant (formats/tensor_proto.h), files.
#ifndef TENSOR_BRIDGE_FORMATS_GRAPH_DEF_H_
#define TENSOR_BRIDGE_FORMATS_GRAPH_DEF_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "formats/tensor_proto.h"

namespace tensor_bridge {

/// A node Const. Of a function in the graph's library the name is "function/node".
struct GraphConstant {
  std::string name;
  TensorProto tensor;
  TensorExtent extent;  // nowhere: the values have to be decoded
  /// Whether a node reads it as variables are read. Those who freeze a graph put a constant in the
  /// place of the variable and leave that node behind; an optimizer may remove it later.
  bool read_as_variable = false;
};

/// Whether the bytes begin as one of those messages. They have no magic number: the name and the
/// operation of a first node have to look as TensorFlow's do.
bool isGraph(const uint8_t* data, size_t size);

/// Reads a file for which isGraph() is true, of `size` bytes at `data`, to which the result refers.
/// What it allocates is bounded by a multiple of `size`. Throws FormatError if a node, or the
/// tensor of a constant, is damaged.
std::vector<GraphConstant> readGraphConstants(const uint8_t* data, size_t size);

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_FORMATS_GRAPH_DEF_H_
