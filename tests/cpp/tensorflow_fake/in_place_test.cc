// exportTensor() and exportReadyHandle() when they read tensors in place, for a tensor whose bytes
// contradict the C API. Not for: the layout itself, which tests/cpp/tensorflow tests on the real
// TensorFlow.

#include <gtest/gtest.h>

#include <cstring>

#include "adapters/tensorflow/owner.h"
#include "adapters/tensorflow/reader.h"
#include "adapters/tensorflow/tensor_layout.h"
#include "support/expect_error.h"
#include "support/fake_library.h"

namespace tensor_bridge::testing {
namespace {

// A tensor in memory, and the properties that the C API reports for it.
class InPlaceTest : public FakeTensorflowTest {
 protected:
  void SetUp() override {
    FakeTensorflowTest::SetUp();
    buffer_ = {nullptr, 1, data_};
    said_ = specOf({2, 3}, data_);
    said_.byte_size = sizeof(data_);
    api_ = api();
    api_.Tensor_destroy = [](void*) { ADD_FAILURE() << "TensorFlow owns nothing here"; };
    api_.TF_TensorType = [](const TF_Tensor*) { return said_.dtype; };
    api_.TF_NumDims = [](const TF_Tensor*) { return said_.ndim; };
    api_.TF_Dim = [](const TF_Tensor*, int i) { return said_.dims[i]; };
    api_.TF_TensorByteSize = [](const TF_Tensor*) { return said_.byte_size; };
    api_.TF_TensorData = [](const TF_Tensor*) { return said_.data; };
    api_.TF_TensorBitcastFrom = [](const TF_Tensor*, int, TF_Tensor*, const int64_t*, int,
                                   TF_Status*) {};
    api_.TensorHandle_Tensor = [](const TFE_TensorHandle*, const void** tensor) {
      *tensor = inside_;
      return TfApi::ReturnedStatus{};
    };
    lie(1);
  }
  // Drops an owner that is not a real owner and cannot be released.
  void TearDown() override {
    if (view_.owner == &buffer_ || view_.owner == &tensor_) {
      view_.take();
      countOwner(-1);
    }
    FakeTensorflowTest::TearDown();
  }

  // Makes a tensor of this dtype in memory, with the shape that the C API reports.
  void lie(int dtype) {
    ASSERT_TRUE(BorrowedTensor::make(api_, dtype, said_.dims, said_.ndim, &buffer_, &tensor_));
    inside_ = tensor_.tensor;
  }
  void sizesAreElsewhere() { tensor_.tensor[tensor_layout::kSizesKeptAt] = 2; }
  void exportIt(bool take) {
    exportTensor(api_, reinterpret_cast<TF_Tensor*>(&tensor_), take, shape_, &view_);
  }
  bool readyExported(const FakeSpec& spec) {
    const TfeHandle handle = handleOf(spec);
    return exportReadyHandle(api_, handle.get(), shape_, &view_);
  }

  alignas(64) float data_[6] = {};
  TensorBuffer buffer_;
  BorrowedTensor tensor_;
  TfApi api_;
  static inline FakeSpec said_;
  static inline const void* inside_;
};

using ExportTensorInPlace = InPlaceTest;

TEST_F(ExportTensorInPlace, HoldsTheBuffer) {
  for (const bool elsewhere : {false, true}) {
    if (elsewhere) sizesAreElsewhere();
    buffer_.references = 1;
    exportIt(/*take=*/false);
    EXPECT_EQ(view_.owner, &buffer_);
    EXPECT_EQ(view_.release, releaseBuffer);
    EXPECT_EQ(buffer_.references, 2);
    EXPECT_EQ(view_.dl.data, data_);
    EXPECT_EQ(shape_[1], 3);
    view_.take();
    countOwner(-1);
  }
}

TEST_F(ExportTensorInPlace, RefusesFewerBytesThanTheShapeNeeds) {
  said_.byte_size = 23;
  for (const bool take : {false, true}) {
    expectError(ErrorCode::kInvalidHandle, {"23 bytes", "24"}, [&] { exportIt(take); });
    EXPECT_EQ(owners_.added(), 0);
    EXPECT_EQ(buffer_.references, 1);
  }
}

TEST_F(ExportTensorInPlace, RefusesDtypesWithoutElements) {
  for (const int dtype : {7, 20, 21, 63}) {
    said_.dtype = dtype;
    lie(dtype);
    for (const bool take : {false, true}) {
      expectError(ErrorCode::kUnsupportedDtype, {}, [&] { exportIt(take); });
    }
    EXPECT_EQ(buffer_.references, 1) << dtype;
  }
}

// A TensorFlow whose first element is not in the buffer's memory.
TEST_F(ExportTensorInPlace, HoldsATensorWhereTheBufferHasOtherMemory) {
  alignas(64) float other[6] = {};
  said_.data = other;
  sizesAreElsewhere();
  exportIt(/*take=*/false);
  EXPECT_EQ(view_.dl.data, other);
  EXPECT_EQ(view_.release, releaseTensor);
  EXPECT_EQ(buffer_.references, 1);
}

TEST_F(ExportTensorInPlace, HoldsATensorWhereThereIsNoBuffer) {
  lie(1);
  const void* none = nullptr;
  std::memcpy(tensor_.tensor + tensor_layout::kBufferAt, &none, sizeof(none));
  exportIt(/*take=*/false);
  EXPECT_EQ(view_.release, releaseTensor);
}

using ExportReadyHandle = InPlaceTest;

TEST_F(ExportReadyHandle, ReadsTheTensor) {
  EXPECT_TRUE(readyExported(said_));
  EXPECT_EQ(view_.dl.data, data_);
  EXPECT_EQ(shape_[0], 2);
  EXPECT_EQ(shape_[1], 3);
  EXPECT_EQ(view_.nbytes, 24);
  EXPECT_EQ(view_.release, releaseHandle);
  EXPECT_EQ(owners_.added(), 1);
}

TEST_F(ExportReadyHandle, LeavesOtherDevicesAlone) {
  for (const char* device :
       {"/job:localhost/replica:0/task:0/device:GPU:0",
        "/job:localhost/replica:0/task:0/device:CPU:1", "/job:worker/replica:0/task:1/device:CPU:0",
        "/job:localhost/replica:0/task:0/device:CUSTOM:0"}) {
    FakeSpec spec = said_;
    spec.backing_device = device;
    EXPECT_FALSE(readyExported(spec)) << device;
    EXPECT_EQ(owners_.added(), 0);
  }
  FakeSpec spec = said_;
  spec.fails_in = "BackingDeviceName";
  EXPECT_FALSE(readyExported(spec));
}

TEST_F(ExportReadyHandle, LeavesDtypesWithoutElementsAlone) {
  for (const int dtype : {7, 20, 21, 63}) {
    lie(dtype);
    EXPECT_FALSE(readyExported(said_)) << dtype;
    EXPECT_EQ(owners_.added(), 0);
  }
}

TEST_F(ExportReadyHandle, LeavesATensorThatCannotBeReadAlone) {
  sizesAreElsewhere();
  EXPECT_FALSE(readyExported(said_));
  inside_ = nullptr;
  EXPECT_FALSE(readyExported(said_));
}

}  // namespace
}  // namespace tensor_bridge::testing
