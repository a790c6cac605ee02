// expectError: a call must throw tensor_bridge::Error with a code and these parts of a message.
// Not for: the C ABI, whose statuses tests/cpp/c_api checks.
#ifndef TENSOR_BRIDGE_TESTS_SUPPORT_EXPECT_ERROR_H_
#define TENSOR_BRIDGE_TESTS_SUPPORT_EXPECT_ERROR_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tensor_bridge/error.h"

namespace tensor_bridge::testing {

/// Each of `parts` must be in the message, which says what was expected, what came, what to do.
template <typename Call>
void expectError(ErrorCode code, const std::vector<std::string>& parts, Call&& call) {
  try {
    call();
    ADD_FAILURE() << "expected an Error with code " << static_cast<int>(code)
                  << ", nothing was thrown";
  } catch (const Error& e) {
    EXPECT_EQ(static_cast<int>(e.code()), static_cast<int>(code)) << e.what();
    for (const std::string& part : parts) EXPECT_THAT(e.what(), ::testing::HasSubstr(part));
  }
}

}  // namespace tensor_bridge::testing

#endif  // TENSOR_BRIDGE_TESTS_SUPPORT_EXPECT_ERROR_H_
