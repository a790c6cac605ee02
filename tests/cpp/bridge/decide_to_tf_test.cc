// decideToTf(): which torch tensors are shared with TensorFlow, copied, encoded or refused. No
// framework is loaded.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <string>
#include <vector>

#include "adapters/tensorflow/owner.h"
#include "bridge/fake_adapter.h"
#include "bridge/to_tf.h"
#include "core/error.h"
#include "support/expect_error.h"

namespace tensor_bridge::testing {
namespace {

using ::testing::HasSubstr;

class DecideToTf : public ::testing::Test {
 protected:
  DecideToTf() : options_(checkedToTfOptions(nullptr)) {
    adapter_.table.shares = true;
    facts_.obstacle = Obstacle::kNone;
    facts_.dtype = Dtype::kFloat32;
    facts_.device = DLDevice{kDLCPU, 0};
    facts_.ndim = 2;
    facts_.shape = shape_;
    facts_.data = data_;
    facts_.nbytes = 24;
    std::snprintf(facts_.name, sizeof(facts_.name), "Something");
  }

  ToTfPlan plan() { return decideToTf(facts_, options_, adapter_.table); }

  std::string outcome() {
    try {
      switch (plan().action) {
        case ToTfAction::kSame:
          return "same";
        case ToTfAction::kShare:
          return "share";
        case ToTfAction::kCopy:
          return "copy";
        case ToTfAction::kEncode:
          return "encode";
      }
      return "?";
    } catch (const Error& e) {
      return statusName(static_cast<tb_status>(e.code()));
    }
  }

  // Outcomes for copy=None, False, True.
  void expectOutcomes(const std::string& none, const std::string& never,
                      const std::string& always) {
    options_.copy = TB_COPY_AUTO;
    EXPECT_EQ(outcome(), none);
    options_.copy = TB_COPY_NEVER;
    EXPECT_EQ(outcome(), never);
    options_.copy = TB_COPY_ALWAYS;
    EXPECT_EQ(outcome(), always);
    options_.copy = TB_COPY_AUTO;
  }

  void comesFromTensorFlow() { facts_.foreign_tag = OwnerTag::kTfTensor; }

  FakeAdapter adapter_;
  tb_convert_back_options options_;
  TorchFacts facts_{};
  int64_t shape_[2] = {2, 3};
  alignas(64) char data_[64] = {};
};

TEST_F(DecideToTf, TorchsMemoryIsShared) {
  expectOutcomes("share", "share", "copy");
  EXPECT_EQ(plan().dtype, Dtype::kFloat32);
  EXPECT_FALSE(plan().detached);
}

TEST_F(DecideToTf, TensorFlowsMemoryGoesBackAsItIs) {
  comesFromTensorFlow();
  expectOutcomes("same", "same", "copy");
}

TEST_F(DecideToTf, WithoutProtectionOnlyTensorFlowsMemoryGoesBack) {
  adapter_.table.shares = false;
  expectOutcomes("copy", "COPY_REQUIRED", "copy");
  comesFromTensorFlow();
  expectOutcomes("same", "same", "copy");
}

TEST_F(DecideToTf, SomeObstaclesForceACopy) {
  for (Obstacle obstacle :
       {Obstacle::kConjugate, Obstacle::kNegative, Obstacle::kZero, Obstacle::kMkldnn,
        Obstacle::kDevice, Obstacle::kStrided, Obstacle::kMisaligned, Obstacle::kSharedMemory,
        Obstacle::kPinned, Obstacle::kLazyClone, Obstacle::kHooked}) {
    facts_.obstacle = obstacle;
    for (const void* data : {static_cast<const void*>(data_), static_cast<const void*>(nullptr)}) {
      facts_.data = data;
      SCOPED_TRACE(static_cast<int>(obstacle));
      expectOutcomes("copy", "COPY_REQUIRED", "copy");
      EXPECT_STRNE(plan().reason, "");
      options_.copy = TB_COPY_NEVER;
      expectError(ErrorCode::kCopyRequired, {"copy=False", "copy=None"}, [&] { plan(); });
      options_.copy = TB_COPY_AUTO;
    }
  }
}

// The obstacle is not the tensor itself: the producer of the memory may write to it.
TEST_F(DecideToTf, MemoryThatADlpackProducerMayWriteToIsCopied) {
  facts_.foreign_tag = OwnerTag::kWritableDlpack;
  expectOutcomes("copy", "COPY_REQUIRED", "copy");
  EXPECT_THAT(plan().reason, HasSubstr("DLPack producer"));
}

TEST_F(DecideToTf, OtherObstaclesAreErrorsThatSayWhatToDo) {
  const struct {
    Obstacle obstacle;
    ErrorCode code;
    const char* advice;
  } cases[] = {
      {Obstacle::kNotDense, ErrorCode::kUnsupportedType, "to_dense()"},
      {Obstacle::kWrapped, ErrorCode::kUnsupportedType, "outside the transform"},
      {Obstacle::kMeta, ErrorCode::kUnsupportedDevice, "meta device"},
      {Obstacle::kQuantized, ErrorCode::kUnsupportedDtype, "int_repr()"},
      {Obstacle::kUnknownDtype, ErrorCode::kUnsupportedDtype, "Something"},
  };
  for (const auto& c : cases) {
    facts_.obstacle = c.obstacle;
    for (int32_t copy : {TB_COPY_AUTO, TB_COPY_NEVER, TB_COPY_ALWAYS}) {
      options_.copy = copy;
      expectError(c.code, {c.advice}, [&] { plan(); });
    }
  }
}

TEST_F(DecideToTf, EmptyTensorIsNeitherSharedNorCopied) {
  facts_.nbytes = 0;
  facts_.data = nullptr;
  expectOutcomes("copy", "copy", "copy");
}

TEST_F(DecideToTf, MoreDimensionsThanTensorFlowHasAreRefused) {
  facts_.ndim = 255;
  expectError(ErrorCode::kUnsupportedType, {"254", "255"}, [&] { plan(); });
}

TEST_F(DecideToTf, GradIsLeftBehindOrRefused) {
  facts_.requires_grad = true;
  EXPECT_TRUE(plan().detached);
  EXPECT_EQ(outcome(), "share");
  options_.grad = TB_GRAD_RAISE;
  expectError(ErrorCode::kInvalidOption, {"requires grad", "detach()"}, [&] { plan(); });
  facts_.requires_grad = false;
  EXPECT_EQ(outcome(), "share");
}

TEST_F(DecideToTf, DtypesThatTensorFlowLacksAreRefusedWithTheReason) {
  for (Dtype dtype : {Dtype::kComplex32, Dtype::kFloat8E8M0FNU, Dtype::kFloat4E2M1FNX2}) {
    facts_.dtype = dtype;
    expectError(ErrorCode::kUnsupportedDtype,
                {dtypeInfo(dtype).torch_name, dtypeInfo(dtype).reason}, [&] { plan(); });
  }
}

TEST_F(DecideToTf, EverySharedDtypeHasItsTwin) {
  for (int i = 0; i < static_cast<int>(Dtype::kCount); ++i) {
    const DtypeInfo& row = dtypeInfo(static_cast<Dtype>(i));
    if (row.kind != DtypeKind::kShared) continue;
    facts_.dtype = static_cast<Dtype>(i);
    for (int tf_dtype : {0, int{row.tf_enum}}) {
      options_.tf_dtype = tf_dtype;
      EXPECT_EQ(outcome(), "share") << row.name;
      EXPECT_EQ(plan().dtype, static_cast<Dtype>(i)) << row.name;
    }
  }
}

TEST_F(DecideToTf, DtypeThatTensorFlowLacksIsRefused) {
  const TfApi* used = detail::g_tf_api.load();
  TfApi older{};
  older.later_dtypes = uint64_t{1} << dtypeInfo(Dtype::kFloat8E4M3FNUZ).tf_enum;
  detail::g_tf_api.store(&older);
  facts_.dtype = Dtype::kFloat8E4M3FNUZ;
  expectError(ErrorCode::kUnsupportedDtype, {"no float8_e4m3fnuz"}, [&] { plan(); });
  facts_.dtype = Dtype::kFloat8E5M2;
  EXPECT_EQ(outcome(), "share");
  detail::g_tf_api.store(used);
}

// --- dtype= -------------------------------------------------------------------------------------

constexpr int kQInt8Enum = 11;
constexpr int kQInt16Enum = 15;
constexpr int kB11Enum = 27;
constexpr int kInt4Enum = 29;
constexpr int kUInt4Enum = 30;
constexpr int kUInt2Enum = 32;
constexpr int kFloat4Enum = 33;

TEST_F(DecideToTf, DtypeThatTorchLacksIsEncodedOrChecked) {
  const struct {
    Dtype from;
    int to;
    const char* expected;
    bool check_range;
  } cases[] = {
      {Dtype::kInt8, kInt4Enum, "encode", false},
      {Dtype::kInt64, kInt4Enum, "encode", false},
      {Dtype::kUInt8, kInt4Enum, "encode", false},
      {Dtype::kUInt64, kInt4Enum, "INVALID_OPTION", false},
      {Dtype::kFloat32, kInt4Enum, "INVALID_OPTION", false},
      {Dtype::kBool, kInt4Enum, "INVALID_OPTION", false},
      {Dtype::kUInt8, kUInt4Enum, "share", true},
      {Dtype::kInt8, kUInt4Enum, "encode", false},
      {Dtype::kUInt8, kUInt2Enum, "share", true},
      {Dtype::kFloat32, kFloat4Enum, "encode", false},
      {Dtype::kBFloat16, kFloat4Enum, "encode", false},
      {Dtype::kInt32, kFloat4Enum, "INVALID_OPTION", false},
      {Dtype::kComplex64, kFloat4Enum, "INVALID_OPTION", false},
      {Dtype::kFloat16, kB11Enum, "encode", false},
      {Dtype::kInt8, kQInt8Enum, "share", false},
      {Dtype::kUInt8, kQInt8Enum, "INVALID_OPTION", false},
      {Dtype::kInt16, kQInt16Enum, "share", false},
      // Torch has this dtype, so the caller can cast with torch.
      {Dtype::kInt32, 1, "INVALID_OPTION", false},
      {Dtype::kFloat32, 2, "INVALID_OPTION", false},
      {Dtype::kFloat32, 7, "INVALID_OPTION", false},
      {Dtype::kFloat32, 99, "INVALID_OPTION", false},
      {Dtype::kFloat32, -1, "INVALID_OPTION", false},
  };
  for (const auto& c : cases) {
    facts_.dtype = c.from;
    options_.tf_dtype = c.to;
    SCOPED_TRACE(std::string(dtypeInfo(c.from).name) + " to " + std::to_string(c.to));
    EXPECT_EQ(outcome(), c.expected);
    if (outcome() == "share" || outcome() == "encode") {
      EXPECT_EQ(plan().check_range, c.check_range);
      EXPECT_EQ(dtypeInfo(plan().dtype).tf_enum, c.to);
    }
  }
}

TEST_F(DecideToTf, EncodingIsACopy) {
  facts_.dtype = Dtype::kInt8;
  options_.tf_dtype = kInt4Enum;
  expectOutcomes("encode", "COPY_REQUIRED", "encode");
}

// --- options ------------------------------------------------------------------------------------

TEST_F(DecideToTf, OptionsAreChecked) {
  const auto refused = [&](const std::vector<std::string>& parts) {
    expectError(ErrorCode::kInvalidOption, parts, [&] { checkedToTfOptions(&options_); });
    options_ = checkedToTfOptions(nullptr);
  };
  EXPECT_EQ(&checkedToTfOptions(&options_), &options_);
  options_.struct_size = 8;
  refused({"struct_size", "tb_convert_back_options_init"});
  options_.copy = 2;
  refused({"copy", "2"});
  options_.copy = -2;
  refused({"copy", "-2"});
  options_.grad = 5;
  refused({"grad", "5"});
}

// --- explain ------------------------------------------------------------------------------------

TEST_F(DecideToTf, ExplanationIsThePlan) {
  tb_explanation explanation;
  explainToTf(facts_, &options_, adapter_.table, &explanation);
  EXPECT_EQ(explanation.action, TB_ACTION_SHARED);
  EXPECT_EQ(explanation.status, TB_OK);
  EXPECT_STREQ(explanation.tf_dtype, "float32");
  EXPECT_STREQ(explanation.torch_dtype, "torch.float32");
  EXPECT_EQ(explanation.nbytes, 24);
  EXPECT_EQ(explanation.ndim, 2);
  EXPECT_EQ(explanation.on_write, -1);

  facts_.requires_grad = true;
  facts_.obstacle = Obstacle::kStrided;
  explainToTf(facts_, &options_, adapter_.table, &explanation);
  EXPECT_EQ(explanation.action, TB_ACTION_COPIED);
  EXPECT_THAT(explanation.reason, HasSubstr("row-major"));
  EXPECT_THAT(explanation.reason, HasSubstr("detached"));

  options_.copy = TB_COPY_NEVER;
  explainToTf(facts_, &options_, adapter_.table, &explanation);
  EXPECT_EQ(explanation.action, TB_ACTION_REFUSED);
  EXPECT_EQ(explanation.status, TB_COPY_REQUIRED);
  EXPECT_THAT(explanation.reason, HasSubstr("copy=False"));
  EXPECT_STREQ(explanation.torch_dtype, "torch.float32");
}

}  // namespace
}  // namespace tensor_bridge::testing
