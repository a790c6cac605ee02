// TensorFlow's checkpoint format, the tensor bundle: reads the index file, and finds the strings of
// an entry. Not for: opening files, the data files, names of objects (Python's
// tensor_bridge.checkpoint).
#ifndef TENSOR_BRIDGE_FORMATS_BUNDLE_H_
#define TENSOR_BRIDGE_FORMATS_BUNDLE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "formats/table.h"

namespace tensor_bridge {

/// One record of the index. A partitioned variable has one record for the whole, with slices and
/// without data, and one for each slice, whose key encodes the name and the slice.
struct BundleEntry {
  std::string key;
  std::vector<int64_t> shape;
  std::vector<int64_t> slices;  // for each slice ndim pairs (start, length); length -1: all of it
  int64_t offset = 0;           // in the data file of the shard
  int64_t size = 0;
  int32_t dtype = 0;  // TensorFlow's DataType
  int32_t shard = 0;
  uint32_t crc32c = 0;  // masked
};

struct BundleIndex {
  std::vector<BundleEntry> entries;  // ascending by key
  std::vector<TableBlock> blocks;
  int32_t num_shards = 0;
};

/// Reads an index file of `size` bytes in memory. The result does not refer to `data`. The memory
/// is bounded by a multiple of `size` for any content (22 times as large if Snappy packed the
/// blocks). Checksums are returned, not compared. Throws FormatError unless every length, offset,
/// shape and shard is possible. The caller must check that the data files are long enough.
BundleIndex readBundleIndex(const uint8_t* data, size_t size);

/// Finds the strings of an entry in its `size` bytes: string i is the bytes from begin + offsets[i]
/// to begin + offsets[i + 1]. `offsets` has room for count + 1. Returns `begin`; the 4 bytes before
/// it are the masked checksum of the lengths. Throws FormatError, with an offset from `data`,
/// unless the strings fill the bytes exactly.
int64_t readBundleStrings(const uint8_t* data, size_t size, int64_t count, int64_t* offsets);

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_FORMATS_BUNDLE_H_
