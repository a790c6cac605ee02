// Processes that exit with torch tensors over TensorFlow's memory. Each test runs in a separate
// process.

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <vector>

#include "support/tf_tensor.h"
#include "tensor_bridge/tensor_bridge.h"

namespace tensor_bridge::testing {
namespace {

CountedBuffer* leakedBuffer() {
  static auto* buffer = new CountedBuffer(std::vector<float>{1, 2});
  return buffer;
}

at::Tensor heldTensor() {
  return tfTensorToPyTorchTensor(TfTensor(TF_FLOAT, {2}, leakedBuffer()).get());
}

// Its destructor runs at exit and reports whether the buffer was freed.
struct Holder {
  ~Holder() {
    if (!tensor.defined()) return;
    tensor.reset();
    _exit(40 + leakedBuffer()->freed());
  }
  at::Tensor tensor;
};

// Made before the bridge knows a framework, so it is destroyed after the bridge noticed the exit.
Holder g_early;

class ExitTest : public ::testing::Test {
 protected:
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

TEST_F(ExitTest, WhatOutlivesTheBridgeIsLeakedNotFreed) {
  EXPECT_EXIT(
      {
        g_early.tensor = heldTensor();
        std::exit(0);
      },
      ::testing::ExitedWithCode(40), "");
}

TEST_F(ExitTest, WhatDiesBeforeTheBridgeIsFreed) {
  EXPECT_EXIT(
      {
        at::Tensor tensor = heldTensor();
        static Holder late;
        late.tensor = tensor;
        tensor.reset();
        std::exit(0);
      },
      ::testing::ExitedWithCode(41), "");
}

TEST_F(ExitTest, ALeakedTensorIsNoProblem) {
  EXPECT_EXIT(
      {
        static auto* leaked = new at::Tensor(heldTensor());
        leaked->add_(1);
        std::exit(leakedBuffer()->freed());
      },
      ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace tensor_bridge::testing
