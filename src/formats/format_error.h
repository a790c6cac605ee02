// FormatError: a file that says something impossible, and where. Not for: files that cannot be
// opened; who opens them says so.
#ifndef TENSOR_BRIDGE_FORMATS_FORMAT_ERROR_H_
#define TENSOR_BRIDGE_FORMATS_FORMAT_ERROR_H_

#include <cstdint>
#include <string>
#include <utility>

#include "tensor_bridge/error.h"

namespace tensor_bridge {

/// Error{kCheckpoint} with the place in the file, and the entry if it is known.
class FormatError : public Error {
 public:
  FormatError(int64_t offset, std::string entry, const std::string& message)
      : Error(ErrorCode::kCheckpoint, message), offset_(offset), entry_(std::move(entry)) {}
  int64_t offset() const noexcept { return offset_; }
  const std::string& entry() const noexcept { return entry_; }

 private:
  int64_t offset_;
  std::string entry_;
};

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_FORMATS_FORMAT_ERROR_H_
