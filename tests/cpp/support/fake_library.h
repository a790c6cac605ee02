// FakeLibrary: the fake TensorFlow, loaded and in use. Not for: tests that load the real
// TensorFlow; a process uses only one.
#ifndef TENSOR_BRIDGE_TESTS_SUPPORT_FAKE_LIBRARY_H_
#define TENSOR_BRIDGE_TESTS_SUPPORT_FAKE_LIBRARY_H_

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <deque>
#include <vector>

#include "adapters/tensorflow/handles.h"
#include "core/owner_counter.h"
#include "core/tensor_ref.h"
#include "support/fake_tensorflow.h"
#include "support/owner_scope.h"

namespace tensor_bridge::testing {

/// Opens a variant of the fake library, whose path comes from CMake. It stays open.
inline void* openFake(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  EXPECT_NE(library, nullptr) << dlerror();
  return library;
}

/// A fixture for tests with the fake. It checks that a test leaves nothing alive.
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
    view_.reset();
    EXPECT_EQ(fake_->tensors, 0) << "a TF_Tensor was leaked";
    EXPECT_EQ(fake_->handles, 0) << "a TFE_TensorHandle was leaked";
    EXPECT_EQ(fake_->ops, 0) << "a TFE_Op was leaked";
  }

  const TfApi& api() const { return requireTfApi(); }
  /// The dimensions live as long as the test.
  FakeSpec specOf(const std::vector<int64_t>& dims, void* data) {
    FakeSpec spec;
    dims_.push_back(dims);
    spec.ndim = static_cast<int>(dims.size());
    spec.dims = dims_.back().data();
    spec.data = data;
    return spec;
  }
  TfTensor tensorOf(const FakeSpec& spec) { return TfTensor(api(), fake_->tensor(&spec)); }
  TfeHandle handleOf(const FakeSpec& spec) { return TfeHandle(api(), fake_->handle(&spec)); }

  static void* library_;
  static FakeTensorflow* fake_;
  OwnerScope owners_{liveOwners};
  /// The test's last export, which is released when the test ends.
  int64_t shape_[kMaxDims];
  TensorRef view_;

 private:
  std::deque<std::vector<int64_t>> dims_;
};

inline void* FakeTensorflowTest::library_ = nullptr;
inline FakeTensorflow* FakeTensorflowTest::fake_ = nullptr;

}  // namespace tensor_bridge::testing

#endif  // TENSOR_BRIDGE_TESTS_SUPPORT_FAKE_LIBRARY_H_
