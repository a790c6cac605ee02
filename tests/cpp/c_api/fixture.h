// CApiTest: torch in use, and nothing alive when a test ends that was not before.
// Not for: tests of a process before it uses torch.
#ifndef TENSOR_BRIDGE_TESTS_C_API_FIXTURE_H_
#define TENSOR_BRIDGE_TESTS_C_API_FIXTURE_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/version.h>

#include <cstring>
#include <string>
#include <vector>

#include "support/owner_scope.h"
#include "support/tf_tensor.h"
#include "tensor_bridge/c_api.h"

namespace tensor_bridge::testing {

/// `call` must have returned `status` just now, and left a message with each of `parts`.
inline void expectStatus(tb_status returned, tb_status status,
                         const std::vector<std::string>& parts) {
  EXPECT_STREQ(tb_status_name(returned), tb_status_name(status)) << tb_last_error();
  for (const std::string& part : parts) EXPECT_THAT(tb_last_error(), ::testing::HasSubstr(part));
}

class CApiTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    ASSERT_EQ(tb_use_torch(TORCH_VERSION_MAJOR, TORCH_VERSION_MINOR), TB_OK) << tb_last_error();
  }

  CApiTest() { tb_convert_options_init(&options_); }

  /// The elements of a torch tensor, and where they are, without materialising.
  template <typename T>
  static std::vector<T> valuesOf(tb_torch_tensor* tensor, const void** address = nullptr) {
    tb_tensor* view = nullptr;
    EXPECT_EQ(tb_torch_tensor_view(tensor, &view), TB_OK) << tb_last_error();
    const auto* data = static_cast<const T*>(tb_tensor_data(view));
    std::vector<T> values(data, data + static_cast<size_t>(tb_tensor_nbytes(view)) / sizeof(T));
    if (address != nullptr) *address = data;
    tb_tensor_release(view);
    return values;
  }
  static const void* addressOf(tb_torch_tensor* tensor) {
    const void* address = nullptr;
    valuesOf<char>(tensor, &address);
    return address;
  }
  static std::string dtypeOf(tb_torch_tensor* tensor) {
    tb_tensor* view = nullptr;
    EXPECT_EQ(tb_torch_tensor_view(tensor, &view), TB_OK) << tb_last_error();
    const std::string name = tb_tensor_dtype(view);
    tb_tensor_release(view);
    return name;
  }

  OwnerScope owners_{tb_live_owners};
  tb_convert_options options_;
};

}  // namespace tensor_bridge::testing

#endif  // TENSOR_BRIDGE_TESTS_C_API_FIXTURE_H_
