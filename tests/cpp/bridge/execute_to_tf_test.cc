// executeToTf() and sameHandle(): what they check again after the decision, because another thread
// may have written in between. The adapter and TensorFlow's functions are fakes. Not for: the
// decision (decide_to_tf_test.cc).

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "adapters/tensorflow/tensor_layout.h"
#include "bridge/fake_adapter.h"
#include "bridge/to_tf.h"
#include "core/error.h"
#include "support/expect_error.h"
#include "support/owner_scope.h"

namespace tensor_bridge::testing {
namespace {

// A TF_Tensor of this test: the arguments that it was made with.
struct Made {
  void* data = nullptr;
  void (*deallocator)(void*, size_t, void*) = nullptr;
  void* argument = nullptr;
  std::vector<uint8_t> memory;
};

class ExecuteToTf : public ::testing::Test {
 protected:
  ExecuteToTf() {
    current_ = this;
    facts_.obstacle = Obstacle::kNone;
    facts_.dtype = Dtype::kUInt8;
    facts_.device = DLDevice{kDLCPU, 0};
    facts_.ndim = 1;
    facts_.shape = shape_;
    facts_.data = bytes_;
    facts_.nbytes = facts_.storage_bytes = kCount;
    shared_at_ = bytes_;

    adapter_.table.shares = true;
    adapter_.table.describe = [](tb_torch_tensor*, bool, TorchFacts* facts) {
      *facts = current_->facts_;
    };
    adapter_.table.share = [](tb_torch_tensor*, void** owner, ReleaseFn* release,
                              void** data) -> tb_status {
      if (current_->share_status_ != TB_OK) {
        return setLastError(current_->share_status_, "torch cannot share it");
      }
      countOwner(1);
      *owner = current_;
      *release = released;
      *data = current_->shared_at_;
      return TB_OK;
    };
    adapter_.table.copyOut = [](tb_torch_tensor*, void* out) -> tb_status {
      ++current_->copies_;
      std::memcpy(out, current_->bytes_, kCount);
      return TB_OK;
    };
    api_.TF_NewTensor = [](int, const int64_t*, int, void* data, size_t,
                           void (*deallocator)(void*, size_t, void*), void* argument) {
      return reinterpret_cast<TF_Tensor*>(new Made{data, deallocator, argument, {}});
    };
    api_.TF_AllocateTensor = [](int, const int64_t*, int, size_t size) {
      auto* made = new Made;
      made->memory.resize(size);
      made->data = made->memory.data();
      return reinterpret_cast<TF_Tensor*>(made);
    };
    api_.TF_TensorData = [](const TF_Tensor* t) { return reinterpret_cast<const Made*>(t)->data; };
    api_.TF_DeleteTensor = [](TF_Tensor* tensor) {
      auto* made = reinterpret_cast<Made*>(tensor);
      if (made->deallocator != nullptr) made->deallocator(made->data, 0, made->argument);
      delete made;
    };
  }

  static void released(void*) {
    ++current_->releases_;
    countOwner(-1);
  }

  ToTfPlan planOf(ToTfAction action, int32_t copy = TB_COPY_AUTO) const {
    return ToTfPlan{action, Dtype::kUInt8, false, copy, false, ""};
  }
  TfTensor execute(const ToTfPlan& plan) {
    HeldFacts facts(adapter_.table, nullptr);
    return executeToTf(nullptr, &facts, plan, api_, adapter_.table);
  }
  const void* dataOf(const TfTensor& tensor) const { return api_.TF_TensorData(tensor.get()); }

  void expectCopied() {
    const TfTensor copy = execute(planOf(ToTfAction::kShare));
    EXPECT_EQ(copies_, 1);
    EXPECT_NE(dataOf(copy), shared_at_);
    EXPECT_EQ(std::memcmp(dataOf(copy), bytes_, kCount), 0);
    expectError(ErrorCode::kCopyRequired, {"another thread is writing"},
                [&] { execute(planOf(ToTfAction::kShare, TB_COPY_NEVER)); });
    EXPECT_EQ(copies_, 1);
  }

  static constexpr int64_t kCount = 16;
  static inline ExecuteToTf* current_ = nullptr;
  OwnerScope owners_{liveOwners};
  FakeAdapter adapter_;
  TfApi api_{};
  TorchFacts facts_{};
  int64_t shape_[1] = {kCount};
  alignas(64) uint8_t bytes_[128] = {1, 2, 3};
  void* shared_at_ = nullptr;
  tb_status share_status_ = TB_OK;
  int releases_ = 0;
  int copies_ = 0;
};

TEST_F(ExecuteToTf, SharedBytesGoAlongWithTheirReference) {
  {
    const TfTensor shared = execute(planOf(ToTfAction::kShare, TB_COPY_NEVER));
    EXPECT_EQ(dataOf(shared), bytes_);
    EXPECT_EQ(releases_, 0);
  }
  EXPECT_EQ(releases_, 1);
  EXPECT_EQ(copies_, 0);
}

TEST_F(ExecuteToTf, MemoryThatAnotherThreadMovedOutOfAlignmentIsCopied) {
  shared_at_ = bytes_ + 8;
  expectCopied();
  EXPECT_EQ(releases_, 2) << "the shared reference is not needed";
}

TEST_F(ExecuteToTf, StorageThatAnotherThreadIsWritingToIsCopied) {
  share_status_ = TB_COPY_REQUIRED;
  expectCopied();
}

TEST_F(ExecuteToTf, FailureOfTheAdapterIsPassedOn) {
  share_status_ = TB_OUT_OF_MEMORY;
  expectError(ErrorCode::kOutOfMemory, {"torch cannot share it"},
              [&] { execute(planOf(ToTfAction::kShare)); });
  EXPECT_EQ(copies_, 0);
}

TEST_F(ExecuteToTf, ValuesOutOfRangeAreRefusedSharedAndCopied) {
  bytes_[5] = 16;
  for (const ToTfAction action : {ToTfAction::kShare, ToTfAction::kCopy}) {
    ToTfPlan plan = planOf(action);
    plan.dtype = Dtype::kUInt4;
    plan.check_range = true;
    expectError(ErrorCode::kValueOutOfRange, {"element 5 is 16", "uint4"}, [&] { execute(plan); });
  }
}

TEST_F(ExecuteToTf, EncodedValuesOutOfRangeAreRefused) {
  facts_.dtype = Dtype::kInt64;
  facts_.nbytes = 2 * sizeof(int64_t);
  shape_[0] = 2;
  adapter_.table.castOut = [](tb_torch_tensor*, bool floating, void* out) -> tb_status {
    EXPECT_FALSE(floating);
    const int64_t values[2] = {7, 8};
    std::memcpy(out, values, sizeof(values));
    return TB_OK;
  };
  ToTfPlan plan = planOf(ToTfAction::kEncode);
  plan.dtype = Dtype::kInt4;
  expectError(ErrorCode::kValueOutOfRange, {"element 1 is 8", "int4"}, [&] { execute(plan); });
}

// A tensor that still shows TensorFlow's memory, held by a handle on a tensor of 16 bytes.
class ExecuteSame : public ExecuteToTf {
 protected:
  ExecuteSame() {
    same_ = this;
    BorrowedTensor::make(api_, dtypeInfo(Dtype::kUInt8).tf_enum, shape_, 1, &buffer_, &tensor_);
    inside_ = tensor_.tensor;
    api_.TensorHandle_Tensor = [](const TFE_TensorHandle*, const void** tensor) {
      *tensor = inside_;
      return TfApi::ReturnedStatus{};
    };
    api_.TFE_DeleteTensorHandle = [](TFE_TensorHandle*) { ++same_->releases_; };
    api_.TFE_TensorHandleResolve = [](TFE_TensorHandle*, TF_Status*) {
      return reinterpret_cast<TF_Tensor*>(new Made{same_->bytes_, nullptr, nullptr, {}});
    };
    api_.TF_NewStatus = [] { return reinterpret_cast<TF_Status*>(&inside_); };
    api_.TF_DeleteStatus = [](TF_Status*) {};
    facts_.foreign_tag = OwnerTag::kTfHandle;
    facts_.foreign_owner = this;
    facts_.foreign_release = released;
  }
  bool handsOver(const ToTfPlan& plan) {
    HeldFacts facts(adapter_.table, nullptr);
    return sameHandle(&facts, plan, api_) != nullptr;
  }
  void showsAPart() {
    shape_[0] = 8;
    facts_.nbytes = 8;
  }

  static inline ExecuteSame* same_ = nullptr;
  TensorBuffer buffer_{nullptr, 1, bytes_};
  BorrowedTensor tensor_;
  static inline const void* inside_;
};

TEST_F(ExecuteSame, HandleIsHandedOver) {
  EXPECT_TRUE(handsOver(planOf(ToTfAction::kSame)));
  EXPECT_EQ(releases_, 1) << "by the new owner";
  EXPECT_EQ(owners_.added(), 0);
}

TEST_F(ExecuteSame, HandleIsNotHandedOverForAnotherPlan) {
  for (const ToTfAction action : {ToTfAction::kShare, ToTfAction::kCopy, ToTfAction::kEncode}) {
    EXPECT_FALSE(handsOver(planOf(action)));
  }
  ToTfPlan plan = planOf(ToTfAction::kSame);
  plan.check_range = true;
  EXPECT_FALSE(handsOver(plan)) << "the values must be checked";
  EXPECT_EQ(releases_, 4);
}

TEST_F(ExecuteSame, HandleOfTheWholeIsNotHandedOverForAPart) {
  showsAPart();
  EXPECT_FALSE(handsOver(planOf(ToTfAction::kSame)));
}

TEST_F(ExecuteSame, TensorOfTheHandleIsAskedFor) {
  const TfTensor whole = execute(planOf(ToTfAction::kSame));
  EXPECT_EQ(reinterpret_cast<const Made*>(whole.get())->deallocator, nullptr);
  EXPECT_EQ(releases_, 1) << "the tensor has its own reference";
}

TEST_F(ExecuteSame, PartIsSharedWithAReferenceToTheWhole) {
  showsAPart();
  {
    const TfTensor part = execute(planOf(ToTfAction::kSame));
    EXPECT_EQ(dataOf(part), bytes_);
    EXPECT_NE(reinterpret_cast<const Made*>(part.get())->deallocator, nullptr);
    EXPECT_EQ(releases_, 0);
  }
  EXPECT_EQ(releases_, 1);
}

}  // namespace
}  // namespace tensor_bridge::testing
