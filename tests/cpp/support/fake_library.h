// FakeLibrary: the fake TensorFlow, loaded and in use. Not for: tests that load the real one; a
// process uses one TensorFlow.
#ifndef TENSOR_BRIDGE_TESTS_SUPPORT_FAKE_LIBRARY_H_
#define TENSOR_BRIDGE_TESTS_SUPPORT_FAKE_LIBRARY_H_

#include <dlfcn.h>
#include <gtest/gtest.h>

#include "adapters/tensorflow/tf_api.h"
#include "support/fake_tensorflow.h"

namespace tensor_bridge::testing {

/// Opens a variant of the fake library; the path comes from CMake. Stays open.
inline void* openFake(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  EXPECT_NE(library, nullptr) << dlerror();
  return library;
}

/// A fixture for tests on the fake: nothing that a test made is left when it ends.
class FakeTensorflowTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    library_ = openFake(TB_FAKE_TENSORFLOW);
    useTensorFlowHandle(library_);
    fake_ = reinterpret_cast<FakeTensorflowEntry>(dlsym(library_, kFakeTensorflowEntry))();
  }

  void SetUp() override {
    fake_->reset();
    ASSERT_EQ(fake_->tensors, 0);
    ASSERT_EQ(fake_->handles, 0);
  }

  void TearDown() override {
    EXPECT_EQ(fake_->tensors, 0) << "a TF_Tensor was leaked";
    EXPECT_EQ(fake_->handles, 0) << "a TFE_TensorHandle was leaked";
    EXPECT_EQ(fake_->ops, 0) << "a TFE_Op was leaked";
  }

  const TfApi& api() const { return requireTfApi(); }

  static void* library_;
  static FakeTensorflow* fake_;
};

inline void* FakeTensorflowTest::library_ = nullptr;
inline FakeTensorflow* FakeTensorflowTest::fake_ = nullptr;

}  // namespace tensor_bridge::testing

#endif  // TENSOR_BRIDGE_TESTS_SUPPORT_FAKE_LIBRARY_H_
