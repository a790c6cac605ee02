// TensorFlow's first checkpoint format: a table whose record "" describes the tensors, and whose
// other records hold their slices (tensorflow/core/util/saved_tensor_slice.proto,
// tensor_slice_reader.cc). Not for: names, several files of one checkpoint (Python's
// tensor_bridge.checkpoint).
#ifndef TENSOR_BRIDGE_FORMATS_V1_CHECKPOINT_H_
#define TENSOR_BRIDGE_FORMATS_V1_CHECKPOINT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
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
/// Memory and checksums as for readBundleIndex(), and the keys of the slices have the limit of
/// TableReader::maxKeyBytes() too. Throws FormatError.
V1Index readV1Index(const uint8_t* data, size_t size);

/// The records of one file by their keys, for any number of look-ups from any thread. The first one
/// walks over the table. Then the time of all of them follows from their number and from the file:
/// a packed block is unpacked a few times and then kept, so that what is kept is at most what the
/// file unpacks to.
class V1Records {
 public:
  /// A message in the file, or in a packed block, which is alive then.
  struct Record {
    WireReader value;
    Origin origin;
    std::shared_ptr<const BlockReader> block;
  };

  /// The record of this key in the file, which is `size` bytes in memory, the same ones at each
  /// call. Throws FormatError unless there is one.
  Record find(const uint8_t* data, size_t size, std::string_view key);

 private:
  /// Of the bytes in which the record is: the file, or what a packed block unpacks to.
  struct Place {
    size_t key_begin;  // in keys_
    size_t key_size;
    size_t block;  // in blocks_
    size_t begin;
    size_t size;
  };
  struct Block {
    BlockHandle handle;
    bool packed = false;
    int opened = 0;
    std::shared_ptr<const BlockReader> kept;
  };

  void walk(const uint8_t* data, size_t size);
  std::shared_ptr<const BlockReader> unpacked(const uint8_t* data, Block* block);
  std::string_view keyOf(const Place& place) const {
    return std::string_view(keys_).substr(place.key_begin, place.key_size);
  }

  std::mutex mutex_;
  bool walked_ = false;
  std::string keys_;
  std::vector<Place> places_;  // ascending by key
  std::vector<Block> blocks_;
};

/// The values of one slice, found in the file.
class V1Slice {
 public:
  /// `records` are those of the file, `key` is the slice's, `dtype` and `count` are those of its
  /// values. `data` outlives the slice. Throws FormatError unless there is such a slice with as
  /// many values.
  V1Slice(V1Records* records, const uint8_t* data, size_t size, std::string_view key, int32_t dtype,
          int64_t count);

  /// The TensorProto. It lives as long as the slice, or the file if it is not packed.
  WireReader message() const { return values_.message; }

  /// Where the message lies in the file; nowhere if it is in a packed block.
  TensorExtent place() const;

  /// Where the values lie just as in memory; nowhere if they have to be decoded.
  TensorExtent extent() const;

 private:
  int64_t countValues() const;

  V1Records::Record record_;
  TensorProto values_;
};

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_FORMATS_V1_CHECKPOINT_H_
