// FormatError: the content of a file is impossible, and where. Origin: maps bytes in memory to
// places in the file. Not for: files that cannot be opened.
#ifndef TENSOR_BRIDGE_FORMATS_FORMAT_ERROR_H_
#define TENSOR_BRIDGE_FORMATS_FORMAT_ERROR_H_

#include <cstdint>
#include <string>
#include <utility>

#include "tensor_bridge/error.h"

namespace tensor_bridge {

/// Error{kCheckpoint} or {kUnsupportedFile} with the place in the file, and the entry if it is
/// known.
class FormatError : public Error {
 public:
  FormatError(int64_t offset, std::string entry, const std::string& message,
              ErrorCode code = ErrorCode::kCheckpoint)
      : Error(code, message), offset_(offset), entry_(std::move(entry)) {}
  int64_t offset() const noexcept { return offset_; }
  const std::string& entry() const noexcept { return entry_; }

 private:
  int64_t offset_;
  std::string entry_;
};

/// Maps a place in memory to one in the file.
struct Origin {
  const uint8_t* data = nullptr;  // the file's first byte, or the first of bytes unpacked from it
  int64_t packed_at = -1;         // where the packed bytes are in the file; the nearest known place
  int64_t offsetOf(const uint8_t* place) const noexcept {
    return packed_at < 0 ? place - data : packed_at;
  }
};

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_FORMATS_FORMAT_ERROR_H_
