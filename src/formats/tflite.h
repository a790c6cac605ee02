// TensorFlow Lite's models (tensorflow/lite/schema/schema.fbs): the tensors whose values are in the
// file. Not for: operators, torch's quantized tensors.
#ifndef TENSOR_BRIDGE_FORMATS_TFLITE_H_
#define TENSOR_BRIDGE_FORMATS_TFLITE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "formats/format_error.h"
#include "formats/tensor_proto.h"

namespace tensor_bridge {

/// How the values of a tensor are stored. All but the first are refused when they are read.
enum class TfliteStorage : int32_t { kPlain, kSparse, kExternal, kOtherQuantization };

struct TfliteTensor {
  std::string name;
  std::string subgraph;  // its name, "" where it has none
  int32_t subgraph_index = 0;
  int32_t dtype = 0;  // TensorFlow's DataType; 0: of a type that is not known
  int32_t type = 0;   // TensorType of the schema
  int32_t bits = 0;   // of an element; 0 for strings and types that are not known
  std::vector<int64_t> shape;
  TensorExtent data;
  // real value = scale * (stored value - zero point); one of each, or one for each index of axis.
  std::vector<double> scales;
  std::vector<int64_t> zero_points;
  int32_t axis = 0;
  TfliteStorage storage = TfliteStorage::kPlain;
};

/// Whether the bytes begin as a model.
bool isTflite(const uint8_t* data, size_t size);

/// Reads a model of `size` bytes at `data`: the tensors with values, in the order of the file.
/// The result does not refer to `data`. The memory is bounded by a multiple of `size`. Throws
/// FormatError if an offset leaves the file, or if the values or the quantization of a tensor do
/// not fit its shape.
std::vector<TfliteTensor> readTflite(const uint8_t* data, size_t size);

/// Unpacks `count` values of 2 or 4 bits, lowest first, from `data` to `out`, one in each byte,
/// with upper bits zero.
void unpackTflite(const uint8_t* data, int32_t bits, int64_t count, uint8_t* out);

/// Finds the strings of a tensor in its `size` bytes: string i is the bytes from offsets[i] to
/// offsets[i + 1]; `offsets` has room for count + 1. Throws FormatError, with an offset from
/// `data`, unless the bytes contain `count` consecutive strings.
void readTfliteStrings(const uint8_t* data, size_t size, int64_t count, int64_t* offsets);

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_FORMATS_TFLITE_H_
