#include "core/managed_tensor.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#include "core/failing_new.h"
#include "support/expect_error.h"

namespace tensor_bridge::testing {
namespace {

struct Owner {
  std::atomic<int> released{0};
};

void releaseOwner(void* owner) { static_cast<Owner*>(owner)->released.fetch_add(1); }

class ManagedTensorTest : public ::testing::Test {
 protected:
  TensorRef refTo(std::vector<int64_t>* shape, Dtype dtype = Dtype::kFloat32) {
    TensorView view{};
    view.dl.data = data_;
    view.dl.device = DLDevice{kDLCPU, 0};
    view.dl.ndim = static_cast<int32_t>(shape->size());
    view.dl.dtype = dtypeInfo(dtype).dl;
    view.dl.shape = shape->data();
    view.dtype = dtype;
    view.read_only = true;
    view.nbytes = sizeof(data_);
    return TensorRef(view, &owner_, releaseOwner);
  }

  static tb_tensor* managed(TensorRef ref) { return makeManagedTensor(&ref).release(); }
  tb_tensor* make(std::vector<int64_t> shape = {2, 3}) { return managed(refTo(&shape)); }

  Owner owner_;
  float data_[6] = {0, 1, 2, 3, 4, 5};
};

TEST_F(ManagedTensorTest, OutlivesTheShapeItWasMadeFrom) {
  auto shape = std::make_unique<std::vector<int64_t>>(std::vector<int64_t>{2, 3});
  tb_tensor* tensor = managed(refTo(shape.get()));
  shape.reset();
  EXPECT_EQ(tensor->shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(tensor->strides, (std::vector<int64_t>{3, 1})) << "null strides are row-major";
  EXPECT_EQ(tensor->ref.dl.shape, tensor->shape.data());
  EXPECT_EQ(tensor->ref.dl.strides, tensor->strides.data());
  EXPECT_EQ(tensor->ref.dl.data, data_);
  dropReference(tensor);
  EXPECT_EQ(owner_.released, 1);
}

TEST_F(ManagedTensorTest, KeepsGivenStrides) {
  std::vector<int64_t> shape = {2, 3};
  std::vector<int64_t> strides = {1, 2};
  TensorRef ref = refTo(&shape);
  ref.dl.strides = strides.data();
  tb_tensor* tensor = managed(std::move(ref));
  strides = {0, 0};
  EXPECT_EQ(tensor->strides, (std::vector<int64_t>{1, 2}));
  dropReference(tensor);
}

TEST_F(ManagedTensorTest, HasNoDimensionsForAScalar) {
  tb_tensor* tensor = make({});
  EXPECT_EQ(tensor->ref.dl.ndim, 0);
  DLManagedTensorVersioned* managed = toDlpack(tensor);
  EXPECT_EQ(managed->dl_tensor.ndim, 0);
  EXPECT_EQ(managed->dl_tensor.data, data_);
  managed->deleter(managed);
  dropReference(tensor);
  EXPECT_EQ(owner_.released, 1);
}

TEST_F(ManagedTensorTest, LeavesTheOwnerToTheReferenceWhenThereIsNoMemory) {
  std::vector<int64_t> shape = {2, 3};
  TensorRef ref = refTo(&shape);
  // The first allocation is the structure, the second its shape, the third its strides.
  for (int allowed = 0; allowed < 3; ++allowed) {
    NoMemory scope(allowed);
    EXPECT_THROW(static_cast<void>(makeManagedTensor(&ref)), std::bad_alloc) << allowed;
  }
  EXPECT_EQ(ref.owner, &owner_);
  EXPECT_EQ(owner_.released, 0);
}

TEST_F(ManagedTensorTest, NullIsIgnored) { dropReference(nullptr); }

TEST_F(ManagedTensorTest, DlpackSaysReadOnlyAndItsVersion) {
  tb_tensor* tensor = make();
  DLManagedTensorVersioned* managed = toDlpack(tensor);
  EXPECT_EQ(managed->version.major, 1u);
  EXPECT_EQ(managed->version.minor, static_cast<uint32_t>(DLPACK_MINOR_VERSION));
  EXPECT_EQ(managed->flags, DLPACK_FLAG_BITMASK_READ_ONLY);
  EXPECT_EQ(managed->dl_tensor.data, data_);
  EXPECT_EQ(managed->dl_tensor.byte_offset, 0u);
  EXPECT_EQ(managed->dl_tensor.device.device_type, kDLCPU);
  EXPECT_EQ(managed->dl_tensor.dtype.code, kDLFloat);
  EXPECT_EQ(managed->dl_tensor.dtype.bits, 32);
  EXPECT_EQ(managed->dl_tensor.dtype.lanes, 1);
  ASSERT_EQ(managed->dl_tensor.ndim, 2);
  EXPECT_EQ(managed->dl_tensor.shape[0], 2);
  EXPECT_EQ(managed->dl_tensor.shape[1], 3);
  ASSERT_NE(managed->dl_tensor.strides, nullptr);
  EXPECT_EQ(managed->dl_tensor.strides[0], 3);
  EXPECT_EQ(managed->dl_tensor.strides[1], 1);
  ASSERT_NE(managed->deleter, nullptr);
  managed->deleter(managed);
  dropReference(tensor);
}

TEST_F(ManagedTensorTest, DlpackOfAWritableViewIsNotReadOnly) {
  std::vector<int64_t> shape = {6};
  TensorRef ref = refTo(&shape);
  ref.read_only = false;
  tb_tensor* tensor = managed(std::move(ref));
  DLManagedTensorVersioned* managed = toDlpack(tensor);
  EXPECT_EQ(managed->flags, 0u);
  managed->deleter(managed);
  dropReference(tensor);
}

TEST_F(ManagedTensorTest, OwnerIsReleasedWithTheLastReference) {
  tb_tensor* tensor = make();
  DLManagedTensorVersioned* first = toDlpack(tensor);
  DLManagedTensorVersioned* second = toDlpack(tensor);
  first->deleter(first);
  EXPECT_EQ(owner_.released, 0);
  dropReference(tensor);
  EXPECT_EQ(owner_.released, 0);
  EXPECT_EQ(second->dl_tensor.shape[1], 3) << "still valid after the handle is gone";
  EXPECT_EQ(static_cast<const float*>(second->dl_tensor.data)[5], 5.0f);
  second->deleter(second);
  EXPECT_EQ(owner_.released, 1);
}

TEST_F(ManagedTensorTest, DlpackMayBeDeletedOnAnotherThreadAfterTheHandle) {
  tb_tensor* tensor = make();
  DLManagedTensorVersioned* managed = toDlpack(tensor);
  dropReference(tensor);
  std::thread([managed] { managed->deleter(managed); }).join();
  EXPECT_EQ(owner_.released, 1);
}

TEST_F(ManagedTensorTest, ReferencesMayBeDroppedOnManyThreadsAtOnce) {
  for (int round = 0; round < 50; ++round) {
    owner_.released = 0;
    tb_tensor* tensor = make();
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      DLManagedTensorVersioned* managed = toDlpack(tensor);
      threads.emplace_back([managed] { managed->deleter(managed); });
    }
    dropReference(tensor);
    for (std::thread& thread : threads) thread.join();
    ASSERT_EQ(owner_.released, 1);
  }
}

TEST_F(ManagedTensorTest, RefusesWhatDlpackCannotSayAndKeepsNoReference) {
  for (Dtype dtype : {Dtype::kInt4, Dtype::kQInt8, Dtype::kFloat4E2M1FN, Dtype::kUInt2}) {
    owner_.released = 0;
    std::vector<int64_t> shape = {6};
    tb_tensor* tensor = managed(refTo(&shape, dtype));
    expectError(ErrorCode::kUnsupportedDtype, {"DLPack", dtypeInfo(dtype).name},
                [&] { toDlpack(tensor); });
    dropReference(tensor);
    EXPECT_EQ(owner_.released, 1) << dtypeInfo(dtype).name;
  }
}

TEST_F(ManagedTensorTest, DlpackWithoutMemoryKeepsNoReference) {
  tb_tensor* tensor = make();
  {
    NoMemory scope;
    EXPECT_THROW(toDlpack(tensor), std::bad_alloc);
  }
  dropReference(tensor);
  EXPECT_EQ(owner_.released, 1);
}

TEST_F(ManagedTensorTest, ReferenceReleasesItsOwnerUnlessItIsTaken) {
  std::vector<int64_t> shape = {6};
  EXPECT_EQ(refTo(&shape).take(), &owner_);
  EXPECT_EQ(owner_.released, 0);
  {
    TensorRef ref = refTo(&shape);
  }
  EXPECT_EQ(owner_.released, 1);
  {
    TensorRef ref(refTo(&shape), nullptr, releaseOwner);
    owner_.released = 0;
  }
  EXPECT_EQ(owner_.released, 0) << "nothing to release";
  refTo(&shape).reset();
  EXPECT_EQ(owner_.released, 1);
}

TEST_F(ManagedTensorTest, ReferenceThatMovesHasItsOwnerReleasedOnce) {
  std::vector<int64_t> shape = {6};
  Owner other;
  {
    TensorRef first = refTo(&shape);
    TensorRef second = std::move(first);
    EXPECT_EQ(first.owner, nullptr);
    EXPECT_EQ(second.owner, &owner_);
    EXPECT_EQ(second.dl.data, data_);
    TensorRef third(second, &other, releaseOwner);
    third = std::move(second);
    EXPECT_EQ(other.released, 1) << "the tensor that it held before";
    EXPECT_EQ(third.owner, &owner_);
    EXPECT_EQ(owner_.released, 0);
    TensorRef& same = third;
    third = std::move(same);
    EXPECT_EQ(owner_.released, 0);
  }
  EXPECT_EQ(owner_.released, 1);
}

}  // namespace
}  // namespace tensor_bridge::testing
