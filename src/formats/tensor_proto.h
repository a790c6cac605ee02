// TensorProto, the message of one tensor (tensorflow/core/framework/tensor.proto): its description
// and its values. Not for: the messages around it (formats/graph_def.h), dtypes of torch.
#ifndef TENSOR_BRIDGE_FORMATS_TENSOR_PROTO_H_
#define TENSOR_BRIDGE_FORMATS_TENSOR_PROTO_H_

#include <cstdint>
#include <string>
#include <vector>

#include "formats/format_error.h"
#include "formats/wire.h"

namespace tensor_bridge {

/// The description of a tensor. If dtype and shape are stored elsewhere, as in a V1 checkpoint, the
/// caller sets `dtype` and `count`.
///
/// A message of a few bytes may describe a tensor of any size, because missing values at the end
/// repeat the last one. So nothing here allocates memory for values: the caller does, and knows the
/// size first.
struct TensorProto {
  int32_t dtype = 0;  // TensorFlow's DataType; 0: not in the message
  std::vector<int64_t> shape;
  int64_t count = 1;  // elements
  WireReader message;
};

/// A range of bytes in a file.
struct TensorExtent {
  int64_t offset = -1;  // from the file's first byte; -1: nowhere
  int64_t size = 0;
};

/// Reads a message inside the file that begins at `file`. The result refers to the message. Throws
/// FormatError, with an offset from `file` and `entry`, unless it is a TensorProto with a shape
/// that is known and possible.
TensorProto readTensorProto(const uint8_t* file, WireReader message, const std::string& entry);

/// Returns the range of the values if they are stored as in memory; nowhere if they have to be
/// decoded, or if the dtype is not a known dtype of numbers. Throws FormatError if the range cannot
/// be the values.
TensorExtent findTensorValues(const uint8_t* file, const TensorProto& tensor,
                              const std::string& entry);

/// Returns the number of elements in the typed field of the dtype, also for strings; 0 if the
/// message has tensor_content. Throws FormatError for another dtype, or a damaged field.
int64_t countTensorValues(const uint8_t* file, const TensorProto& tensor, const std::string& entry);

/// Writes count elements of the dtype's size to `out`, as TensorFlow does (tensor.cc,
/// FromProtoField): values beyond `count` are ignored, missing ones repeat the last one, and are
/// zeros if there is none. Integers lose their upper bits as in a cast. Throws FormatError for
/// damaged values, or a dtype that is not one of numbers; `out` then has some of the values.
void decodeTensorValues(const uint8_t* file, const TensorProto& tensor, const std::string& entry,
                        uint8_t* out);

/// Returns the bytes of all strings of a tensor of dtype string, including repeated ones. Throws
/// FormatError.
int64_t tensorStringsSize(const uint8_t* file, const TensorProto& tensor, const std::string& entry);

/// Writes count + 1 offsets, and all strings as one block to `out`, which has room for
/// tensorStringsSize(). Missing strings repeat the last one, as for numbers. Throws FormatError.
void decodeTensorStrings(const uint8_t* file, const TensorProto& tensor, const std::string& entry,
                         int64_t* offsets, uint8_t* out);

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_FORMATS_TENSOR_PROTO_H_
