// TensorFlow's tables, in LevelDB's format: records in ascending order of their keys, in blocks,
// with an index block of handles and a footer. Not for: the content of the records (bundle.h,
// v1_checkpoint.h).
//
// The format: https://github.com/google/leveldb/blob/main/doc/table_format.md, and in TensorFlow
// tensorflow/core/lib/io/format.cc and block.cc.
#ifndef TENSOR_BRIDGE_FORMATS_TABLE_H_
#define TENSOR_BRIDGE_FORMATS_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "formats/format_error.h"
#include "formats/wire.h"

namespace tensor_bridge {

/// Bytes of the file with a checksum: a block as stored, packed or not.
struct TableBlock {
  int64_t offset;
  int64_t size;
  uint32_t crc32c;  // masked
};

/// The place of a block in the file.
struct BlockHandle {
  uint64_t offset = 0;
  uint64_t size = 0;  // without the trailer
};

/// The records of one block, with complete keys: a stored key omits the prefix that it shares with
/// the one before.
class BlockReader {
 public:
  BlockReader() = default;
  /// `unpacked`: the memory of `records` if they are not in the file; `unpacked_bytes` is its size,
  /// else 0.
  BlockReader(WireReader records, const Origin& origin, std::unique_ptr<uint8_t[]> unpacked,
              size_t unpacked_bytes)
      : records_(records),
        origin_(origin),
        unpacked_(std::move(unpacked)),
        unpacked_bytes_(unpacked_bytes) {}

  /// Moves to the next record; the first call moves to the first. False after the last one. Throws
  /// FormatError.
  bool next();

  const std::string& key() const noexcept { return key_; }
  /// Lives as long as this reader, or the file if the block is not packed.
  WireReader value() const noexcept { return value_; }
  /// Of the bytes of value().
  const Origin& origin() const noexcept { return origin_; }
  size_t unpackedBytes() const noexcept { return unpacked_bytes_; }

 private:
  WireReader records_;
  WireReader value_;
  std::string key_;
  Origin origin_;
  std::unique_ptr<uint8_t[]> unpacked_;
  size_t unpacked_bytes_ = 0;
};

/// Opens a block of the file at `data`. The caller has checked that the handle is inside the file.
/// Throws FormatError.
BlockReader openBlock(const uint8_t* data, const BlockHandle& handle);

/// Iterates over a table of `size` bytes in memory. Blocks that Snappy packed are unpacked one at a
/// time, into at most 22 times their size; others are read in place. maxKeyBytes() limits the size
/// of all keys. Checksums are not compared. All members except the accessors throw FormatError for
/// an impossible table.
class TableReader {
 public:
  /// Reads the footer. `data` outlives the reader.
  TableReader(const uint8_t* data, size_t size);

  /// Moves to the next record; the first call moves to the first of the table. False after the last
  /// one.
  bool next();

  const std::string& key() const noexcept { return block_.key(); }
  /// Of the record, until the reader moves on.
  WireReader value() const noexcept { return block_.value(); }
  const Origin& origin() const noexcept { return block_.origin(); }
  /// The block of the record.
  const BlockHandle& block() const noexcept { return block_handle_; }

  /// Bytes that packed blocks have unpacked to so far.
  uint64_t unpackedBytes() const noexcept { return unpacked_bytes_; }

  /// Limit of the bytes of all keys so far. A stored key omits the prefix that it shares with the
  /// one before, so a record of 4 bytes can repeat a key of any length.
  uint64_t maxKeyBytes() const noexcept;

  /// All blocks of the table, whether they have been read or not.
  std::vector<TableBlock> blocks() const;

 private:
  /// The handles of the index block, in their order.
  struct Handles {
    BlockReader index;
    uint64_t end_of_last = 0;
  };

  BlockHandle readHandle(WireReader* reader, const Origin& origin) const;
  bool next(Handles* handles, BlockHandle* out) const;
  TableBlock stored(const BlockHandle& handle) const;

  const uint8_t* data_;
  size_t size_;
  BlockHandle metaindex_handle_;
  BlockHandle index_handle_;
  Handles handles_;
  BlockHandle block_handle_;
  BlockReader block_;
  uint64_t unpacked_bytes_ = 0;
  uint64_t key_bytes_ = 0;
};

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_FORMATS_TABLE_H_
