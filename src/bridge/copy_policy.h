// The one refusal of a copy. Not for: deciding that a copy is needed (to_torch, to_tf, strings).
#ifndef TENSOR_BRIDGE_BRIDGE_COPY_POLICY_H_
#define TENSOR_BRIDGE_BRIDGE_COPY_POLICY_H_

#include <cstdint>

#include "core/error.h"
#include "tensor_bridge/c_api.h"

namespace tensor_bridge {

/// Throws Error{kCopyRequired} if `copy` is TB_COPY_NEVER. `why` tells why a copy is needed,
/// `advice` what to do instead.
inline void requireCopyAllowed(int32_t copy, const char* why,
                               const char* advice = "Use copy=None") {
  if (copy != TB_COPY_NEVER) return;
  throwError(ErrorCode::kCopyRequired, "copy=False, but a copy is needed: %s. %s", why, advice);
}

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_BRIDGE_COPY_POLICY_H_
