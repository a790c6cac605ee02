// TensorFlow's first checkpoint format: a table whose record "" describes the tensors, and whose
// other records hold their slices (tensorflow/core/util/saved_tensor_slice.proto,
// tensor_slice_reader.cc). Not for: names, several files of one checkpoint (Python's
// tensor_bridge.checkpoint).
#ifndef TENSOR_BRIDGE_FORMATS_V1_CHECKPOINT_H_
#define TENSOR_BRIDGE_FORMATS_V1_CHECKPOINT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "formats/table.h"
#include "formats/tensor_proto.h"

namespace tensor_bridge {

/// A tensor, of which this file has some slices.
struct V1Tensor {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<int64_t> slices;  // as BundleEntry has them; empty for a scalar
  int32_t num_slices = 0;       // 1 for a scalar
  int32_t dtype = 0;            // TensorFlow's DataType
};

struct V1Index {
  std::vector<V1Tensor> tensors;
  std::vector<TableBlock> blocks;
};

/// Reads what a file that is `size` bytes in memory says of its tensors, and none of the slices.
/// Memory and checksums as for readBundleIndex(). Throws FormatError.
V1Index readV1Index(const uint8_t* data, size_t size);

/// The values of one slice, found in the file.
class V1Slice {
 public:
  /// `key` is the slice's, `dtype` and `count` are those of its values. `data` outlives the slice.
  /// Throws FormatError unless there is such a slice with as many values.
  V1Slice(const uint8_t* data, size_t size, std::string_view key, int32_t dtype, int64_t count);

  /// The TensorProto. It lives as long as the slice, or the file if it is not packed.
  WireReader message() const { return values_.message; }

  /// Where the message lies in the file; nowhere if it is in a packed block.
  TensorExtent place() const;

  /// Where the values lie just as in memory; nowhere if they have to be decoded.
  TensorExtent extent() const;

 private:
  int64_t countValues() const;

  TableReader table_;
  TensorProto values_;
};

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_FORMATS_V1_CHECKPOINT_H_
