// DLPack structures from other producers: every field is checked before it is used.

#include "core/dlpack_import.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/failing_new.h"
#include "core/managed_tensor.h"
#include "core/owner_counter.h"
#include "support/expect_error.h"
#include "support/owner_scope.h"

namespace tensor_bridge::testing {
namespace {

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

// A producer's structure over six floats, which counts its deletions.
class Producer {
 public:
  Producer() {
    managed.version = {1, 0};
    managed.manager_ctx = this;
    managed.deleter = [](DLManagedTensorVersioned* self) {
      ++static_cast<Producer*>(self->manager_ctx)->deleted;
    };
    managed.dl_tensor.data = data;
    managed.dl_tensor.device = {kDLCPU, 0};
    managed.dl_tensor.dtype = {kDLFloat, 32, 1};
    setShape({2, 3});
  }
  Producer(const Producer&) = delete;

  void setShape(std::vector<int64_t> dims) {
    shape = std::move(dims);
    managed.dl_tensor.shape = shape.data();
    managed.dl_tensor.ndim = static_cast<int32_t>(shape.size());
  }
  void setStrides(std::vector<int64_t> steps) {
    strides = std::move(steps);
    managed.dl_tensor.strides = strides.data();
  }

  alignas(64) float data[64] = {0, 1, 2, 3, 4, 5};
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;
  DLManagedTensorVersioned managed{};
  int deleted = 0;
};

class ImportDlpack : public ::testing::Test {
 protected:
  void expectRefused(ErrorCode code, const std::vector<std::string>& parts) {
    TensorRef view;
    expectError(code, parts, [&] { importDlpack(&producer_.managed, &view); });
    EXPECT_EQ(producer_.deleted, 0) << "still the caller's";
    EXPECT_EQ(owners_.added(), 0);
  }
  TensorRef imported() {
    TensorRef view;
    importDlpack(&producer_.managed, &view);
    EXPECT_EQ(owners_.added(), 1);
    return view;
  }
  void release(TensorRef view) {
    EXPECT_EQ(producer_.deleted, 0);
    view.reset();
    EXPECT_EQ(producer_.deleted, 1);
  }

  OwnerScope owners_{liveOwners};
  Producer producer_;
};

TEST_F(ImportDlpack, ViewsTheMemoryUntilItIsReleased) {
  TensorRef view = imported();
  EXPECT_EQ(view.dl.data, producer_.data);
  EXPECT_EQ(view.dl.ndim, 2);
  EXPECT_EQ(view.dl.shape[1], 3);
  EXPECT_EQ(view.dl.strides, nullptr);
  EXPECT_EQ(view.dtype, Dtype::kFloat32);
  EXPECT_EQ(view.nbytes, 24);
  EXPECT_FALSE(view.read_only);
  producer_.shape = {9, 9};
  EXPECT_EQ(view.dl.shape[0], 2) << "the owner has a copy of the shape";
  release(std::move(view));
}

TEST_F(ImportDlpack, BelievesTheReadOnlyFlag) {
  producer_.managed.flags = DLPACK_FLAG_BITMASK_READ_ONLY;
  TensorRef view = imported();
  EXPECT_TRUE(view.read_only);
  EXPECT_EQ(view.release, releaseManaged);
  release(std::move(view));
}

TEST_F(ImportDlpack, WritableMemoryHasAReleaseOfItsOwn) {
  TensorRef view = imported();
  EXPECT_EQ(view.release, releaseWritable) << "this release marks a storage without protection";
  release(std::move(view));
}

TEST_F(ImportDlpack, IsReleasedWithItsLastReferenceOnAnyThread) {
  producer_.managed.flags = DLPACK_FLAG_BITMASK_READ_ONLY;
  TensorRef view = imported();
  void* second = kManagedOwner.retain(view.owner);
  countOwner(1);
  EXPECT_EQ(owners_.added(), 2);
  view.reset();
  EXPECT_EQ(producer_.deleted, 0);
  std::thread([second] { releaseManaged(second); }).join();
  EXPECT_EQ(producer_.deleted, 1);
}

TEST_F(ImportDlpack, ANullDeleterIsNothingToCall) {
  producer_.managed.deleter = nullptr;
  TensorRef view = imported();
  view.reset();
  EXPECT_EQ(producer_.deleted, 0);
}

TEST_F(ImportDlpack, ByteOffsetMovesTheFirstElement) {
  producer_.managed.dl_tensor.byte_offset = 8;
  producer_.setShape({2});
  TensorRef view = imported();
  EXPECT_EQ(view.dl.data, producer_.data + 2);
  EXPECT_EQ(view.dl.byte_offset, 0u);
  release(std::move(view));
}

TEST_F(ImportDlpack, AnotherMajorVersionIsNotRead) {
  for (uint32_t major : {0u, 2u, 0xffffffffu}) {
    producer_.managed.version.major = major;
    // Only the version makes this structure invalid.
    producer_.managed.dl_tensor.ndim = 1 << 20;
    expectRefused(ErrorCode::kInvalidHandle, {"DLPack 1", std::to_string(major)});
  }
}

TEST_F(ImportDlpack, ANewerMinorVersionIsRead) {
  producer_.managed.version.minor = 99;
  release(imported());
}

TEST_F(ImportDlpack, DevicesThatTorchDoesNotShareAreRefused) {
  for (DLDeviceType type : {kDLCUDAHost, kDLOpenCL, kDLVulkan, kDLMetal}) {
    producer_.managed.dl_tensor.device.device_type = type;
    expectRefused(ErrorCode::kUnsupportedDevice, {std::to_string(type)});
  }
}

TEST_F(ImportDlpack, ShapesThatCannotBeAreRefused) {
  producer_.managed.dl_tensor.ndim = -1;
  expectRefused(ErrorCode::kInvalidHandle, {"-1"});
  producer_.managed.dl_tensor.ndim = 255;
  expectRefused(ErrorCode::kInvalidHandle, {"254", "255"});
  producer_.managed.dl_tensor.ndim = 1;
  producer_.managed.dl_tensor.shape = nullptr;
  expectRefused(ErrorCode::kInvalidHandle, {"no shape"});
  producer_.setShape({2, -3});
  expectRefused(ErrorCode::kInvalidHandle, {"negative"});
  producer_.setShape({kMax, kMax});
  expectRefused(ErrorCode::kInvalidHandle, {"overflows"});
  producer_.setShape({kMax / 2});
  expectRefused(ErrorCode::kInvalidHandle, {"overflows"});
}

TEST_F(ImportDlpack, ElementsWithoutMemoryAreRefused) {
  producer_.managed.dl_tensor.data = nullptr;
  expectRefused(ErrorCode::kInvalidHandle, {"6 elements", "no memory"});
  producer_.setShape({0, 3});
  TensorRef view = imported();
  EXPECT_EQ(view.nbytes, 0);
  release(std::move(view));
}

TEST_F(ImportDlpack, AScalarNeedsNoShape) {
  producer_.managed.dl_tensor.ndim = 0;
  producer_.managed.dl_tensor.shape = nullptr;
  TensorRef view = imported();
  EXPECT_EQ(view.dl.ndim, 0);
  EXPECT_EQ(view.nbytes, 4);
  release(std::move(view));
}

TEST_F(ImportDlpack, DtypesThatTorchLacksAreRefused) {
  const DLDataType types[] = {
      {kDLFloat, 32, 4},        {kDLFloat, 32, 0}, {kDLFloat, 80, 1}, {kDLInt, 4, 1},
      {kDLOpaqueHandle, 64, 1}, {200, 8, 1},       {255, 8, 1},       {kDLFloat8_e4m3b11fnuz, 8, 1},
  };
  for (const DLDataType& type : types) {
    producer_.managed.dl_tensor.dtype = type;
    expectRefused(ErrorCode::kUnsupportedDtype, {"DLPack"});
  }
}

TEST_F(ImportDlpack, MemoryThatIsNotAlignedForItsDtypeIsRefused) {
  producer_.managed.dl_tensor.byte_offset = 2;
  producer_.setShape({2});
  expectRefused(ErrorCode::kInvalidHandle, {"aligned", "float32"});
}

TEST_F(ImportDlpack, RowMajorStridesAreNoStrides) {
  producer_.setStrides({3, 1});
  TensorRef view = imported();
  EXPECT_EQ(view.dl.strides, nullptr);
  release(std::move(view));
}

TEST_F(ImportDlpack, OtherStridesAreKeptAndMeasured) {
  producer_.setStrides({1, 2});
  TensorRef view = imported();
  ASSERT_NE(view.dl.strides, nullptr);
  EXPECT_EQ(view.dl.strides[0], 1);
  EXPECT_EQ(view.dl.strides[1], 2);
  EXPECT_EQ(view.nbytes, 24);
  release(std::move(view));
}

TEST_F(ImportDlpack, GapsAndRepeatsAreMeasuredByTheirExtent) {
  producer_.setStrides({10, 2});
  TensorRef view = imported();
  EXPECT_EQ(view.nbytes, (10 + 2 * 2 + 1) * 4);
  release(std::move(view));
  producer_.deleted = 0;
  producer_.setStrides({0, 0});
  view = imported();
  EXPECT_EQ(view.nbytes, 4) << "expanded";
  release(std::move(view));
}

TEST_F(ImportDlpack, StridesThatCannotBeAreRefused) {
  producer_.setStrides({3, -1});
  expectRefused(ErrorCode::kUnsupportedType, {"negative strides", "-1"});
  producer_.setStrides({kMax, kMax});
  expectRefused(ErrorCode::kInvalidHandle, {"strides overflow"});
  producer_.setStrides({kMax / 2, 1});
  expectRefused(ErrorCode::kInvalidHandle, {"strides overflow"});
}

TEST_F(ImportDlpack, WithoutMemoryOfOurOwnLeavesTheStructure) {
  TensorRef view;
  {
    NoMemory scope;
    EXPECT_THROW(importDlpack(&producer_.managed, &view), std::bad_alloc);
  }
  EXPECT_EQ(producer_.deleted, 0);
  EXPECT_EQ(owners_.added(), 0);
}

TEST(DtypeFromDlpack, FindsEveryRowThatTorchAndDlpackShare) {
  for (int i = 0; i < static_cast<int>(Dtype::kCount); ++i) {
    const DtypeInfo& row = dtypeInfo(static_cast<Dtype>(i));
    if (row.torch_scalar < 0 || row.dl.code == 255) continue;
    EXPECT_EQ(dtypeFromDlpack(row.dl), static_cast<Dtype>(i)) << row.name;
  }
}

TEST(FromUnversioned, WrapsAndDeletesTheOldStructure) {
  static int deleted;
  deleted = 0;
  float data[2] = {1, 2};
  int64_t shape[1] = {2};
  DLManagedTensor old{};
  old.dl_tensor.data = data;
  old.dl_tensor.ndim = 1;
  old.dl_tensor.shape = shape;
  old.dl_tensor.dtype = {kDLFloat, 32, 1};
  old.dl_tensor.device = {kDLCPU, 0};
  old.deleter = [](DLManagedTensor*) { ++deleted; };
  DLManagedTensorVersioned* managed = fromUnversioned(&old);
  EXPECT_EQ(managed->version.major, 1u);
  EXPECT_EQ(managed->flags, 0u) << "the memory is not read-only";
  EXPECT_EQ(managed->dl_tensor.data, data);
  managed->deleter(managed);
  EXPECT_EQ(deleted, 1);
  old.deleter = nullptr;
  managed = fromUnversioned(&old);
  managed->deleter(managed);
}

// --- structures that we make --------------------------------------------------------------------

TEST(AllocateDlpack, MakesAlignedWritableMemory) {
  int64_t shape[2] = {3, 5};
  DLTensor prototype{};
  prototype.device = {kDLCPU, 0};
  prototype.dtype = {kDLInt, 16, 1};
  prototype.ndim = 2;
  prototype.shape = shape;
  DLManagedTensorVersioned* managed = allocateDlpack(prototype);
  shape[0] = 0;
  EXPECT_EQ(managed->dl_tensor.shape[0], 3);
  EXPECT_EQ(managed->dl_tensor.strides[0], 5);
  EXPECT_EQ(managed->flags, 0u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(managed->dl_tensor.data) % 256, 0u);
  static_cast<int16_t*>(managed->dl_tensor.data)[14] = 7;
  managed->deleter(managed);
}

TEST(AllocateDlpack, RefusesWhatItCannotMake) {
  int64_t shape[2] = {kMax, kMax};
  DLTensor prototype{};
  prototype.device = {kDLCUDA, 0};
  prototype.dtype = {kDLFloat, 32, 1};
  prototype.ndim = 2;
  prototype.shape = shape;
  expectError(ErrorCode::kUnsupportedDevice, {"CPU"}, [&] { allocateDlpack(prototype); });
  prototype.device = {kDLCPU, 0};
  expectError(ErrorCode::kInvalidHandle, {"overflows"}, [&] { allocateDlpack(prototype); });
  prototype.ndim = -1;
  expectError(ErrorCode::kInvalidHandle, {}, [&] { allocateDlpack(prototype); });
  prototype.ndim = 0;
  prototype.dtype = {kDLFloat, 32, 2};
  expectError(ErrorCode::kUnsupportedDtype, {"lane"}, [&] { allocateDlpack(prototype); });
}

TEST(CopyToDlpack, IsIndependentAndSaysSo) {
  float data[6] = {0, 1, 2, 3, 4, 5};
  int64_t shape[1] = {6};
  TensorView view{};
  view.dl.data = data;
  view.dl.device = {kDLCPU, 0};
  view.dl.dtype = {kDLFloat, 32, 1};
  view.dl.ndim = 1;
  view.dl.shape = shape;
  view.dtype = Dtype::kFloat32;
  view.read_only = true;
  view.nbytes = sizeof(data);
  DLManagedTensorVersioned* managed = copyToDlpack(view);
  EXPECT_EQ(managed->flags, DLPACK_FLAG_BITMASK_IS_COPIED);
  EXPECT_NE(managed->dl_tensor.data, data);
  EXPECT_EQ(static_cast<const float*>(managed->dl_tensor.data)[5], 5.0f);
  managed->deleter(managed);
  view.dtype = Dtype::kInt4;
  expectError(ErrorCode::kUnsupportedDtype, {"int4"}, [&] { copyToDlpack(view); });
}

}  // namespace
}  // namespace tensor_bridge::testing
