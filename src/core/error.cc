#include "core/error.h"

#include <cstdarg>
#include <cstdio>
#include <new>
#include <vector>

namespace tensor_bridge {
namespace {

thread_local struct {
  std::string text;
  tb_status status = TB_OK;
  // Used instead of `text` if there was no memory for it.
  const char* fallback = nullptr;
} t_last;

std::string formatVa(const char* format, va_list args) {
  va_list copy;
  va_copy(copy, args);
  const int size = std::vsnprintf(nullptr, 0, format, copy);
  va_end(copy);
  if (size < 0) return format;
  std::string text(static_cast<size_t>(size) + 1, '\0');
  std::vsnprintf(text.data(), text.size(), format, args);
  text.resize(static_cast<size_t>(size));
  return text;
}

}  // namespace

tb_status setLastError(tb_status code, const char* message) noexcept {
  try {
    t_last.status = code;
    t_last.text = message;
    t_last.fallback = nullptr;
  } catch (...) {
    t_last.fallback = "no memory for the message of this error";
  }
  return code;
}

const char* lastError() noexcept {
  return t_last.fallback != nullptr ? t_last.fallback : t_last.text.c_str();
}

tb_status lastStatus() noexcept { return t_last.status; }

void rethrowLastError() { throw Error(static_cast<ErrorCode>(t_last.status), lastError()); }

tb_status setLastErrorFromException() noexcept {
  try {
    throw;
  } catch (const Error& e) {
    return setLastError(static_cast<tb_status>(e.code()), e.what());
  } catch (const std::bad_alloc&) {
    return setLastError(TB_OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception& e) {
    return setLastError(TB_INTERNAL, e.what());
  } catch (...) {
    return setLastError(TB_INTERNAL, "unknown exception");
  }
}

void throwError(ErrorCode code, const char* format, ...) {
  va_list args;
  va_start(args, format);
  std::string text;
  try {
    text = formatVa(format, args);
  } catch (...) {
    va_end(args);
    throw;
  }
  va_end(args);
  throw Error(code, text);
}

std::string formatted(const char* format, ...) {
  va_list args;
  va_start(args, format);
  std::string text = formatVa(format, args);
  va_end(args);
  return text;
}

const char* statusName(tb_status status) noexcept {
  switch (status) {
    case TB_OK:
      return "OK";
    case TB_INVALID_OPTION:
      return "INVALID_OPTION";
    case TB_UNSUPPORTED_DTYPE:
      return "UNSUPPORTED_DTYPE";
    case TB_UNSUPPORTED_TYPE:
      return "UNSUPPORTED_TYPE";
    case TB_SYMBOLIC_TENSOR:
      return "SYMBOLIC_TENSOR";
    case TB_COPY_REQUIRED:
      return "COPY_REQUIRED";
    case TB_UNSUPPORTED_DEVICE:
      return "UNSUPPORTED_DEVICE";
    case TB_INVALID_HANDLE:
      return "INVALID_HANDLE";
    case TB_TENSORFLOW:
      return "TENSORFLOW";
    case TB_TORCH:
      return "TORCH";
    case TB_FRAMEWORK:
      return "FRAMEWORK";
    case TB_OUT_OF_MEMORY:
      return "OUT_OF_MEMORY";
    case TB_INTERNAL:
      return "INTERNAL";
    case TB_VALUE_OUT_OF_RANGE:
      return "VALUE_OUT_OF_RANGE";
    case TB_CHECKPOINT:
      return "CHECKPOINT";
    case TB_UNSUPPORTED_FILE:
      return "UNSUPPORTED_FILE";
    default:
      return "UNKNOWN";
  }
}

}  // namespace tensor_bridge
