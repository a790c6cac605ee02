// exportStrings() of eager handles, with a TensorFlow that gives wrong answers and fails.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "adapters/tensorflow/strings.h"
#include "support/expect_error.h"
#include "support/fake_library.h"

namespace tensor_bridge::testing {
namespace {

constexpr int kString = 7;

class StringHandleTest : public FakeTensorflowTest {
 protected:
  FakeSpec strings(const std::vector<int64_t>& dims) {
    FakeSpec spec = specOf(dims, elements_);
    spec.dtype = kString;
    spec.byte_size = sizeof(elements_);
    return spec;
  }

  void expectRefused(const FakeSpec& spec, ErrorCode code, const std::vector<std::string>& parts) {
    TfeHandle handle = handleOf(spec);
    expectError(code, parts, [&] { exportStrings(api(), handle.get(), shape_, &view_); });
    EXPECT_EQ(fake_->device_pointer_calls, 0) << "TensorFlow would abort";
  }

  // "a" and "bc", inline.
  alignas(64) char elements_[48] = {4, 'a'};
};

TEST_F(StringHandleTest, TheViewKeepsTheTensor) {
  elements_[24] = 8;
  elements_[25] = 'b';
  elements_[26] = 'c';
  TfeHandle handle = handleOf(strings({2}));
  exportStrings(api(), handle.get(), shape_, &view_);
  handle.reset();
  EXPECT_EQ(owners_.added(), 1);
  EXPECT_EQ(view_.dl.data, elements_);
  EXPECT_EQ(shape_[0], 2);
  char block[4] = "###";
  gatherStrings(view_.dl.data, 2, block, 3);
  EXPECT_STREQ(block, "abc");
  EXPECT_EQ(fake_->device_pointer_calls, 0) << "TensorFlow would abort";
  view_.reset();
  EXPECT_EQ(fake_->tensors, 0);
}

TEST_F(StringHandleTest, OtherDtypesAreRefused) {
  FakeSpec spec = strings({2});
  spec.dtype = 1;
  expectRefused(spec, ErrorCode::kUnsupportedDtype, {"strings", "float32"});
  spec.dtype = 4321;
  expectRefused(spec, ErrorCode::kUnsupportedDtype, {"strings", "4321"});
}

TEST_F(StringHandleTest, OtherDevicesAreRefused) {
  FakeSpec spec = strings({2});
  spec.backing_device = "/job:worker/replica:0/task:1/device:TPU:0";
  expectRefused(spec, ErrorCode::kUnsupportedDevice, {"TPU:0", "tf.identity"});
  spec.backing_device = "/job:localhost/replica:0/task:0/device:CUSTOM:0";
  expectRefused(spec, ErrorCode::kUnsupportedDevice, {"CUSTOM:0", "unpack"});
}

TEST_F(StringHandleTest, AFailingProducerIsReported) {
  for (const char* function : {"BackingDeviceName", "Resolve"}) {
    FakeSpec spec = strings({2});
    spec.fails_in = function;
    spec.code = 3;
    spec.message = "no such file";
    expectRefused(spec, ErrorCode::kTensorFlow, {"no such file"});
  }
}

TEST_F(StringHandleTest, ShapesThatLieAreRefused) {
  const std::vector<std::vector<int64_t>> lies = {
      {3}, {-1}, {2, -1}, {INT64_MAX}, {INT64_MAX, 2}, {INT64_MAX / 24 + 1}};
  for (const std::vector<int64_t>& dims : lies) {
    expectRefused(strings(dims), ErrorCode::kInvalidHandle, {});
    EXPECT_EQ(fake_->tensors, 0);
  }
  FakeSpec spec = strings({2});
  spec.data = nullptr;
  expectRefused(spec, ErrorCode::kInvalidHandle, {"holds 48 bytes"});
  spec = strings(std::vector<int64_t>(kMaxDims + 1, 1));
  expectRefused(spec, ErrorCode::kInvalidHandle, {"254"});
}

}  // namespace
}  // namespace tensor_bridge::testing
