#include "adapters/tensorflow/handles.h"

#include <string>

#include "core/error.h"

namespace tensor_bridge {

void throwStatus(const TfApi& api, TF_Status* status, const char* what) {
  const std::string message = api.TF_Message(status);
  resetStatus(api, status);
  throwError(ErrorCode::kTensorFlow, "%s: %s", what, message.c_str());
}

}  // namespace tensor_bridge
