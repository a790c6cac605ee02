// ProtobufReader: the common base of readers of protobuf messages. Not for: the encoding of a
// single value (formats/wire.h), the meaning of a message.
#ifndef TENSOR_BRIDGE_FORMATS_PROTOBUF_READER_H_
#define TENSOR_BRIDGE_FORMATS_PROTOBUF_READER_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "formats/format_error.h"
#include "formats/wire.h"

namespace tensor_bridge {

/// The base of a reader of a file in memory. Every failure is a FormatError with the offset in the
/// file (see Origin) and the current entry.
class ProtobufReader {
 public:
  /// `file` is the first byte; `entry` what errors name.
  explicit ProtobufReader(const uint8_t* file, std::string entry = "")
      : data_(file), entry_(std::move(entry)) {}

 protected:
  [[noreturn]] __attribute__((format(printf, 3, 4))) void fail(const uint8_t* place,
                                                               const char* format, ...) const;
  /// The file is not damaged; other readers can read it.
  [[noreturn]] void failUnsupported(const uint8_t* place, const std::string& message) const;

  /// Calls visit(number, wire type, &reader) for each field; visit reads or skips the value and
  /// returns whether it could.
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

  /// Checks a VersionDef: throws if the file is for readers of a later version than `known`.
  void checkVersion(WireReader message, uint64_t known) const;

  /// Appends the sizes of a TensorShapeProto. Throws for an unknown rank or size.
  void readShape(WireReader message, std::vector<int64_t>* shape) const;

  /// Appends the extents of a TensorSliceProto: for each axis of `shape` a pair (start, length)
  /// inside it; length -1 is the whole axis.
  void readSlice(WireReader message, const std::vector<int64_t>& shape,
                 std::vector<int64_t>* slices) const;

  /// Returns the number of elements. Throws if the bytes of 64-byte elements would overflow an
  /// int64.
  int64_t elements(const std::vector<int64_t>& shape, const uint8_t* place) const;

  const uint8_t* data_;     // the file, or what was unpacked from it
  int64_t packed_at_ = -1;  // from where, if so
  std::string entry_;
};

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_FORMATS_PROTOBUF_READER_H_
