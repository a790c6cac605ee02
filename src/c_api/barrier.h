// The exception barrier around every entry of the C ABI.
// Not for: code that may throw across a C boundary; nothing may.
#ifndef TENSOR_BRIDGE_C_API_BARRIER_H_
#define TENSOR_BRIDGE_C_API_BARRIER_H_

#include "core/error.h"

namespace tensor_bridge {

template <typename Body>
tb_status guarded(Body&& body) noexcept {
  try {
    body();
    return TB_OK;
  } catch (...) {
    return setLastErrorFromException();
  }
}

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_C_API_BARRIER_H_
