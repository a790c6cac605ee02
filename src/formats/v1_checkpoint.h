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

/// A tensor; this file has some of its slices.
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

/// Reads the descriptions of the tensors from a file of `size` bytes in memory, not the slices.
/// Memory and checksums are as for readBundleIndex(); TableReader::maxKeyBytes() limits the keys of
/// the slices too. Throws FormatError.
V1Index readV1Index(const uint8_t* data, size_t size);

/// Finds the records of one file by their keys, from any thread. The first look-up reads the table.
/// A packed block is unpacked a few times and then kept, so the time of all look-ups is bounded by
/// their number and the file, and the memory by what the file unpacks to.
class V1Records {
 public:
  /// A message in the file, or in a packed block, which it keeps alive.
  struct Record {
    WireReader value;
    Origin origin;
    std::shared_ptr<const BlockReader> block;
  };

  /// Returns the record of this key. The file is `size` bytes in memory, the same at each call.
  /// Throws FormatError if there is none.
  Record find(const uint8_t* data, size_t size, std::string_view key);

 private:
  /// Offsets in the file, or in the unpacked block.
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
  /// `records` belong to the file; `key`, `dtype` and `count` belong to the slice. `data` outlives
  /// the slice. Throws FormatError unless there is such a slice with `count` values.
  V1Slice(V1Records* records, const uint8_t* data, size_t size, std::string_view key, int32_t dtype,
          int64_t count);

  /// The TensorProto, valid as long as the slice, or as the file if it is not packed.
  WireReader message() const { return values_.message; }

  /// The range of the message in the file; nowhere if it is in a packed block.
  TensorExtent place() const;

  /// The range of the values if they are stored as in memory; nowhere if they have to be decoded.
  TensorExtent extent() const;

 private:
  int64_t countValues() const;

  V1Records::Record record_;
  TensorProto values_;
};

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_FORMATS_V1_CHECKPOINT_H_
