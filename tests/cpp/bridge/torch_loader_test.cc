// Finding torch in a process without torch. tests/cpp/c_api has the tests with torch.

#include "bridge/torch_loader.h"

#include <gtest/gtest.h>

#include <climits>
#include <string>

#include "support/expect_error.h"

namespace tensor_bridge::testing {
namespace {

TEST(UseTorch, RefusesReleasesThatItDoesNotKnow) {
  const int releases[][2] = {{1, 13}, {2, 5},  {2, 16}, {2, -1},  {2, INT_MAX},
                             {3, 0},  {3, 13}, {0, 0},  {-1, 13}, {INT_MAX, 13}};
  for (const auto& [major, minor] : releases) {
    const std::string release = std::to_string(major) + "." + std::to_string(minor);
    expectError(ErrorCode::kFramework, {"torch " + release, "2.6 to 2.15", "pip install"},
                [major = major, minor = minor] { useTorch(major, minor); });
  }
}

TEST(UseTorch, SaysThatTorchIsNotLoaded) {
  for (int minor = 6; minor <= 15; ++minor) {
    expectError(ErrorCode::kFramework, {"torch is not loaded", "import torch", "libtorch"},
                [minor] { useTorch(2, minor); });
  }
}

TEST(TorchAdapter, IsMissingBeforeItsUse) {
  expectError(ErrorCode::kFramework, {"no torch is in use", "tb_use_torch"},
              [] { torchAdapter(); });
}

}  // namespace
}  // namespace tensor_bridge::testing
