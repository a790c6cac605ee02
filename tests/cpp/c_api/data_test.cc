// The iterators of tf.data through the C ABI without Python: null and invalid arguments are errors,
// not crashes. The rest is in tests/python/data and tests/cpp/bridge.

#include <gtest/gtest.h>

#include <string>

#include "c_api/private_api.h"

namespace {

tb_data_options validOptions() {
  tb_data_options options{};
  options.struct_size = sizeof(options);
  return options;
}

TEST(DataIterator, NullsAreErrors) {
  tb_data_options options = validOptions();
  tb_data_iterator* iterator = nullptr;
  int context = 0;
  EXPECT_EQ(tb_py_data_open(nullptr, &context, &options, nullptr), TB_INVALID_HANDLE);
  EXPECT_EQ(tb_py_data_open(nullptr, &context, nullptr, &iterator), TB_INVALID_HANDLE);
  EXPECT_EQ(tb_py_data_open(nullptr, nullptr, &options, &iterator), TB_INVALID_HANDLE);
  EXPECT_EQ(iterator, nullptr);

  tb_data_outcome outcome{};
  outcome.struct_size = sizeof(outcome);
  tb_data_element* element = nullptr;
  EXPECT_EQ(tb_py_data_next(nullptr, 0, &outcome, &element), TB_INVALID_HANDLE);
  EXPECT_EQ(tb_py_data_pause(nullptr), TB_INVALID_HANDLE);
  tb_py_data_resume(nullptr);
  tb_py_data_cancel(nullptr);
  tb_py_data_close(nullptr, 0);
  tb_data_stats stats{};
  stats.struct_size = sizeof(stats);
  EXPECT_EQ(tb_data_stats_get(nullptr, &stats), TB_INVALID_HANDLE);

  int32_t ndim = -1;
  _object* object = nullptr;
  EXPECT_EQ(tb_py_data_slot(nullptr, 0, &object), TB_INVALID_HANDLE);
  EXPECT_EQ(tb_data_slot_shape(nullptr, 0, &ndim), nullptr);
  EXPECT_EQ(tb_data_slot_strings(nullptr, 0), nullptr);
  tb_data_element_release(nullptr);
}

TEST(DataIterator, OptionsThatMeanNothingAreErrors) {
  tb_data_iterator* iterator = nullptr;
  int context = 0;
  tb_data_options options = validOptions();
  options.prefetch = -1;
  EXPECT_EQ(tb_py_data_open(nullptr, &context, &options, &iterator), TB_INVALID_OPTION);
  EXPECT_NE(std::string(tb_last_error()).find("prefetch"), std::string::npos);
  options = validOptions();
  options.struct_size = 1;
  EXPECT_EQ(tb_py_data_open(nullptr, &context, &options, &iterator), TB_INVALID_OPTION);
  EXPECT_NE(std::string(tb_last_error()).find("tb_data_options"), std::string::npos);
}

}  // namespace
