// exportTensor() over a TensorFlow that lies and fails.

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "adapters/tensorflow/reader.h"
#include "core/owner_counter.h"
#include "support/expect_error.h"
#include "support/fake_library.h"
#include "support/owner_scope.h"

namespace tensor_bridge::testing {
namespace {

class ExportTensor : public FakeTensorflowTest {
 protected:
  // Both ways of exporting must refuse the tensor, and leave it with the caller.
  void expectRefused(const FakeSpec& spec, ErrorCode code, const std::vector<std::string>& parts) {
    OwnerScope owners(liveOwners);
    for (bool take : {false, true}) {
      TF_Tensor* tensor = fake_->tensor(&spec);
      int64_t shape[kMaxDims];
      TensorRef view;
      expectError(code, parts, [&] { exportTensor(api(), tensor, take, shape, &view); });
      EXPECT_EQ(owners.added(), 0);
      EXPECT_EQ(fake_->tensors, 1) << "the tensor is still the caller's, and the only one";
      api().TF_DeleteTensor(tensor);
    }
  }

  FakeSpec floats(const std::vector<int64_t>& dims, size_t byte_size) {
    FakeSpec spec;
    spec.ndim = static_cast<int>(dims.size());
    spec.dims = dims.data();
    spec.byte_size = byte_size;
    spec.data = data_;
    return spec;
  }

  alignas(64) float data_[24] = {};
};

TEST_F(ExportTensor, SharesThroughAnAliasThatOutlivesTheTensor) {
  OwnerScope owners(liveOwners);
  const std::vector<int64_t> dims = {2, 3};
  const FakeSpec spec = floats(dims, 24);
  TF_Tensor* tensor = fake_->tensor(&spec);
  int64_t shape[kMaxDims];
  TensorRef view;
  exportTensor(api(), tensor, /*take=*/false, shape, &view);
  EXPECT_EQ(view.dl.data, data_);
  EXPECT_EQ(view.dl.ndim, 2);
  EXPECT_EQ(shape[0], 2);
  EXPECT_EQ(shape[1], 3);
  EXPECT_EQ(view.dl.shape, shape);
  EXPECT_EQ(view.dl.strides, nullptr);
  EXPECT_EQ(view.dl.byte_offset, 0u);
  EXPECT_EQ(view.dtype, Dtype::kFloat32);
  EXPECT_EQ(view.nbytes, 24);
  EXPECT_TRUE(view.read_only);
  EXPECT_NE(view.owner, tensor);
  EXPECT_EQ(owners.added(), 1);
  api().TF_DeleteTensor(tensor);
  EXPECT_EQ(fake_->tensors, 1);
  view.reset();
}

TEST_F(ExportTensor, TakesTheTensorWithoutAnAlias) {
  OwnerScope owners(liveOwners);
  const std::vector<int64_t> dims = {6};
  const FakeSpec spec = floats(dims, 24);
  TF_Tensor* tensor = fake_->tensor(&spec);
  int64_t shape[kMaxDims];
  TensorRef view;
  exportTensor(api(), tensor, /*take=*/true, shape, &view);
  EXPECT_EQ(view.owner, tensor);
  EXPECT_EQ(fake_->allocate_calls, 0);
  EXPECT_EQ(owners.added(), 1);
  view.reset();
  EXPECT_EQ(fake_->tensors, 0);
}

TEST_F(ExportTensor, RefusesNull) {
  int64_t shape[kMaxDims];
  TensorRef view;
  expectError(ErrorCode::kInvalidHandle, {"TF_Tensor", "null"},
              [&] { exportTensor(api(), nullptr, false, shape, &view); });
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
  const std::vector<int64_t> dims = {2};
  const FakeSpec spec = floats(dims, 96);
  TF_Tensor* tensor = fake_->tensor(&spec);
  int64_t shape[kMaxDims];
  TensorRef view;
  exportTensor(api(), tensor, /*take=*/true, shape, &view);
  EXPECT_EQ(view.nbytes, 8) << "not the 96 that TensorFlow has";
  view.reset();
}

TEST_F(ExportTensor, RefusesMoreDimensionsThanTensorFlowHas) {
  const std::vector<int64_t> ones(255, 1);
  expectRefused(floats(ones, 4), ErrorCode::kInvalidHandle, {"254", "255"});
}

TEST_F(ExportTensor, AcceptsAsManyDimensionsAsTensorFlowHas) {
  const std::vector<int64_t> ones(254, 1);
  const FakeSpec spec = floats(ones, 4);
  TF_Tensor* tensor = fake_->tensor(&spec);
  int64_t shape[kMaxDims];
  TensorRef view;
  exportTensor(api(), tensor, /*take=*/true, shape, &view);
  EXPECT_EQ(view.dl.ndim, 254);
  view.reset();
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
  OwnerScope owners(liveOwners);
  const std::vector<int64_t> dims = {6};
  const FakeSpec spec = floats(dims, 24);
  TF_Tensor* tensor = fake_->tensor(&spec);
  fake_->allocate_fails = true;
  int64_t shape[kMaxDims];
  TensorRef view;
  expectError(ErrorCode::kOutOfMemory, {"TF_AllocateTensor"},
              [&] { exportTensor(api(), tensor, false, shape, &view); });
  EXPECT_EQ(fake_->tensors, 1);
  EXPECT_EQ(owners.added(), 0);
  api().TF_DeleteTensor(tensor);
}

TEST_F(ExportTensor, ReportsThatTheAliasCannotBePointedAtTheBuffer) {
  OwnerScope owners(liveOwners);
  const std::vector<int64_t> dims = {6};
  const FakeSpec spec = floats(dims, 24);
  TF_Tensor* tensor = fake_->tensor(&spec);
  int64_t shape[kMaxDims];
  TensorRef view;
  fake_->bitcast_error = "the buffers do not match";
  expectError(ErrorCode::kTensorFlow, {"TF_TensorBitcastFrom", "the buffers do not match"},
              [&] { exportTensor(api(), tensor, false, shape, &view); });
  EXPECT_EQ(fake_->tensors, 1) << "the half-made alias is gone";
  EXPECT_EQ(owners.added(), 0);
  // The failure does not stick to the thread.
  fake_->bitcast_error = nullptr;
  exportTensor(api(), tensor, false, shape, &view);
  view.reset();
  api().TF_DeleteTensor(tensor);
}

TEST_F(ExportTensor, ZeroElementsNeedNoMemory) {
  const std::vector<int64_t> dims = {3, 0, 2};
  FakeSpec spec = floats(dims, 0);
  spec.data = nullptr;
  TF_Tensor* tensor = fake_->tensor(&spec);
  int64_t shape[kMaxDims];
  TensorRef view;
  exportTensor(api(), tensor, /*take=*/false, shape, &view);
  EXPECT_EQ(view.nbytes, 0);
  EXPECT_EQ(view.dl.data, nullptr);
  view.reset();
  api().TF_DeleteTensor(tensor);
}

TEST_F(ExportTensor, EveryDtypeWithElementsIsExportedAsItsRow) {
  for (int i = 0; i < static_cast<int>(Dtype::kCount); ++i) {
    const DtypeInfo& row = dtypeInfo(static_cast<Dtype>(i));
    if (row.tf_enum == 0 || row.kind == DtypeKind::kRefused) continue;
    const std::vector<int64_t> dims = {2, 2};
    FakeSpec spec = floats(dims, 4u * row.itemsize);
    spec.dtype = row.tf_enum;
    TF_Tensor* tensor = fake_->tensor(&spec);
    int64_t shape[kMaxDims];
    TensorRef view;
    exportTensor(api(), tensor, /*take=*/true, shape, &view);
    EXPECT_EQ(view.dtype, static_cast<Dtype>(i)) << row.name;
    EXPECT_EQ(view.nbytes, 4 * row.itemsize) << row.name;
    EXPECT_EQ(view.dl.dtype.code, row.dl.code) << row.name;
    EXPECT_EQ(view.dl.dtype.bits, row.dl.bits) << row.name;
    view.reset();
  }
}

}  // namespace
}  // namespace tensor_bridge::testing
