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

/// How the values of a tensor lie in a way that only a newer or a special reader understands.
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
  // real value = scale * (stored value - zero point): one of each, or one for each index of axis.
  std::vector<double> scales;
  std::vector<int64_t> zero_points;
  int32_t axis = 0;
  TfliteStorage storage = TfliteStorage::kPlain;
};

/// Whether the bytes begin as a model does.
bool isTflite(const uint8_t* data, size_t size);

/// Reads a model of `size` bytes at `data`: the tensors with values, in the order of the file.
/// Nothing refers to `data` afterwards. What it allocates is bounded by a multiple of `size`.
/// Throws FormatError for a file whose offsets lead out of it, or with a tensor whose values or
/// quantization do not fit its shape.
std::vector<TfliteTensor> readTflite(const uint8_t* data, size_t size);

/// Values of 2 or 4 bits, lowest first, one a byte: `count` of them from `data` to `out`, upper
/// bits zero.
void unpackTflite(const uint8_t* data, int32_t bits, int64_t count, uint8_t* out);

/// Where the strings of a tensor lie in its `size` bytes: string i from offsets[i] to
/// offsets[i + 1]; `offsets` has room for count + 1. Throws FormatError, with an offset from
/// `data`, unless there are `count` strings inside the bytes, one behind the other.
void readTfliteStrings(const uint8_t* data, size_t size, int64_t count, int64_t* offsets);

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_FORMATS_TFLITE_H_
