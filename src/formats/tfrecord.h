// TFRecord files: records one behind the other, each with its length, and checksums of the length
// and of the bytes. Not for: compressed files, what the records hold (formats/example.h).
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
  kLengthCheck = 2,  // the length's checksum is of another length
  kDataCheck = 3,    // the bytes' checksum is of other bytes
};

/// The record at a place.
struct RecordAt {
  RecordFault fault = RecordFault::kNone;
  int64_t size = 0;  // of its bytes, which begin behind the header; not after kLengthCheck
  int64_t end = 0;   // of the record; past the end of the memory if kTruncated
};

/// What is at `at`. `verify`: the bytes' checksum too; the length's always is.
RecordAt recordAt(const uint8_t* data, int64_t size, int64_t at, bool verify) noexcept;

/// Finds records in a stretch of a file, from front to back, in calls that go on where the last one
/// ended. Between two calls the memory may be another one: bytes before `next` may be dropped, and
/// later ones may have been appended; then `next` is counted anew.
struct RecordScan {
  // What is asked for.
  bool verify = true;  // compare the checksums of bytes
  bool skip = false;   // go on behind damage
  bool final = true;   // the file ends where the memory does
  // The position.
  int64_t next = 0;
  bool searching = false;  // `next` is within damage; the next record that checks is looked for
  // A search reads each place's bytes that a length there claims. Chosen lengths could make that
  // quadratic; when this many bytes have been read in vain, the rest of the file is skipped.
  int64_t budget = int64_t{1} << 34;
  // What was found.
  RecordFault fault = RecordFault::kNone;  // without `skip`: at `next`; else the first one, ...
  int64_t fault_at = -1;                   // ... and its place
  int64_t skipped_records = 0;             // stretches of damage
  int64_t skipped_bytes = 0;

  /// Writes where at most `most` records begin (behind their headers) and their sizes. Returns how
  /// many. Fewer: the end, a fault, or, unless `final`, a record that is not there as a whole.
  int64_t scan(const uint8_t* data, int64_t size, int64_t most, int64_t* begins,
               int64_t* sizes) noexcept;

 private:
  bool passDamage(const uint8_t* data, int64_t size, RecordAt record) noexcept;
  bool search(const uint8_t* data, int64_t size) noexcept;
};

/// A record of a set of files, by its number.
struct RecordFiles {
  const uint8_t* const* data = nullptr;  // of each file; null: not mapped yet
  const int64_t* sizes = nullptr;
  const int64_t* ends = nullptr;  // number of the first record that is not in it
  int64_t count = 0;
  const int64_t* offsets = nullptr;  // of each record in its file
};

/// Where record `number`, which is below the last of `ends`, is. `file` is set also for faults.
RecordAt recordOf(const RecordFiles& files, int64_t number, bool verify, int64_t* file) noexcept;

/// Writes records, each with lengths and checksums, one behind the other: their sizes and
/// kRecordHeader + kRecordFooter bytes for each.
void frameRecords(const uint8_t* base, const int64_t* begins, const int64_t* sizes, int64_t count,
                  uint8_t* out) noexcept;

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_FORMATS_TFRECORD_H_
