// TFRecord files: consecutive records, each with its length and checksums of the length and of the
// bytes. Not for: compressed files, the contents of records (formats/example.h).
//
// The format: tensorflow/core/lib/io/record_writer.h.
#ifndef TENSOR_BRIDGE_FORMATS_TFRECORD_H_
#define TENSOR_BRIDGE_FORMATS_TFRECORD_H_

#include <cstddef>
#include <cstdint>

namespace tensor_bridge {

constexpr int64_t kRecordHeader = 12;  // length, its checksum
constexpr int64_t kRecordFooter = 4;   // checksum of the bytes

enum class RecordFault : int32_t {
  kNone = 0,
  kTruncated = 1,    // the file ends within the record
  kLengthCheck = 2,  // the length does not match its checksum
  kDataCheck = 3,    // the bytes do not match their checksum
};

/// The record at an offset.
struct RecordAt {
  RecordFault fault = RecordFault::kNone;
  int64_t size = 0;  // bytes of data, which follow the header; unknown after kLengthCheck
  int64_t end = 0;   // end of the record; past the end of the memory if kTruncated
};

/// The record at offset `at`. Its length's checksum is compared, that of its bytes is not.
RecordAt recordAt(const uint8_t* data, int64_t size, int64_t at) noexcept;

/// Compares the checksum of the bytes of a record that recordAt() found without a fault. `ahead` is
/// where the next record is that will be read, or null.
void checkBytes(const uint8_t* data, const void* ahead, RecordAt* record) noexcept;

/// Finds records in part of a file, from front to back. Each call continues where the last one
/// ended. The memory may change between calls: the caller may drop bytes before `next` and append
/// later bytes, and then sets `next` to its offset in the new memory.
struct RecordScan {
  // Options.
  bool verify = true;  // compare the checksums of bytes
  bool skip = false;   // continue after damage
  bool final = true;   // the file ends where the memory does
  // The position.
  int64_t next = 0;
  bool searching = false;  // `next` is within damage; search for the next intact record
  // Where a length's checksum matches, a search reads as many bytes as that length says. Crafted
  // lengths could make that quadratic: after this many bytes without a record, the rest of the file
  // is skipped.
  int64_t budget = int64_t{1} << 34;
  // The result.
  RecordFault fault = RecordFault::kNone;  // without `skip`: at `next`; with it: the first fault
  int64_t fault_at = -1;                   // its offset
  int64_t skipped_records = 0;             // stretches of damage
  int64_t skipped_bytes = 0;

  /// Writes the beginnings (after the headers) and sizes of at most `most` records. Returns their
  /// number. It is less than `most` at the end, at a fault, and, unless `final`, at an incomplete
  /// record.
  int64_t scan(const uint8_t* data, int64_t size, int64_t most, int64_t* begins,
               int64_t* sizes) noexcept;

 private:
  bool passDamage(const uint8_t* data, int64_t size, RecordAt record) noexcept;
  bool search(const uint8_t* data, int64_t size) noexcept;
};

/// A set of files whose records are numbered consecutively.
struct RecordFiles {
  const uint8_t* const* data = nullptr;  // each file's bytes; null: not mapped yet
  const int64_t* sizes = nullptr;        // each file's size
  const int64_t* ends = nullptr;         // for each file: the number of records up to its end
  int64_t count = 0;                     // number of files
  const int64_t* offsets = nullptr;      // each record's offset in its file
};

/// The offset of a record in the file with this index.
struct RecordPlace {
  int64_t file = 0;
  int64_t offset = 0;
  int64_t size = -1;  // bytes of data; below 0: not known yet
};

/// The place of the record with this number, which must be below the last of `ends`.
RecordPlace placeOf(const RecordFiles& files, int64_t number) noexcept;

/// The record at a place of a file that is in memory. `ahead`: as for checkBytes(), if `verify`.
RecordAt recordAt(const RecordFiles& files, RecordPlace place, bool verify,
                  const void* ahead) noexcept;

/// Goes through the records of files in order, by their lengths; the numbers and offsets of records
/// are not needed.
class RecordWalk {
 public:
  explicit RecordWalk(const RecordFiles& files) : files_(files) {}

  /// Writes the place of the next record; false at the end. Where a fault is written, the rest of
  /// that file is left out.
  bool next(RecordPlace* place, RecordFault* fault) noexcept;

 private:
  RecordFiles files_;
  RecordPlace at_;
};

/// Writes consecutive records with lengths and checksums to `out`, which must have room for
/// kRecordHeader + size + kRecordFooter bytes of each.
void frameRecords(const uint8_t* base, const int64_t* begins, const int64_t* sizes, int64_t count,
                  uint8_t* out) noexcept;

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_FORMATS_TFRECORD_H_
