// exportHandle() and reading variables, with a TensorFlow that gives wrong answers and fails.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "adapters/tensorflow/gpu.h"
#include "adapters/tensorflow/owner.h"
#include "adapters/tensorflow/reader.h"
#include "adapters/tensorflow/variable.h"
#include "support/expect_error.h"
#include "support/fake_library.h"

namespace tensor_bridge::testing {
namespace {

class HandleTest : public FakeTensorflowTest {
 protected:
  FakeSpec floats(const std::vector<int64_t>& dims) { return specOf(dims, data_); }

  FakeSpec failing(const char* function, int code, const char* message) {
    FakeSpec spec = floats({2, 3});
    spec.fails_in = function;
    spec.code = code;
    spec.message = message;
    return spec;
  }

  void expectRefused(const FakeSpec& spec, ErrorCode code, const std::vector<std::string>& parts) {
    TfeHandle handle = handleOf(spec);
    expectError(code, parts, [&] { exportHandle(api(), handle.get(), shape_, &view_); });
    handle.reset();
    EXPECT_EQ(fake_->handles, 0) << "no reference was taken";
    // The thread does not keep the failure: a good handle converts.
    handle = handleOf(floats({6}));
    EXPECT_NO_THROW(exportHandle(api(), handle.get(), shape_, &view_));
    view_.reset();
  }

  alignas(64) float data_[6] = {};
};

using ExportHandle = HandleTest;

TEST_F(ExportHandle, SharesThroughAReferenceThatOutlivesTheHandle) {
  TfeHandle handle = handleOf(floats({2, 3}));
  exportHandle(api(), handle.get(), shape_, &view_);
  EXPECT_EQ(view_.dl.data, data_);
  EXPECT_EQ(view_.dl.ndim, 2);
  EXPECT_EQ(shape_[0], 2);
  EXPECT_EQ(shape_[1], 3);
  EXPECT_TRUE(view_.read_only);
  EXPECT_EQ(view_.release, releaseHandle);
  EXPECT_EQ(owners_.added(), 1);
  handle.reset();
  EXPECT_EQ(fake_->handles, 1);
}

TEST_F(ExportHandle, NeverAsksForThePointerOfADtypeWithoutElements) {
  // TFE_TensorHandleDevicePointer aborts the process on these in TensorFlow 2.20 and 2.21.
  for (int dtype : {7, 20, 21, 34, 101}) {
    fake_->device_pointer_calls = 0;
    FakeSpec spec = floats({});
    spec.dtype = dtype;
    TfeHandle handle = handleOf(spec);
    expectError(ErrorCode::kUnsupportedDtype, {},
                [&] { exportHandle(api(), handle.get(), shape_, &view_); });
    EXPECT_EQ(fake_->device_pointer_calls, 0) << dtype;
  }
}

TEST_F(ExportHandle, PassesOnWhyTheProducerFailed) {
  expectRefused(failing("DevicePointer", 3, "Matrix size-incompatible: In[0]: [2,3]"),
                ErrorCode::kTensorFlow, {"operation that produces it failed", "Matrix size"});
  expectRefused(failing("NumDims", 13, "lost the rank"), ErrorCode::kTensorFlow, {"lost the rank"});
  expectRefused(failing("Dim", 13, "lost a dimension"), ErrorCode::kTensorFlow,
                {"lost a dimension"});
  expectRefused(failing("BackingDeviceName", 13, "poisoned handle"), ErrorCode::kTensorFlow,
                {"poisoned handle"});
  expectRefused(failing("CopySharingTensor", 13, "cannot share"), ErrorCode::kTensorFlow,
                {"cannot share"});
}

TEST_F(ExportHandle, NamesTheDeviceOfARemoteHandle) {
  FakeSpec spec =
      failing("DevicePointer", 3,
              "TFE_TensorHandleDevicePointer may not be called on a remote tensor handle.");
  spec.device = "/job:worker/replica:0/task:1/device:CPU:0";
  expectRefused(spec, ErrorCode::kUnsupportedDevice, {"/job:worker", "tf.identity"});
}

TEST_F(ExportHandle, RefusesAPackedHandle) {
  FakeSpec spec = floats({});
  spec.backing_device = "/job:localhost/replica:0/task:0/device:COMPOSITE:0";
  expectRefused(spec, ErrorCode::kUnsupportedDevice, {"COMPOSITE", "packed"});
}

TEST_F(ExportHandle, RefusesACustomDevice) {
  FakeSpec spec = floats({});
  spec.backing_device = "/job:localhost/replica:0/task:0/device:CUSTOM:0";
  expectRefused(spec, ErrorCode::kUnsupportedDevice, {"CUSTOM"});
}

TEST_F(ExportHandle, RefusesAHandleWithoutADevice) {
  FakeSpec spec = floats({});
  spec.backing_device = nullptr;
  expectRefused(spec, ErrorCode::kUnsupportedDevice, {"expected a tensor on a CPU or GPU"});
}

TEST_F(ExportHandle, TakesTheDeviceThatBacksTheTensor) {
  // An int32 result "on GPU:0" that TensorFlow keeps in host memory.
  FakeSpec spec = floats({6});
  spec.dtype = 3;
  spec.device = "/job:localhost/replica:0/task:0/device:GPU:0";
  TfeHandle handle = handleOf(spec);
  exportHandle(api(), handle.get(), shape_, &view_);
  EXPECT_EQ(view_.dl.device.device_type, kDLCPU);
}

TEST_F(ExportHandle, KeepsTensorFlowsOrdinalOfAGpu) {
  FakeSpec spec = floats({6});
  spec.backing_device = "/job:localhost/replica:0/task:0/device:GPU:3";
  TfeHandle handle = handleOf(spec);
  exportHandle(api(), handle.get(), shape_, &view_);
  EXPECT_EQ(view_.dl.device.device_type, kDLCUDA);
  EXPECT_EQ(view_.dl.device.device_id, 3);
}

// A tensor without elements has no address that the driver could look up.
TEST_F(ExportHandle, AsksWhichGpuALogicalDeviceIsOn) {
  FakeSpec spec = floats({0});
  spec.data = nullptr;
  spec.backing_device = "/job:localhost/replica:0/task:0/device:GPU:3";
  TfeHandle handle = handleOf(spec);
  setGpuOfLogical([](int32_t logical) { return logical - 2; });
  exportHandle(api(), handle.get(), shape_, &view_);
  setGpuOfLogical(nullptr);
  EXPECT_EQ(view_.dl.device.device_id, 1);
}

TEST_F(ExportHandle, RefusesShapesThatCannotBe) {
  constexpr int64_t kHuge = int64_t{1} << 40;
  expectRefused(floats(std::vector<int64_t>(255, 1)), ErrorCode::kInvalidHandle, {"254", "255"});
  expectRefused(floats({2, -7}), ErrorCode::kInvalidHandle, {"negative"});
  expectRefused(floats({kHuge, kHuge}), ErrorCode::kInvalidHandle, {"overflows"});
}

TEST_F(ExportHandle, AcceptsEmptyTensorsWithoutMemory) {
  FakeSpec spec = floats({0, 5});
  spec.data = nullptr;
  TfeHandle handle = handleOf(spec);
  exportHandle(api(), handle.get(), shape_, &view_);
  EXPECT_EQ(view_.nbytes, 0);
}

// TFE_TensorHandleDevicePointer() first waits for the device and then for the producer, which
// queues its kernel only afterwards.
TEST_F(ExportHandle, AsksAgainForWhatWasNotReadyOnAGpu) {
  FakeSpec spec = floats({});
  for (const bool on_gpu : {false, true}) {
    if (on_gpu) spec.backing_device = "/job:localhost/replica:0/task:0/device:GPU:0";
    TfeHandle handle = handleOf(spec);
    fake_->device_pointer_calls = 0;
    exportHandle(api(), handle.get(), shape_, &view_);
    EXPECT_EQ(fake_->device_pointer_calls, on_gpu ? 2 : 1);
    view_.reset();
  }
}

TEST_F(ExportHandle, IsNotTakenForReadyWhenNobodyCanTell) {
  TfeHandle handle = handleOf(floats({}));
  EXPECT_FALSE(api().isReady(handle.get())) << "the caller then waits without the GIL";
}

class Variable : public HandleTest {
 protected:
  void SetUp() override {
    HandleTest::SetUp();
    resource_ = handleOf(floats({}));
    for (int i = 0; i < 4; ++i) {
      fake_->reads[i] = floats({});
      fake_->reads[i].data = &data_[i];
    }
    fake_->read_values = 1;
  }
  void TearDown() override {
    resource_.reset();
    HandleTest::TearDown();
  }

  TfeHandle resource_;
};

TEST_F(Variable, IsReadOnce) {
  const TfeHandle value = readVariable(api(), nullptr, resource_.get(), 1);
  EXPECT_EQ(fake_->reads_done, 1);
  EXPECT_NE(value, nullptr);
}

TEST_F(Variable, ThatWasNeverAssignedIsRefused) {
  // ReadVariableOp returns an empty vector for it instead of an error.
  fake_->reads[0] = specOf({0}, data_);
  fake_->variable_is_assigned = false;
  expectError(ErrorCode::kTensorFlow, {"never initialised", "assign"},
              [&] { readVariable(api(), nullptr, resource_.get(), 1); });
  EXPECT_EQ(fake_->handles, 1) << "only the resource";
}

TEST_F(Variable, MayHoldAnEmptyVector) {
  fake_->reads[0] = specOf({0}, data_);
  EXPECT_NE(readVariable(api(), nullptr, resource_.get(), 1), nullptr);
  EXPECT_EQ(fake_->handles, 1);
}

TEST_F(Variable, PassesOnWhyItCannotBeRead) {
  for (const char* function : {"NewOp", "OpAddInput", "Execute"}) {
    fake_->reads_done = 0;
    fake_->read_fails_at = 1;
    fake_->read_fails_in = function;
    expectError(ErrorCode::kTensorFlow, {"read the variable", "uninitialised"},
                [&] { readVariable(api(), nullptr, resource_.get(), 1); });
    EXPECT_EQ(fake_->ops, 0) << function;
    EXPECT_EQ(fake_->handles, 1) << function;
    // The thread does not keep the failure.
    EXPECT_NE(readVariable(api(), nullptr, resource_.get(), 1), nullptr);
  }
}

TEST_F(Variable, ThatSharesItsBufferIsNotCopiedAtRead) {
  TfeHandle first = readVariable(api(), nullptr, resource_.get(), 1);
  EXPECT_FALSE(copiedAtRead(api(), nullptr, resource_.get(), 1, first.get()));
}

TEST_F(Variable, ThatMovesAtEveryReadIsCopiedAtRead) {
  fake_->read_values = 4;
  TfeHandle first = readVariable(api(), nullptr, resource_.get(), 1);
  EXPECT_TRUE(copiedAtRead(api(), nullptr, resource_.get(), 1, first.get()));
}

TEST_F(Variable, AssignedBetweenTwoReadsIsNotTakenForCopied) {
  // The variable moves once, between the first and the second read.
  fake_->read_values = 4;
  fake_->reads[2].data = fake_->reads[1].data;
  TfeHandle first = readVariable(api(), nullptr, resource_.get(), 1);
  EXPECT_FALSE(copiedAtRead(api(), nullptr, resource_.get(), 1, first.get()));
}

TEST_F(Variable, WithoutElementsIsNotLookedAt) {
  for (int dtype : {7, 20, 34}) {
    EXPECT_FALSE(copiedAtRead(api(), nullptr, resource_.get(), dtype, resource_.get())) << dtype;
  }
  EXPECT_EQ(fake_->device_pointer_calls, 0);
}

TEST_F(Variable, ReadThatFailsWhileLookingForCopiesLeaksNothing) {
  fake_->read_values = 4;
  for (int failing_read : {2, 3, 4}) {
    fake_->reads_done = 0;
    fake_->read_fails_at = failing_read;
    fake_->read_fails_in = "Execute";
    TfeHandle first = readVariable(api(), nullptr, resource_.get(), 1);
    expectError(ErrorCode::kTensorFlow, {"uninitialised"},
                [&] { copiedAtRead(api(), nullptr, resource_.get(), 1, first.get()); });
    first.reset();
    EXPECT_EQ(fake_->handles, 1) << "read " << failing_read;
  }
}

}  // namespace
}  // namespace tensor_bridge::testing
