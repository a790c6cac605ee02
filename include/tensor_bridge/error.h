// The exception of the C++ SDK: tensor_bridge::Error, with the C ABI's status as its code.
// Not for: C callers (tb_last_error) or Python (tensor_bridge.errors).
#ifndef TENSOR_BRIDGE_ERROR_H_
#define TENSOR_BRIDGE_ERROR_H_

#include <stdexcept>
#include <string>

#include "tensor_bridge/c_api.h"

namespace tensor_bridge {

enum class ErrorCode : tb_status {
  kOk = TB_OK,
  kInvalidOption = TB_INVALID_OPTION,
  kUnsupportedDtype = TB_UNSUPPORTED_DTYPE,
  kUnsupportedType = TB_UNSUPPORTED_TYPE,
  kSymbolicTensor = TB_SYMBOLIC_TENSOR,
  kCopyRequired = TB_COPY_REQUIRED,
  kUnsupportedDevice = TB_UNSUPPORTED_DEVICE,
  kInvalidHandle = TB_INVALID_HANDLE,
  kTensorFlow = TB_TENSORFLOW,
  kTorch = TB_TORCH,
  kFramework = TB_FRAMEWORK,
  kOutOfMemory = TB_OUT_OF_MEMORY,
  kInternal = TB_INTERNAL,
  kValueOutOfRange = TB_VALUE_OUT_OF_RANGE,
  kCheckpoint = TB_CHECKPOINT,
  kUnsupportedFile = TB_UNSUPPORTED_FILE,
};

/// Every function of the C++ SDK that can fail throws it. what() says what was expected, what the
/// call got, and what to do.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

namespace detail {

/// Turns a status of the C ABI into an Error.
inline void throwIfFailed(tb_status status) {
  if (status != TB_OK) throw Error(static_cast<ErrorCode>(status), tb_last_error());
}

}  // namespace detail
}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ERROR_H_
