// TensorProto, the message of one tensor (tensorflow/core/framework/tensor.proto): what it says,
// and its values. Not for: the messages around it (formats/graph_def.h), dtypes of torch.
#ifndef TENSOR_BRIDGE_FORMATS_TENSOR_PROTO_H_
#define TENSOR_BRIDGE_FORMATS_TENSOR_PROTO_H_

#include <cstdint>
#include <string>
#include <vector>

#include "formats/format_error.h"
#include "formats/wire.h"

namespace tensor_bridge {

/// A tensor as its message describes it. Where dtype and shape stand elsewhere, as in a V1
/// checkpoint, the caller sets `dtype` and `count`.
///
/// A message of a few bytes may describe a tensor of any size: values that are missing at the end
/// repeat the last one. So nothing here allocates for values; who asks for them brings the memory,
/// and knows its size first.
struct TensorProto {
  int32_t dtype = 0;  // TensorFlow's DataType; 0: not said
  std::vector<int64_t> shape;
  int64_t count = 1;  // elements
  WireReader message;
};

/// Where bytes of a file lie.
struct TensorExtent {
  int64_t offset = -1;  // from the file's first byte; -1: nowhere
  int64_t size = 0;
};

/// Reads a message inside the file that begins at `file`. The result refers to the message. Throws
/// FormatError, with an offset from `file` and `entry`, unless it is a TensorProto with a shape
/// that is known and possible.
TensorProto readTensorProto(const uint8_t* file, WireReader message, const std::string& entry);

/// Where the values lie just as in memory; nowhere if they have to be decoded, or the dtype is not
/// one of numbers that this library knows. Throws FormatError if bytes are there that cannot be the
/// values.
TensorExtent findTensorValues(const uint8_t* file, const TensorProto& tensor,
                              const std::string& entry);

/// How many elements the typed field of the dtype has, strings included; none if tensor_content is
/// there. Throws FormatError for another dtype, or a field that is damaged.
int64_t countTensorValues(const uint8_t* file, const TensorProto& tensor, const std::string& entry);

/// Writes count elements of the dtype's size to `out`, as TensorFlow does (tensor.cc,
/// FromProtoField): values beyond `count` are ignored, missing ones repeat the last one, and are
/// zeros if there is none. Integers lose their upper bits as in a cast. Throws FormatError for
/// values that are damaged or of no dtype of numbers; `out` then has some of the values.
void decodeTensorValues(const uint8_t* file, const TensorProto& tensor, const std::string& entry,
                        uint8_t* out);

/// Bytes of all strings of a tensor of dtype string, repeated ones included. Throws FormatError.
int64_t tensorStringsSize(const uint8_t* file, const TensorProto& tensor, const std::string& entry);

/// Writes count + 1 offsets, and the strings one behind the other to `out`, which has room for
/// tensorStringsSize(). Missing ones as for numbers. Throws FormatError.
void decodeTensorStrings(const uint8_t* file, const TensorProto& tensor, const std::string& entry,
                         int64_t* offsets, uint8_t* out);

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_FORMATS_TENSOR_PROTO_H_
