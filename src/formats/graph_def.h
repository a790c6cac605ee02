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

/// A node Const. In a function of the graph's library its name is "function/node".
struct GraphConstant {
  std::string name;
  TensorProto tensor;
  TensorExtent extent;  // nowhere: the values have to be decoded
  /// Whether a node reads it as variables are read. Freezing a graph replaces the variable by a
  /// constant and keeps that node; an optimizer may remove it later.
  bool read_as_variable = false;
};

/// Whether the bytes begin as one of these messages. They have no magic number, so the name and the
/// operation of the first node must look like TensorFlow's.
bool isGraph(const uint8_t* data, size_t size);

/// Reads a file of `size` bytes at `data`, for which isGraph() is true. The result refers to
/// `data`. The memory is bounded by a multiple of `size`. Throws FormatError if a node, or the
/// tensor of a constant, is damaged.
std::vector<GraphConstant> readGraphConstants(const uint8_t* data, size_t size);

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_FORMATS_GRAPH_DEF_H_
