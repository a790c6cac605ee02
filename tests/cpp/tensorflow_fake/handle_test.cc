// exportHandle() and reading variables over a TensorFlow that lies and fails.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "adapters/tensorflow/owner.h"
#include "adapters/tensorflow/reader.h"
#include "adapters/tensorflow/variable.h"
#include "core/owner_counter.h"
#include "support/expect_error.h"
#include "support/fake_library.h"
#include "support/owner_scope.h"

namespace tensor_bridge::testing {
namespace {

class HandleTest : public FakeTensorflowTest {
 protected:
  FakeSpec floats(const std::vector<int64_t>& dims) {
    FakeSpec spec;
    spec.ndim = static_cast<int>(dims.size());
    spec.dims = dims.data();
    spec.data = data_;
    return spec;
  }

  FakeSpec failing(const char* function, int code, const char* message) {
    static const std::vector<int64_t> dims = {2, 3};
    FakeSpec spec = floats(dims);
    spec.fails_in = function;
    spec.code = code;
    spec.message = message;
    return spec;
  }

  void expectRefused(const FakeSpec& spec, ErrorCode code, const std::vector<std::string>& parts) {
    OwnerScope owners(liveOwners);
    TFE_TensorHandle* handle = fake_->handle(&spec);
    int64_t shape[kMaxDims];
    TensorRef view;
    expectError(code, parts, [&] { exportHandle(api(), handle, shape, &view); });
    api().TFE_DeleteTensorHandle(handle);
    EXPECT_EQ(fake_->handles, 0) << "no reference was taken";
    // The failure does not stick to the thread: a good handle converts.
    const std::vector<int64_t> dims = {6};
    const FakeSpec good = floats(dims);
    handle = fake_->handle(&good);
    EXPECT_NO_THROW(exportHandle(api(), handle, shape, &view));
    view.reset();
    api().TFE_DeleteTensorHandle(handle);
  }

  alignas(64) float data_[6] = {};
};

using ExportHandle = HandleTest;

TEST_F(ExportHandle, SharesThroughAReferenceThatOutlivesTheHandle) {
  OwnerScope owners(liveOwners);
  const std::vector<int64_t> dims = {2, 3};
  const FakeSpec spec = floats(dims);
  TFE_TensorHandle* handle = fake_->handle(&spec);
  int64_t shape[kMaxDims];
  TensorRef view;
  exportHandle(api(), handle, shape, &view);
  EXPECT_EQ(view.dl.data, data_);
  EXPECT_EQ(view.dl.ndim, 2);
  EXPECT_EQ(shape[0], 2);
  EXPECT_EQ(shape[1], 3);
  EXPECT_TRUE(view.read_only);
  EXPECT_EQ(view.release, releaseHandle);
  EXPECT_EQ(owners.added(), 1);
  api().TFE_DeleteTensorHandle(handle);
  EXPECT_EQ(fake_->handles, 1);
  view.reset();
}

TEST_F(ExportHandle, NeverAsksForThePointerOfADtypeWithoutElements) {
  // TFE_TensorHandleDevicePointer aborts the process on these in TensorFlow 2.20 and 2.21.
  for (int dtype : {7, 20, 21, 34, 101}) {
    fake_->device_pointer_calls = 0;
    FakeSpec spec = floats({});
    spec.dtype = dtype;
    TFE_TensorHandle* handle = fake_->handle(&spec);
    int64_t shape[kMaxDims];
    TensorRef view;
    expectError(ErrorCode::kUnsupportedDtype, {},
                [&] { exportHandle(api(), handle, shape, &view); });
    EXPECT_EQ(fake_->device_pointer_calls, 0) << dtype;
    api().TFE_DeleteTensorHandle(handle);
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
  const std::vector<int64_t> dims = {6};
  FakeSpec spec = floats(dims);
  spec.dtype = 3;
  spec.device = "/job:localhost/replica:0/task:0/device:GPU:0";
  TFE_TensorHandle* handle = fake_->handle(&spec);
  int64_t shape[kMaxDims];
  TensorRef view;
  exportHandle(api(), handle, shape, &view);
  EXPECT_EQ(view.dl.device.device_type, kDLCPU);
  view.reset();
  api().TFE_DeleteTensorHandle(handle);
}

TEST_F(ExportHandle, KeepsTensorFlowsOrdinalOfAGpu) {
  const std::vector<int64_t> dims = {6};
  FakeSpec spec = floats(dims);
  spec.backing_device = "/job:localhost/replica:0/task:0/device:GPU:3";
  TFE_TensorHandle* handle = fake_->handle(&spec);
  int64_t shape[kMaxDims];
  TensorRef view;
  exportHandle(api(), handle, shape, &view);
  EXPECT_EQ(view.dl.device.device_type, kDLCUDA);
  EXPECT_EQ(view.dl.device.device_id, 3);
  view.reset();
  api().TFE_DeleteTensorHandle(handle);
}

TEST_F(ExportHandle, RefusesShapesThatCannotBe) {
  const std::vector<int64_t> ones(255, 1);
  expectRefused(floats(ones), ErrorCode::kInvalidHandle, {"254", "255"});
  const std::vector<int64_t> negative = {2, -7};
  expectRefused(floats(negative), ErrorCode::kInvalidHandle, {"negative"});
  const std::vector<int64_t> huge = {int64_t{1} << 40, int64_t{1} << 40};
  expectRefused(floats(huge), ErrorCode::kInvalidHandle, {"overflows"});
}

TEST_F(ExportHandle, AcceptsEmptyTensorsWithoutMemory) {
  const std::vector<int64_t> dims = {0, 5};
  FakeSpec spec = floats(dims);
  spec.data = nullptr;
  TFE_TensorHandle* handle = fake_->handle(&spec);
  int64_t shape[kMaxDims];
  TensorRef view;
  exportHandle(api(), handle, shape, &view);
  EXPECT_EQ(view.nbytes, 0);
  view.reset();
  api().TFE_DeleteTensorHandle(handle);
}

// TFE_TensorHandleDevicePointer() waits for the device first and for the producer, which queues its
// kernel only then, afterwards.
TEST_F(ExportHandle, AsksAgainForWhatWasNotReadyOnAGpu) {
  FakeSpec spec = floats({});
  int64_t shape[kMaxDims];
  TensorRef view;
  for (const bool on_gpu : {false, true}) {
    if (on_gpu) spec.backing_device = "/job:localhost/replica:0/task:0/device:GPU:0";
    TFE_TensorHandle* handle = fake_->handle(&spec);
    fake_->device_pointer_calls = 0;
    exportHandle(api(), handle, shape, &view);
    EXPECT_EQ(fake_->device_pointer_calls, on_gpu ? 2 : 1);
    view.reset();
    api().TFE_DeleteTensorHandle(handle);
  }
}

TEST_F(ExportHandle, IsNotTakenForReadyWhenNobodyCanTell) {
  const FakeSpec spec = floats({});
  TFE_TensorHandle* handle = fake_->handle(&spec);
  EXPECT_FALSE(api().isReady(handle)) << "the caller then waits without the GIL";
  api().TFE_DeleteTensorHandle(handle);
}

class Variable : public HandleTest {
 protected:
  void SetUp() override {
    HandleTest::SetUp();
    const FakeSpec spec = floats({});
    resource_ = fake_->handle(&spec);
    for (int i = 0; i < 4; ++i) {
      fake_->reads[i] = floats({});
      fake_->reads[i].data = &data_[i];
    }
    fake_->read_values = 1;
  }
  void TearDown() override {
    api().TFE_DeleteTensorHandle(resource_);
    HandleTest::TearDown();
  }

  TFE_TensorHandle* resource_ = nullptr;
};

TEST_F(Variable, IsReadOnce) {
  const TfeHandle value = readVariable(api(), nullptr, resource_, 1);
  EXPECT_EQ(fake_->reads_done, 1);
  EXPECT_NE(value, nullptr);
}

TEST_F(Variable, ThatWasNeverAssignedIsRefused) {
  // ReadVariableOp gives an empty vector for it, and no error.
  const int64_t zero = 0;
  fake_->reads[0].ndim = 1;
  fake_->reads[0].dims = &zero;
  fake_->variable_is_assigned = false;
  expectError(ErrorCode::kTensorFlow, {"never initialised", "assign"},
              [&] { readVariable(api(), nullptr, resource_, 1); });
  EXPECT_EQ(fake_->handles, 1) << "the resource alone";
}

TEST_F(Variable, MayHoldAnEmptyVector) {
  const int64_t zero = 0;
  fake_->reads[0].ndim = 1;
  fake_->reads[0].dims = &zero;
  EXPECT_NE(readVariable(api(), nullptr, resource_, 1), nullptr);
  EXPECT_EQ(fake_->handles, 1);
}

TEST_F(Variable, PassesOnWhyItCannotBeRead) {
  for (const char* function : {"NewOp", "OpAddInput", "Execute"}) {
    fake_->reads_done = 0;
    fake_->read_fails_at = 1;
    fake_->read_fails_in = function;
    expectError(ErrorCode::kTensorFlow, {"read the variable", "uninitialised"},
                [&] { readVariable(api(), nullptr, resource_, 1); });
    EXPECT_EQ(fake_->ops, 0) << function;
    EXPECT_EQ(fake_->handles, 1) << function;
    // The failure does not stick to the thread.
    EXPECT_NE(readVariable(api(), nullptr, resource_, 1), nullptr);
  }
}

TEST_F(Variable, ThatSharesItsBufferIsNotCopiedAtRead) {
  TfeHandle first = readVariable(api(), nullptr, resource_, 1);
  EXPECT_FALSE(copiedAtRead(api(), nullptr, resource_, 1, first.get()));
}

TEST_F(Variable, ThatMovesAtEveryReadIsCopiedAtRead) {
  fake_->read_values = 4;
  TfeHandle first = readVariable(api(), nullptr, resource_, 1);
  EXPECT_TRUE(copiedAtRead(api(), nullptr, resource_, 1, first.get()));
}

TEST_F(Variable, AssignedBetweenTwoReadsIsNotTakenForCopied) {
  // Moves once, between the first and the second read.
  fake_->read_values = 4;
  fake_->reads[2].data = fake_->reads[1].data;
  TfeHandle first = readVariable(api(), nullptr, resource_, 1);
  EXPECT_FALSE(copiedAtRead(api(), nullptr, resource_, 1, first.get()));
}

TEST_F(Variable, WithoutElementsIsNotLookedAt) {
  for (int dtype : {7, 20, 34}) {
    EXPECT_FALSE(copiedAtRead(api(), nullptr, resource_, dtype, resource_)) << dtype;
  }
  EXPECT_EQ(fake_->device_pointer_calls, 0);
}

TEST_F(Variable, ReadThatFailsWhileLookingForCopiesLeaksNothing) {
  fake_->read_values = 4;
  for (int failing_read : {2, 3, 4}) {
    fake_->reads_done = 0;
    fake_->read_fails_at = failing_read;
    fake_->read_fails_in = "Execute";
    TfeHandle first = readVariable(api(), nullptr, resource_, 1);
    expectError(ErrorCode::kTensorFlow, {"uninitialised"},
                [&] { copiedAtRead(api(), nullptr, resource_, 1, first.get()); });
    first.reset();
    EXPECT_EQ(fake_->handles, 1) << "read " << failing_read;
  }
}

}  // namespace
}  // namespace tensor_bridge::testing
