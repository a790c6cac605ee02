#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "bridge/to_torch.h"
#include "support/expect_error.h"

namespace tensor_bridge::testing {
namespace {

class CheckedOptions : public ::testing::Test {
 protected:
  void expectInvalid(const std::vector<std::string>& parts) {
    expectError(ErrorCode::kInvalidOption, parts, [&] { checkedOptions(&options_); });
    options_ = defaultOptions();
  }

  tb_convert_options options_ = defaultOptions();
  const double scale_ = 1;
  const int64_t zero_point_ = 0;
};

TEST_F(CheckedOptions, NullIsTheDefaults) {
  EXPECT_EQ(&checkedOptions(nullptr), &defaultOptions());
  EXPECT_EQ(options_.copy, TB_COPY_AUTO);
  EXPECT_EQ(options_.on_write, TB_ON_WRITE_COPY);
  EXPECT_EQ(options_.raw, 0);
  EXPECT_EQ(options_.has_device, 0);
  EXPECT_EQ(options_.device_id, -1);
  EXPECT_EQ(options_.has_axis, 0);
  EXPECT_EQ(options_.num_scales, 0);
}

TEST_F(CheckedOptions, GoodOnesAreTakenAsTheyAre) {
  EXPECT_EQ(&checkedOptions(&options_), &options_);
  for (int32_t copy : {TB_COPY_AUTO, TB_COPY_NEVER, TB_COPY_ALWAYS}) {
    for (int32_t on_write : {TB_ON_WRITE_COPY, TB_ON_WRITE_RAISE, TB_ON_WRITE_ALIAS}) {
      options_.copy = copy;
      options_.on_write = on_write;
      EXPECT_NO_THROW(checkedOptions(&options_));
    }
  }
}

TEST_F(CheckedOptions, StructSizeMustBeThatOfTheHeader) {
  for (uint32_t size : {0u, 4u, static_cast<uint32_t>(sizeof(options_)) - 1,
                        static_cast<uint32_t>(sizeof(options_)) + 8, 0xffffffffu}) {
    options_.struct_size = size;
    expectInvalid({"struct_size", std::to_string(size), "tb_convert_options_init"});
  }
}

TEST_F(CheckedOptions, ValuesMustBeInRange) {
  for (int32_t copy : {-2, 2, 1000000}) {
    options_.copy = copy;
    expectInvalid({"copy", std::to_string(copy)});
  }
  for (int32_t on_write : {-1, 3, 1000000}) {
    options_.on_write = on_write;
    expectInvalid({"on_write", std::to_string(on_write)});
  }
}

TEST_F(CheckedOptions, ScalesAndZeroPointsComeTogether) {
  options_.num_scales = -1;
  expectInvalid({"scales", "zero points"});
  options_.num_scales = 1;
  expectInvalid({"scales", "zero points"});
  options_.num_scales = 1;
  options_.scale = &scale_;
  expectInvalid({"scales", "zero points"});
  options_.num_scales = 1;
  options_.zero_point = &zero_point_;
  expectInvalid({"scales", "zero points"});
  options_.num_scales = 1;
  options_.scale = &scale_;
  options_.zero_point = &zero_point_;
  EXPECT_NO_THROW(checkedOptions(&options_));
}

TEST_F(CheckedOptions, AxisNeedsScales) {
  options_.has_axis = 1;
  expectInvalid({"axis", "scale"});
}

}  // namespace
}  // namespace tensor_bridge::testing
