// CApiTest: torch is in use, and a test must not leave owners alive.
// Not for: tests of a process before it uses torch.
#ifndef TENSOR_BRIDGE_TESTS_C_API_FIXTURE_H_
#define TENSOR_BRIDGE_TESTS_C_API_FIXTURE_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/version.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "support/owner_scope.h"
#include "support/tf_tensor.h"
#include "tensor_bridge/c_api.h"

namespace tensor_bridge::testing {

/// The last call must have returned `status`, and left a message with each of `parts`.
inline void expectStatus(tb_status returned, tb_status status,
                         const std::vector<std::string>& parts) {
  EXPECT_STREQ(tb_status_name(returned), tb_status_name(status)) << tb_last_error();
  for (const std::string& part : parts) EXPECT_THAT(tb_last_error(), ::testing::HasSubstr(part));
}

template <auto release>
struct Release {
  template <typename T>
  void operator()(T* object) const {
    release(object);
  }
};
using TorchTensor = std::unique_ptr<tb_torch_tensor, Release<tb_torch_tensor_release>>;
using View = std::unique_ptr<tb_tensor, Release<tb_tensor_release>>;

/// A struct of the C ABI with its size set and its other bytes filled with `bytes`.
template <typename T>
T sized(int bytes = 0) {
  T made;
  std::memset(&made, bytes, sizeof(made));
  made.struct_size = sizeof(T);
  return made;
}

inline View viewOf(tb_torch_tensor* tensor) {
  tb_tensor* view = nullptr;
  EXPECT_EQ(tb_torch_tensor_view(tensor, &view), TB_OK) << tb_last_error();
  return View(view);
}
inline View viewOf(const TfTensor& tensor) {
  tb_tensor* view = nullptr;
  EXPECT_EQ(tb_tensor_from_tf(tensor.get(), &view), TB_OK) << tb_last_error();
  return View(view);
}

class CApiTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    ASSERT_EQ(tb_use_torch(TORCH_VERSION_MAJOR, TORCH_VERSION_MINOR), TB_OK) << tb_last_error();
  }

  CApiTest() { tb_convert_options_init(&options_); }

  /// The elements of a torch tensor, without materialising it.
  template <typename T>
  static std::vector<T> valuesOf(const TorchTensor& tensor) {
    const View view = viewOf(tensor.get());
    const auto* data = static_cast<const T*>(tb_tensor_data(view.get()));
    return {data, data + static_cast<size_t>(tb_tensor_nbytes(view.get())) / sizeof(T)};
  }
  static const void* addressOf(const TorchTensor& tensor) {
    return tb_tensor_data(viewOf(tensor.get()).get());
  }
  static std::string dtypeOf(const TorchTensor& tensor) {
    return tb_tensor_dtype(viewOf(tensor.get()).get());
  }

  OwnerScope owners_{tb_live_owners};
  tb_convert_options options_;
};

}  // namespace tensor_bridge::testing

#endif  // TENSOR_BRIDGE_TESTS_C_API_FIXTURE_H_
