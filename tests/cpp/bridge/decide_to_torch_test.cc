// decide(): which conversion is shared, copied, converted or refused. No framework is loaded.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "bridge/fake_adapter.h"
#include "bridge/to_torch.h"
#include "core/error.h"
#include "core/narrow_dtypes.h"
#include "support/expect_error.h"

namespace tensor_bridge::testing {
namespace {

using ::testing::HasSubstr;

// The outcome of a conversion: an action, or the error that refuses it.
std::string outcome(const TensorView& view, const tb_convert_options& options, Source source,
                    const TorchAdapter& adapter) {
  try {
    switch (decide(view, options, source, adapter).spec.action) {
      case WrapAction::kShare:
        return "share";
      case WrapAction::kCopy:
        return "copy";
      case WrapAction::kLookup:
        return "lookup";
    }
    return "?";
  } catch (const Error& e) {
    return statusName(static_cast<tb_status>(e.code()));
  }
}

class Decide : public ::testing::Test {
 protected:
  Decide() { options_ = defaultOptions(); }

  TensorView view(Dtype dtype) {
    TensorView result{};
    result.dl.data = data_;
    result.dl.device = device_;
    result.dl.ndim = 2;
    result.dl.shape = shape_;
    result.dl.dtype = dtypeInfo(dtype).dl;
    result.dtype = dtype;
    result.read_only = true;
    result.nbytes = 6 * dtypeInfo(dtype).itemsize;
    return result;
  }

  Plan plan(Dtype dtype, Source source = Source::kTensor) {
    return decide(view(dtype), options_, source, adapter_.table);
  }

  std::string outcomeOf(Dtype dtype, Source source = Source::kTensor) {
    return outcome(view(dtype), options_, source, adapter_.table);
  }

  void quantize(std::vector<double> scale, std::vector<int64_t> zero_point) {
    scale_ = std::move(scale);
    zero_point_ = std::move(zero_point);
    options_.num_scales = static_cast<int64_t>(scale_.size());
    options_.scale = scale_.data();
    options_.zero_point = zero_point_.data();
  }
  void alongAxis(int64_t axis) {
    options_.has_axis = 1;
    options_.axis = axis;
  }

  FakeAdapter adapter_;
  tb_convert_options options_;
  DLDevice device_{kDLCPU, 0};
  char data_[64] = {};
  int64_t shape_[2] = {2, 3};
  std::vector<double> scale_;
  std::vector<int64_t> zero_point_;
};

// --- dtype x raw x quantization x copy ----------------------------------------------------------

struct Rule {
  Dtype dtype;
  bool raw;
  bool scale;
  // For copy=None, False, True.
  const char* none;
  const char* never;
  const char* always;
};

const Rule kRules[] = {
    {Dtype::kFloat32, false, false, "share", "share", "copy"},
    {Dtype::kFloat32, true, false, "share", "share", "copy"},
    {Dtype::kFloat32, false, true, "INVALID_OPTION", "INVALID_OPTION", "INVALID_OPTION"},
    {Dtype::kFloat8E5M2, false, false, "share", "share", "copy"},
    {Dtype::kUInt4, false, false, "share", "share", "copy"},
    {Dtype::kUInt4, true, false, "share", "share", "copy"},
    {Dtype::kUInt2, false, true, "INVALID_OPTION", "INVALID_OPTION", "INVALID_OPTION"},
    {Dtype::kInt4, false, false, "lookup", "COPY_REQUIRED", "lookup"},
    {Dtype::kInt4, true, false, "share", "share", "copy"},
    {Dtype::kInt4, false, true, "INVALID_OPTION", "INVALID_OPTION", "INVALID_OPTION"},
    {Dtype::kFloat8E4M3B11FNUZ, false, false, "lookup", "COPY_REQUIRED", "lookup"},
    {Dtype::kFloat4E2M1FN, true, false, "share", "share", "copy"},
    {Dtype::kQInt8, false, false, "UNSUPPORTED_DTYPE", "UNSUPPORTED_DTYPE", "UNSUPPORTED_DTYPE"},
    {Dtype::kQInt8, true, false, "share", "share", "copy"},
    {Dtype::kQInt8, false, true, "share", "share", "copy"},
    {Dtype::kQInt8, true, true, "INVALID_OPTION", "INVALID_OPTION", "INVALID_OPTION"},
    {Dtype::kQUInt16, false, false, "UNSUPPORTED_DTYPE", "UNSUPPORTED_DTYPE", "UNSUPPORTED_DTYPE"},
    {Dtype::kQUInt16, true, false, "share", "share", "copy"},
    {Dtype::kQUInt16, false, true, "UNSUPPORTED_DTYPE", "UNSUPPORTED_DTYPE", "UNSUPPORTED_DTYPE"},
    {Dtype::kString, false, false, "UNSUPPORTED_DTYPE", "UNSUPPORTED_DTYPE", "UNSUPPORTED_DTYPE"},
    {Dtype::kString, true, false, "UNSUPPORTED_DTYPE", "UNSUPPORTED_DTYPE", "UNSUPPORTED_DTYPE"},
    // Only from other DLPack producers, because TensorFlow does not have the dtype.
    {Dtype::kComplex32, false, false, "share", "share", "copy"},
};

class DecideByRule : public Decide {
 protected:
  void apply(const Rule& rule) {
    options_.raw = rule.raw ? 1 : 0;
    if (rule.scale) {
      quantize({0.5}, {3});
    } else {
      options_.num_scales = 0;
    }
  }
  std::string name(const Rule& rule) {
    return std::string(dtypeInfo(rule.dtype).name) + (rule.raw ? " raw" : "") +
           (rule.scale ? " scale" : "");
  }
  // The rule's outcome for options_.copy.
  std::string expected(const Rule& rule) {
    return options_.copy == TB_COPY_AUTO    ? rule.none
           : options_.copy == TB_COPY_NEVER ? rule.never
                                            : rule.always;
  }
  template <typename Body>
  void forEachCase(Body&& body) {
    for (const Rule& rule : kRules) {
      apply(rule);
      for (int32_t copy : {TB_COPY_AUTO, TB_COPY_NEVER, TB_COPY_ALWAYS}) {
        options_.copy = copy;
        SCOPED_TRACE(name(rule) + " copy=" + std::to_string(copy));
        body(rule);
      }
    }
  }
};

TEST_F(DecideByRule, DtypeAndCopySayWhatIsDone) {
  forEachCase([&](const Rule& rule) { EXPECT_EQ(outcomeOf(rule.dtype), expected(rule)); });
}

TEST_F(DecideByRule, OnWriteDoesNotChangeWhatIsDone) {
  for (int32_t on_write : {TB_ON_WRITE_RAISE, TB_ON_WRITE_ALIAS}) {
    options_.on_write = on_write;
    forEachCase(
        [&](const Rule& rule) { EXPECT_EQ(outcomeOf(rule.dtype), expected(rule)) << on_write; });
  }
}

TEST_F(DecideByRule, VariableIsLikeATensorExceptForAlias) {
  for (int32_t on_write : {TB_ON_WRITE_COPY, TB_ON_WRITE_RAISE}) {
    options_.on_write = on_write;
    forEachCase([&](const Rule& rule) {
      EXPECT_EQ(outcomeOf(rule.dtype, Source::kVariable), expected(rule));
    });
  }
  options_.on_write = TB_ON_WRITE_ALIAS;
  for (Source source : {Source::kVariable, Source::kCopiedVariable}) {
    forEachCase(
        [&](const Rule& rule) { EXPECT_EQ(outcomeOf(rule.dtype, source), "INVALID_OPTION"); });
  }
}

TEST_F(DecideByRule, VariableThatTensorFlowCopiesCannotBeConvertedWithoutACopy) {
  forEachCase([&](const Rule& rule) {
    const bool never = options_.copy == TB_COPY_NEVER;
    EXPECT_EQ(outcomeOf(rule.dtype, Source::kCopiedVariable),
              never && expected(rule) == "share" ? "COPY_REQUIRED" : expected(rule));
  });
}

TEST_F(DecideByRule, WithoutProtectionNothingIsSharedButAnAlias) {
  adapter_.table.protects = false;
  for (int32_t on_write : {TB_ON_WRITE_COPY, TB_ON_WRITE_RAISE, TB_ON_WRITE_ALIAS}) {
    options_.on_write = on_write;
    forEachCase([&](const Rule& rule) {
      std::string result = expected(rule);
      if (result == "share" && on_write != TB_ON_WRITE_ALIAS) {
        result = options_.copy == TB_COPY_NEVER ? "COPY_REQUIRED" : "copy";
      }
      EXPECT_EQ(outcomeOf(rule.dtype), result) << on_write;
    });
  }
}

TEST_F(DecideByRule, WithoutProtectionOnGpusTheirMemoryIsNotSharedButAsAnAlias) {
  adapter_.has_gpu = true;
  adapter_.table.protects_gpu = false;
  for (const DLDeviceType device : {kDLCPU, kDLCUDA}) {
    device_ = DLDevice{device, 0};
    for (int32_t on_write : {TB_ON_WRITE_COPY, TB_ON_WRITE_RAISE, TB_ON_WRITE_ALIAS}) {
      options_.on_write = on_write;
      forEachCase([&](const Rule& rule) {
        std::string result = expected(rule);
        if (result == "share" && on_write != TB_ON_WRITE_ALIAS && device == kDLCUDA) {
          result = options_.copy == TB_COPY_NEVER ? "COPY_REQUIRED" : "copy";
        }
        EXPECT_EQ(outcomeOf(rule.dtype), result) << device << " " << on_write;
      });
    }
  }
}

TEST_F(Decide, SaysThatMemoryOnAGpuCannotBeProtected) {
  adapter_.has_gpu = true;
  adapter_.table.protects_gpu = false;
  device_ = DLDevice{kDLCUDA, 0};
  EXPECT_THAT(plan(Dtype::kFloat32).reason, HasSubstr("memory on a GPU"));
}

// --- the plan besides the action ----------------------------------------------------------------

TEST_F(Decide, ResultHasTheDtypeOfTheTable) {
  for (int i = 0; i < static_cast<int>(Dtype::kCount); ++i) {
    const auto dtype = static_cast<Dtype>(i);
    const DtypeInfo& row = dtypeInfo(dtype);
    if (row.kind == DtypeKind::kRefused || row.kind == DtypeKind::kTorchOnly) continue;
    if (row.kind != DtypeKind::kQuantized) {
      options_.raw = 0;
      const Plan by_default = plan(dtype);
      EXPECT_EQ(by_default.spec.dtype, row.nearest) << row.name;
      EXPECT_EQ(by_default.spec.lookup, lookupTable(dtype)) << row.name;
      EXPECT_EQ(by_default.spec.quant.count, 0) << row.name;
    }
    options_.raw = 1;
    const Plan raw = plan(dtype);
    EXPECT_EQ(raw.spec.dtype, row.kind == DtypeKind::kConverted ? Dtype::kUInt8 : row.nearest)
        << row.name;
    EXPECT_EQ(dtypeInfo(raw.spec.dtype).itemsize, row.itemsize) << row.name;
  }
}

TEST_F(Decide, OnWriteReachesTheStorage) {
  for (int32_t on_write : {TB_ON_WRITE_COPY, TB_ON_WRITE_RAISE, TB_ON_WRITE_ALIAS}) {
    options_.on_write = on_write;
    EXPECT_EQ(plan(Dtype::kFloat32).spec.on_write, on_write);
  }
}

TEST_F(Decide, EveryPlanHasAReason) {
  EXPECT_THAT(plan(Dtype::kFloat32).reason, HasSubstr("shared"));
  EXPECT_THAT(plan(Dtype::kUInt4).reason, HasSubstr("uint8"));
  EXPECT_THAT(plan(Dtype::kInt4).reason, HasSubstr("int8 holds every value"));
  options_.copy = TB_COPY_ALWAYS;
  EXPECT_THAT(plan(Dtype::kFloat32).reason, HasSubstr("copy=True"));
  options_.copy = TB_COPY_AUTO;
  EXPECT_THAT(plan(Dtype::kFloat32, Source::kCopiedVariable).reason,
              HasSubstr("copied by TensorFlow"));
  adapter_.table.protects = false;
  EXPECT_THAT(plan(Dtype::kFloat32).reason, HasSubstr("cannot be intercepted"));
}

TEST_F(Decide, SaysWhoCopiedAVariable) {
  EXPECT_FALSE(plan(Dtype::kFloat32).copied_by_tensorflow);
  EXPECT_FALSE(plan(Dtype::kFloat32, Source::kVariable).copied_by_tensorflow);
  EXPECT_TRUE(plan(Dtype::kFloat32, Source::kCopiedVariable).copied_by_tensorflow);
  options_.copy = TB_COPY_ALWAYS;
  EXPECT_FALSE(plan(Dtype::kFloat32, Source::kCopiedVariable).copied_by_tensorflow)
      << "torch makes another copy";
}

TEST_F(Decide, RefusalsSayWhatToDo) {
  const auto refused = [&](ErrorCode code, const std::vector<std::string>& parts, Dtype dtype,
                           Source source = Source::kTensor) {
    expectError(code, parts, [&] { plan(dtype, source); });
  };
  refused(ErrorCode::kUnsupportedDtype, {"qint8", "scale=", "zero_point=", "raw=True"},
          Dtype::kQInt8);
  refused(ErrorCode::kUnsupportedDtype, {"string", "tf.io.decode_raw"}, Dtype::kString);
  options_.copy = TB_COPY_NEVER;
  refused(ErrorCode::kCopyRequired, {"copy=False", "int8", "raw=True"}, Dtype::kInt4);
  refused(ErrorCode::kCopyRequired, {"copy=False", "scatter", "copy=None"}, Dtype::kFloat32,
          Source::kCopiedVariable);
  options_.on_write = TB_ON_WRITE_ALIAS;
  refused(ErrorCode::kInvalidOption, {"alias", "variable", "assign"}, Dtype::kFloat32,
          Source::kVariable);
}

TEST_F(Decide, CommonPlanIsWhatDecideSays) {
  for (int i = 0; i < static_cast<int>(Dtype::kCount); ++i) {
    const auto dtype = static_cast<Dtype>(i);
    const WrapSpec* common = commonPlan(view(dtype), adapter_.table);
    EXPECT_EQ(common != nullptr, dtypeInfo(dtype).kind == DtypeKind::kShared)
        << dtypeInfo(dtype).name;
    if (common == nullptr) continue;
    const WrapSpec decided = plan(dtype).spec;
    EXPECT_EQ(common->action, decided.action);
    EXPECT_EQ(common->on_write, decided.on_write);
    EXPECT_EQ(common->dtype, decided.dtype);
    EXPECT_EQ(common->move, decided.move);
    EXPECT_EQ(common->lookup, decided.lookup);
    EXPECT_EQ(common->quant.count, decided.quant.count);
  }
}

TEST_F(Decide, ThereIsNoCommonPlanOffTheHostOrWithoutProtection) {
  device_ = DLDevice{kDLCUDA, 0};
  EXPECT_EQ(commonPlan(view(Dtype::kFloat32), adapter_.table), nullptr);
  device_ = DLDevice{kDLCPU, 0};
  EXPECT_NE(commonPlan(view(Dtype::kFloat32), adapter_.table), nullptr);
  adapter_.table.protects = false;
  EXPECT_EQ(commonPlan(view(Dtype::kFloat32), adapter_.table), nullptr);
}

// --- quantization -------------------------------------------------------------------------------

TEST_F(Decide, QuantizedPerTensor) {
  quantize({0.25}, {-7});
  const Plan result = plan(Dtype::kQInt8);
  EXPECT_EQ(result.spec.dtype, Dtype::kQInt8);
  EXPECT_EQ(result.spec.quant.count, 1);
  EXPECT_EQ(result.spec.quant.scale[0], 0.25);
  EXPECT_EQ(result.spec.quant.zero_point[0], -7);
  EXPECT_FALSE(result.spec.quant.per_channel);
}

TEST_F(Decide, QuantizedPerChannelCountsAxesFromBothEnds) {
  quantize({0.1, 0.2, 0.3}, {1, 2, 3});
  for (int64_t axis : {1, -1}) {
    alongAxis(axis);
    const Plan result = plan(Dtype::kQUInt8);
    EXPECT_TRUE(result.spec.quant.per_channel);
    EXPECT_EQ(result.spec.quant.axis, 1);
    EXPECT_EQ(result.spec.quant.count, 3);
  }
}

TEST_F(Decide, QuantizationThatDoesNotFitIsRefused) {
  const auto refused = [&](const std::vector<std::string>& parts, Dtype dtype) {
    expectError(ErrorCode::kInvalidOption, parts, [&] { plan(dtype); });
  };
  quantize({0.1, 0.2}, {0, 0});
  refused({"one scale", "2", "axis="}, Dtype::kQInt8);
  alongAxis(2);
  refused({"axis", "-2 to 1", "2"}, Dtype::kQInt8);
  alongAxis(-3);
  refused({"axis", "-3"}, Dtype::kQInt8);
  alongAxis(1);
  refused({"3 channels", "got 2"}, Dtype::kQInt8);
  alongAxis(0);
  EXPECT_EQ(outcomeOf(Dtype::kQInt8), "share");

  options_.has_axis = 0;
  for (double scale : {0.0, -0.5, std::numeric_limits<double>::infinity(),
                       std::numeric_limits<double>::quiet_NaN()}) {
    quantize({scale}, {0});
    refused({"scale must be positive and finite"}, Dtype::kQInt8);
  }
}

TEST_F(Decide, ZeroPointMustBeAValueOfTheDtype) {
  const struct {
    Dtype dtype;
    int64_t low;
    int64_t high;
  } ranges[] = {
      {Dtype::kQInt8, -128, 127},
      {Dtype::kQUInt8, 0, 255},
      {Dtype::kQInt32, std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max()},
  };
  for (const auto& range : ranges) {
    for (int64_t good : {range.low, range.high}) {
      quantize({1}, {good});
      EXPECT_EQ(outcomeOf(range.dtype), "share") << good;
    }
    for (int64_t bad : {range.low - 1, range.high + 1}) {
      quantize({1}, {bad});
      expectError(ErrorCode::kInvalidOption,
                  {"zero_point", dtypeInfo(range.dtype).name, std::to_string(bad)},
                  [&] { plan(range.dtype); });
    }
  }
}

TEST_F(Decide, ScalarHasNoChannels) {
  quantize({1}, {0});
  alongAxis(0);
  TensorView scalar = view(Dtype::kQInt8);
  scalar.dl.ndim = 0;
  EXPECT_EQ(outcome(scalar, options_, Source::kTensor, adapter_.table), "INVALID_OPTION");
}

// --- devices ------------------------------------------------------------------------------------

class DecideDevice : public Decide {
 protected:
  void to(int32_t type, int32_t id) {
    options_.has_device = 1;
    options_.device_type = type;
    options_.device_id = id;
  }
};

TEST_F(DecideDevice, CpuToCpuIsNoMove) {
  for (int32_t id : {-1, 0, 5}) {
    to(kDLCPU, id);
    for (int32_t copy : {TB_COPY_AUTO, TB_COPY_NEVER}) {
      options_.copy = copy;
      EXPECT_EQ(outcomeOf(Dtype::kFloat32), "share") << id;
      EXPECT_FALSE(plan(Dtype::kFloat32).spec.move);
    }
  }
}

TEST_F(DecideDevice, MoveIsACopy) {
  adapter_.has_gpu = true;
  to(kDLCUDA, 1);
  EXPECT_EQ(outcomeOf(Dtype::kFloat32), "copy");
  EXPECT_EQ(outcomeOf(Dtype::kInt4), "lookup");
  const Plan result = plan(Dtype::kFloat32);
  EXPECT_TRUE(result.spec.move);
  EXPECT_EQ(result.spec.device.device_type, kDLCUDA);
  EXPECT_EQ(result.spec.device.device_id, 1);
  EXPECT_THAT(result.reason, HasSubstr("device="));
  options_.copy = TB_COPY_NEVER;
  expectError(ErrorCode::kCopyRequired, {"copy=False", "device="}, [&] { plan(Dtype::kFloat32); });
}

TEST_F(DecideDevice, GpuStaysWhereItIsAndMovesElsewhere) {
  adapter_.has_gpu = true;
  device_ = DLDevice{kDLCUDA, 1};
  EXPECT_EQ(outcomeOf(Dtype::kFloat32), "share");
  to(kDLCUDA, 1);
  EXPECT_EQ(outcomeOf(Dtype::kFloat32), "share");
  to(kDLCUDA, 0);
  EXPECT_EQ(outcomeOf(Dtype::kFloat32), "copy");
  to(kDLCPU, -1);
  EXPECT_EQ(outcomeOf(Dtype::kFloat32), "copy");
}

TEST_F(DecideDevice, CudaWithoutANumberIsTheCurrentDevice) {
  adapter_.has_gpu = true;
  device_ = DLDevice{kDLCUDA, 1};
  to(kDLCUDA, -1);
  adapter_.current_gpu = 1;
  EXPECT_EQ(outcomeOf(Dtype::kFloat32), "share");
  adapter_.current_gpu = 0;
  EXPECT_EQ(outcomeOf(Dtype::kFloat32), "copy");
  EXPECT_EQ(plan(Dtype::kFloat32).spec.device.device_id, 0);
}

TEST_F(DecideDevice, GpuThatTorchCannotSeeIsRefused) {
  device_ = DLDevice{kDLCUDA, 0};
  expectError(ErrorCode::kUnsupportedDevice, {"CUDA build of torch", "tf.identity"},
              [&] { plan(Dtype::kFloat32); });
  to(kDLCPU, -1);
  EXPECT_EQ(outcomeOf(Dtype::kFloat32), "UNSUPPORTED_DEVICE");
}

TEST_F(DecideDevice, TargetThatTorchLacksIsRefusedByName) {
  to(kDLCUDA, 2);
  expectError(ErrorCode::kUnsupportedDevice, {"device=cuda:2", "not available"},
              [&] { plan(Dtype::kFloat32); });
  to(999, 0);
  expectError(ErrorCode::kUnsupportedDevice, {"dlpack_999:0"}, [&] { plan(Dtype::kFloat32); });
}

TEST_F(DecideDevice, ResolvingAsksTheAdapterForGpusOnly) {
  TensorView host = view(Dtype::kFloat32);
  resolveDevice(&host, adapter_.table);
  EXPECT_EQ(host.dl.device.device_id, 0);
  device_ = DLDevice{kDLCUDA, 1};
  TensorView unseen = view(Dtype::kFloat32);
  resolveDevice(&unseen, adapter_.table);
  EXPECT_EQ(unseen.dl.device.device_id, 1) << "torch sees no such GPU; decide() refuses it";
  adapter_.has_gpu = true;
  TensorView gpu = view(Dtype::kFloat32);
  resolveDevice(&gpu, adapter_.table);
  EXPECT_EQ(gpu.dl.device.device_id, 101);
  adapter_.resolve_status = TB_TORCH;
  expectError(ErrorCode::kTorch, {"which GPU"}, [&] { resolveDevice(&gpu, adapter_.table); });
}

// --- execute ------------------------------------------------------------------------------------

TEST_F(Decide, ExecuteHandsThePlanToTheAdapter) {
  TensorRef source(view(Dtype::kInt4), nullptr, nullptr);
  const Plan decided = decide(source, options_, Source::kTensor, adapter_.table);
  EXPECT_EQ(execute(&source, decided, adapter_.table), adapter_.result());
  EXPECT_EQ(adapter_.wraps, 1);
  EXPECT_EQ(adapter_.wrapped_view.dl.data, data_);
  EXPECT_EQ(adapter_.wrapped_spec.action, WrapAction::kLookup);
  EXPECT_EQ(adapter_.wrapped_spec.lookup, lookupTable(Dtype::kInt4));
}

TEST_F(Decide, ExecuteThrowsWhatTheAdapterReports) {
  TensorRef source(view(Dtype::kFloat32), nullptr, nullptr);
  const Plan decided = decide(source, options_, Source::kTensor, adapter_.table);
  for (tb_status status : {TB_TORCH, TB_OUT_OF_MEMORY}) {
    adapter_.wrap_status = status;
    expectError(static_cast<ErrorCode>(status), {"torch said no"},
                [&] { execute(&source, decided, adapter_.table); });
  }
}

}  // namespace
}  // namespace tensor_bridge::testing
