// ProtobufReader: what the readers of protobuf messages share. Not for: the encoding of a single
// value (formats/wire.h), what a message means.
#ifndef TENSOR_BRIDGE_FORMATS_PROTOBUF_READER_H_
#define TENSOR_BRIDGE_FORMATS_PROTOBUF_READER_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "formats/format_error.h"
#include "formats/wire.h"

namespace tensor_bridge {

/// The base of a reader of a file in memory. Every failure is a FormatError with the offset from
/// the file's first byte (as `Origin` has it) and the entry at hand.
class ProtobufReader {
 public:
  /// `file` is the first byte; `entry` what errors name.
  explicit ProtobufReader(const uint8_t* file, std::string entry = "")
      : data_(file), entry_(std::move(entry)) {}

 protected:
  [[noreturn]] __attribute__((format(printf, 3, 4))) void fail(const uint8_t* place,
                                                               const char* format, ...) const;

  /// Calls visit(number, wire type, &reader) for each field; visit reads or skips the value and
  /// says whether it could.
  template <typename Visit>
  void eachField(WireReader message, const char* what, Visit visit) const {
    while (!message.done()) {
      const uint8_t* place = message.next();
      uint32_t number = 0;
      uint32_t type = 0;
      if (!message.field(&number, &type) || !visit(number, type, &message)) {
        fail(place, "expected %s as a protobuf message, got something else", what);
      }
    }
  }

  /// Appends the sizes of a TensorShapeProto; one of unknown rank or size is refused.
  void readShape(WireReader message, std::vector<int64_t>* shape) const;

  /// Appends the extents of a TensorSliceProto: for each axis of `shape` a pair (start, length),
  /// which is inside of it; length -1: all of the axis.
  void readSlice(WireReader message, const std::vector<int64_t>& shape,
                 std::vector<int64_t>* slices) const;

  /// Number of elements; not more than an int64 of 64-byte elements can count.
  int64_t elements(const std::vector<int64_t>& shape, const uint8_t* place) const;

  const uint8_t* data_;     // the file, or what was unpacked from it
  int64_t packed_at_ = -1;  // from where, if so
  std::string entry_;
};

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_FORMATS_PROTOBUF_READER_H_
