// The types of the SDK that do not need torch: OwnedTfTensor, ManagedTensor, dtypeTable, Error.

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "dlpack/dlpack.h"
#include "support/expect_error.h"
#include "support/owner_scope.h"
#include "support/tf_tensor.h"
#include "tensor_bridge/dtype.h"
#include "tensor_bridge/managed_tensor.h"
#include "tensor_bridge/tensorflow.h"
#include "tensor_bridge/version.h"

namespace tensor_bridge::testing {
namespace {

static_assert(!std::is_copy_constructible_v<OwnedTfTensor>);
static_assert(!std::is_copy_assignable_v<OwnedTfTensor>);
static_assert(std::is_nothrow_move_constructible_v<OwnedTfTensor>);
static_assert(!std::is_copy_constructible_v<ManagedTensor>);
static_assert(std::is_nothrow_move_constructible_v<ManagedTensor>);

OwnedTfTensor ownedOver(CountedBuffer* buffer) {
  return OwnedTfTensor(TfTensor(TF_FLOAT, {2}, buffer).release(), TF_DeleteTensor);
}

TEST(OwnedTfTensor, DeletesOnce) {
  CountedBuffer buffer(std::vector<float>{1, 2});
  const OwnedTfTensor owned = ownedOver(&buffer);
  EXPECT_TRUE(owned);
  EXPECT_NE(owned.get(), nullptr);
}

TEST(OwnedTfTensor, MovesAndLeavesNothingBehind) {
  CountedBuffer first(std::vector<float>{1, 2});
  CountedBuffer second(std::vector<float>{3, 4});
  {
    OwnedTfTensor a = ownedOver(&first);
    OwnedTfTensor b = std::move(a);
    EXPECT_FALSE(a);
    OwnedTfTensor c = ownedOver(&second);
    c = std::move(b);
    EXPECT_EQ(second.freed(), 1) << "the tensor that it owned before is deleted";
    EXPECT_EQ(first.freed(), 0);
    OwnedTfTensor& same = c;
    c = std::move(same);
    EXPECT_TRUE(c);
  }
  EXPECT_EQ(first.freed(), 1);
}

TEST(OwnedTfTensor, ReleaseGivesTheTensorBack) {
  CountedBuffer buffer(std::vector<float>{1, 2});
  TF_Tensor* tensor;
  {
    OwnedTfTensor owned = ownedOver(&buffer);
    tensor = owned.release();
    EXPECT_FALSE(owned);
    owned.reset();
  }
  EXPECT_EQ(buffer.freed(), 0);
  TF_DeleteTensor(tensor);
}

TEST(ManagedTensor, ViewsAndKeepsTheMemory) {
  OwnerScope owners(tb_live_owners);
  CountedBuffer buffer(std::vector<float>{1, 2, 3, 4, 5, 6});
  TfTensor source(TF_FLOAT, {2, 3}, &buffer);
  const ManagedTensor tensor = ManagedTensor::fromTf(source.get());
  source.reset();
  EXPECT_EQ(tensor.data(), buffer.data());
  EXPECT_EQ(tensor.ndim(), 2);
  EXPECT_EQ(tensor.shape()[1], 3);
  EXPECT_EQ(tensor.strides()[0], 3);
  EXPECT_STREQ(tensor.dtype(), "float32");
  EXPECT_EQ(tensor.nbytes(), 24);
  EXPECT_EQ(tensor.device(), (Device{DeviceType::kCpu, 0}));
  EXPECT_EQ(buffer.freed(), 0);
}

TEST(ManagedTensor, MovesAndMayDieElsewhere) {
  OwnerScope owners(tb_live_owners);
  CountedBuffer buffer(std::vector<float>{1, 2});
  const TfTensor other = TfTensor::floats({9});
  ManagedTensor tensor = ManagedTensor::fromTf(TfTensor(TF_FLOAT, {2}, &buffer).get());
  ManagedTensor moved = std::move(tensor);
  EXPECT_EQ(moved.data(), buffer.data());
  std::thread([inside = std::move(moved)] { EXPECT_EQ(inside.ndim(), 1); }).join();
  EXPECT_EQ(buffer.freed(), 1);
  tensor = ManagedTensor::fromTf(other.get());
  EXPECT_EQ(tensor.data(), other.data()) << "a moved-from tensor can be assigned";
}

TEST(ManagedTensor, GivesReadOnlyDlpack) {
  OwnerScope owners(tb_live_owners);
  const TfTensor source = TfTensor::floats({1, 2});
  DLManagedTensorVersioned* managed = ManagedTensor::fromTf(source.get()).toDlpack();
  EXPECT_EQ(managed->dl_tensor.data, source.data());
  EXPECT_EQ(managed->flags, DLPACK_FLAG_BITMASK_READ_ONLY);
  managed->deleter(managed);
}

TEST(ManagedTensor, RefusesWhatItCannotView) {
  OwnerScope owners(tb_live_owners);
  expectError(ErrorCode::kInvalidHandle, {"null"}, [] { ManagedTensor::fromTf(nullptr); });
  const TfTensor packed(TF_UINT4, {2}, std::vector<uint8_t>{1, 2});
  expectError(ErrorCode::kUnsupportedDtype, {"DLPack", "uint4"},
              [&] { ManagedTensor::fromTf(packed.get()).toDlpack(); });
}

TEST(DtypeTable, HasEveryRow) {
  const std::vector<DtypeRow> rows = dtypeTable();
  EXPECT_EQ(rows.size(), 36u);
  EXPECT_STREQ(rows[0].name, "float32");
  EXPECT_EQ(rows[0].tf_enum, TF_FLOAT);
}

TEST(UseTensorFlow, ThrowsForWhatIsNone) {
  expectError(ErrorCode::kInvalidHandle, {"dlopen"}, [] { useTensorFlow(nullptr); });
}

TEST(Device, ComparesTypeAndIndex) {
  EXPECT_EQ((Device{DeviceType::kCuda, 1}), (Device{DeviceType::kCuda, 1}));
  EXPECT_NE((Device{DeviceType::kCuda, 1}), (Device{DeviceType::kCuda, 0}));
  EXPECT_NE((Device{DeviceType::kCuda, 1}), (Device{DeviceType::kRocm, 1}));
  EXPECT_EQ(Device{}, (Device{DeviceType::kCpu, -1}));
}

}  // namespace
}  // namespace tensor_bridge::testing
