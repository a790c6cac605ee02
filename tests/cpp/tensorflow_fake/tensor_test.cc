// exportTensor() with a TensorFlow that gives wrong answers and fails.

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "adapters/tensorflow/reader.h"
#include "support/expect_error.h"
#include "support/fake_library.h"

namespace tensor_bridge::testing {
namespace {

class ExportTensor : public FakeTensorflowTest {
 protected:
  // Both ways of exporting must refuse the tensor, and leave it with the caller.
  void expectRefused(const FakeSpec& spec, ErrorCode code, const std::vector<std::string>& parts) {
    for (bool take : {false, true}) {
      TfTensor tensor = tensorOf(spec);
      expectError(code, parts, [&] { exportTensor(api(), tensor.get(), take, shape_, &view_); });
      EXPECT_EQ(owners_.added(), 0);
      EXPECT_EQ(fake_->tensors, 1) << "the caller still owns the tensor, and there is no other";
    }
  }

  FakeSpec floats(const std::vector<int64_t>& dims, size_t byte_size) {
    FakeSpec spec = specOf(dims, data_);
    spec.byte_size = byte_size;
    return spec;
  }

  alignas(64) float data_[24] = {};
};

TEST_F(ExportTensor, SharesThroughAnAliasThatOutlivesTheTensor) {
  TfTensor tensor = tensorOf(floats({2, 3}, 24));
  exportTensor(api(), tensor.get(), /*take=*/false, shape_, &view_);
  EXPECT_EQ(view_.dl.data, data_);
  EXPECT_EQ(view_.dl.ndim, 2);
  EXPECT_EQ(shape_[0], 2);
  EXPECT_EQ(shape_[1], 3);
  EXPECT_EQ(view_.dl.shape, shape_);
  EXPECT_EQ(view_.dl.strides, nullptr);
  EXPECT_EQ(view_.dl.byte_offset, 0u);
  EXPECT_EQ(view_.dtype, Dtype::kFloat32);
  EXPECT_EQ(view_.nbytes, 24);
  EXPECT_TRUE(view_.read_only);
  EXPECT_NE(view_.owner, tensor.get());
  EXPECT_EQ(owners_.added(), 1);
  tensor.reset();
  EXPECT_EQ(fake_->tensors, 1);
}

TEST_F(ExportTensor, TakesTheTensorWithoutAnAlias) {
  TF_Tensor* tensor = tensorOf(floats({6}, 24)).release();
  exportTensor(api(), tensor, /*take=*/true, shape_, &view_);
  EXPECT_EQ(view_.owner, tensor);
  EXPECT_EQ(fake_->allocate_calls, 0);
  EXPECT_EQ(owners_.added(), 1);
  view_.reset();
  EXPECT_EQ(fake_->tensors, 0);
}

TEST_F(ExportTensor, RefusesNull) {
  expectError(ErrorCode::kInvalidHandle, {"TF_Tensor", "null"},
              [&] { exportTensor(api(), nullptr, false, shape_, &view_); });
}

TEST_F(ExportTensor, RefusesANegativeDimension) {
  expectRefused(floats({2, -1}, 24), ErrorCode::kInvalidHandle, {"shape", "negative"});
  expectRefused(floats({-1}, 24), ErrorCode::kInvalidHandle, {"shape"});
}

TEST_F(ExportTensor, RefusesAShapeWhoseCountOverflows) {
  const int64_t big = int64_t{1} << 32;
  expectRefused(floats({big, big}, 24), ErrorCode::kInvalidHandle, {"overflows"});
}

TEST_F(ExportTensor, RefusesAShapeWhoseBytesOverflow) {
  expectRefused(floats({std::numeric_limits<int64_t>::max() / 2}, 24), ErrorCode::kInvalidHandle,
                {"overflows"});
}

TEST_F(ExportTensor, RefusesFewerBytesThanTheShapeNeeds) {
  expectRefused(floats({2, 3}, 23), ErrorCode::kInvalidHandle, {"23 bytes", "24"});
  expectRefused(floats({2, 3}, 0), ErrorCode::kInvalidHandle, {"0 bytes", "24"});
}

TEST_F(ExportTensor, AcceptsMoreBytesThanTheShapeNeeds) {
  TF_Tensor* tensor = tensorOf(floats({2}, 96)).release();
  exportTensor(api(), tensor, /*take=*/true, shape_, &view_);
  EXPECT_EQ(view_.nbytes, 8) << "not the 96 that TensorFlow has";
}

TEST_F(ExportTensor, RefusesMoreDimensionsThanTensorFlowHas) {
  expectRefused(floats(std::vector<int64_t>(255, 1), 4), ErrorCode::kInvalidHandle, {"254", "255"});
}

TEST_F(ExportTensor, AcceptsAsManyDimensionsAsTensorFlowHas) {
  TF_Tensor* tensor = tensorOf(floats(std::vector<int64_t>(254, 1), 4)).release();
  exportTensor(api(), tensor, /*take=*/true, shape_, &view_);
  EXPECT_EQ(view_.dl.ndim, 254);
}

TEST_F(ExportTensor, RefusesAnUnknownRank) {
  FakeSpec spec = floats({}, 4);
  spec.ndim = -1;
  expectRefused(spec, ErrorCode::kInvalidHandle, {"dimensions", "-1"});
}

TEST_F(ExportTensor, RefusesUnknownDtypesByNumber) {
  // A newer TensorFlow; TF1's _REF dtypes; garbage.
  for (int dtype : {34, 63, 101, 133, -1, 1 << 30}) {
    FakeSpec spec = floats({}, 4);
    spec.dtype = dtype;
    expectRefused(spec, ErrorCode::kUnsupportedDtype, {std::to_string(dtype), "tf.cast"});
  }
}

TEST_F(ExportTensor, RefusesDtypesWithoutElements) {
  for (int dtype : {7, 20, 21}) {
    FakeSpec spec = floats({}, 4);
    spec.dtype = dtype;
    const DtypeInfo& row = dtypeInfo(dtypeFromTf(dtype));
    expectRefused(spec, ErrorCode::kUnsupportedDtype, {row.name, row.reason});
  }
}

TEST_F(ExportTensor, ReportsThatTheAliasCannotBeAllocated) {
  TfTensor tensor = tensorOf(floats({6}, 24));
  fake_->allocate_fails = true;
  expectError(ErrorCode::kOutOfMemory, {"TF_AllocateTensor"},
              [&] { exportTensor(api(), tensor.get(), false, shape_, &view_); });
  EXPECT_EQ(fake_->tensors, 1);
  EXPECT_EQ(owners_.added(), 0);
}

TEST_F(ExportTensor, ReportsThatTheAliasCannotBePointedAtTheBuffer) {
  TfTensor tensor = tensorOf(floats({6}, 24));
  fake_->bitcast_error = "the buffers do not match";
  expectError(ErrorCode::kTensorFlow, {"TF_TensorBitcastFrom", "the buffers do not match"},
              [&] { exportTensor(api(), tensor.get(), false, shape_, &view_); });
  EXPECT_EQ(fake_->tensors, 1) << "the incomplete alias was deleted";
  EXPECT_EQ(owners_.added(), 0);
  // The thread does not keep the failure.
  fake_->bitcast_error = nullptr;
  exportTensor(api(), tensor.get(), false, shape_, &view_);
}

TEST_F(ExportTensor, ZeroElementsNeedNoMemory) {
  FakeSpec spec = floats({3, 0, 2}, 0);
  spec.data = nullptr;
  TfTensor tensor = tensorOf(spec);
  exportTensor(api(), tensor.get(), /*take=*/false, shape_, &view_);
  EXPECT_EQ(view_.nbytes, 0);
  EXPECT_EQ(view_.dl.data, nullptr);
}

TEST_F(ExportTensor, EveryDtypeWithElementsIsExportedAsItsRow) {
  for (int i = 0; i < static_cast<int>(Dtype::kCount); ++i) {
    const DtypeInfo& row = dtypeInfo(static_cast<Dtype>(i));
    if (row.tf_enum == 0 || row.kind == DtypeKind::kRefused) continue;
    FakeSpec spec = floats({2, 2}, 4u * row.itemsize);
    spec.dtype = row.tf_enum;
    TF_Tensor* tensor = tensorOf(spec).release();
    exportTensor(api(), tensor, /*take=*/true, shape_, &view_);
    EXPECT_EQ(view_.dtype, static_cast<Dtype>(i)) << row.name;
    EXPECT_EQ(view_.nbytes, 4 * row.itemsize) << row.name;
    EXPECT_EQ(view_.dl.dtype.code, row.dl.code) << row.name;
    EXPECT_EQ(view_.dl.dtype.bits, row.dl.bits) << row.name;
    view_.reset();
  }
}

}  // namespace
}  // namespace tensor_bridge::testing
