// The calls without a tensor: version, statuses, options, the dtype table, naming the frameworks.

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/version.h>

#include <set>
#include <string>
#include <thread>

#include "c_api/fixture.h"
#include "c_api/private_api.h"
#include "tensor_bridge/c_api.h"
#include "tensor_bridge/version.h"

namespace tensor_bridge::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

// --- before torch is in use; these suites run in separate processes -----------------------------

TEST(AloneBeforeTorch, ConversionsSayWhatToCall) {
  OwnerScope owners(tb_live_owners);
  const TfTensor tensor = TfTensor::floats({1, 2});
  tb_torch_tensor* out = nullptr;
  expectStatus(tb_tf_to_torch(tensor.get(), nullptr, &out), TB_FRAMEWORK,
               {"no torch is in use", "tb_use_torch"});
  expectStatus(tb_tf_to_torch_consume(tensor.get(), nullptr, &out), TB_FRAMEWORK,
               {"no torch is in use"});
  EXPECT_EQ(out, nullptr);
  auto explanation = sized<tb_explanation>();
  expectStatus(tb_tf_explain(tensor.get(), nullptr, &explanation), TB_FRAMEWORK,
               {"no torch is in use"});
  EXPECT_EQ(owners.added(), 0);
}

TEST(AloneBeforeTorch, ViewsNeedNoTorch) {
  OwnerScope owners(tb_live_owners);
  const TfTensor tensor = TfTensor::floats({1, 2});
  EXPECT_EQ(tb_tensor_data(viewOf(tensor).get()), tensor.data());
}

TEST(AloneUseTorch, NamesTheAdapterThatIsMissing) {
  // A known release, for which this build has no adapter.
  expectStatus(tb_use_torch(2, 6), TB_FRAMEWORK,
               {"torch 2.6", "libtensor_bridge_torch_2_6.so", "pip install"});
}

TEST(AloneUseTorch, RefusesReleasesThatItDoesNotKnow) {
  for (const auto& [major, minor] : {std::pair<int, int>{1, 13}, {2, 5}, {2, 16}, {3, 13}}) {
    expectStatus(tb_use_torch(major, minor), TB_FRAMEWORK, {"2.6 to 2.15"});
  }
}

TEST(AloneUseTorch, IsIdempotentAndFinal) {
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(tb_use_torch(TORCH_VERSION_MAJOR, TORCH_VERSION_MINOR), TB_OK) << tb_last_error();
  }
  const std::string used =
      std::to_string(TORCH_VERSION_MAJOR) + "." + std::to_string(TORCH_VERSION_MINOR);
  for (int minor : {6, TORCH_VERSION_MINOR + 1, 99}) {
    expectStatus(tb_use_torch(TORCH_VERSION_MAJOR, minor), TB_FRAMEWORK,
                 {"already uses torch " + used, std::to_string(minor)});
  }
  expectStatus(tb_use_torch(TORCH_VERSION_MAJOR + 1, TORCH_VERSION_MINOR), TB_FRAMEWORK,
               {"already uses torch " + used});
  EXPECT_EQ(tb_use_torch(TORCH_VERSION_MAJOR, TORCH_VERSION_MINOR), TB_OK);
}

// --- version, statuses --------------------------------------------------------------------------

TEST(Library, HasTheVersionOfItsHeaders) {
  EXPECT_STREQ(tb_version(), TENSOR_BRIDGE_VERSION);
  EXPECT_THAT(tb_version(), StartsWith(std::to_string(TENSOR_BRIDGE_VERSION_MAJOR) + "." +
                                       std::to_string(TENSOR_BRIDGE_VERSION_MINOR) + "." +
                                       std::to_string(TENSOR_BRIDGE_VERSION_PATCH)));
}

TEST(Library, NamesStatuses) {
  EXPECT_STREQ(tb_status_name(TB_OK), "OK");
  EXPECT_STREQ(tb_status_name(TB_INVALID_HANDLE), "INVALID_HANDLE");
  EXPECT_STREQ(tb_status_name(TB_VALUE_OUT_OF_RANGE), "VALUE_OUT_OF_RANGE");
  EXPECT_STREQ(tb_status_name(-1), "UNKNOWN");
  EXPECT_STREQ(tb_status_name(12345), "UNKNOWN");
}

TEST(Library, LastErrorBelongsToItsThreadAndOutlivesSuccesses) {
  std::thread([] {
    EXPECT_STREQ(tb_last_error(), "");
    tb_tensor* out = nullptr;
    expectStatus(tb_tensor_from_tf(nullptr, &out), TB_INVALID_HANDLE, {"TF_Tensor", "null"});
    const std::string text = tb_last_error();
    const TfTensor tensor = TfTensor::floats({1});
    ASSERT_EQ(tb_tensor_from_tf(tensor.get(), &out), TB_OK);
    tb_tensor_release(out);
    EXPECT_EQ(tb_last_error(), text) << "only a failure writes the message";
    std::thread([] { EXPECT_STREQ(tb_last_error(), ""); }).join();
  }).join();
}

TEST(Library, FillsInDefaults) {
  tb_convert_options options;
  std::memset(&options, 0xff, sizeof(options));
  tb_convert_options_init(&options);
  EXPECT_EQ(options.struct_size, sizeof(options));
  EXPECT_EQ(options.copy, TB_COPY_AUTO);
  EXPECT_EQ(options.on_write, TB_ON_WRITE_COPY);
  EXPECT_EQ(options.raw, 0);
  EXPECT_EQ(options.has_device, 0);
  EXPECT_EQ(options.device_id, -1);
  EXPECT_EQ(options.has_axis, 0);
  EXPECT_EQ(options.num_scales, 0);
  EXPECT_EQ(options.scale, nullptr);
  EXPECT_EQ(options.zero_point, nullptr);
}

TEST(Library, NullIsIgnoredByReleases) {
  tb_tensor_release(nullptr);
  tb_torch_tensor_release(nullptr);
}

// --- dtype table --------------------------------------------------------------------------------

TEST(DtypeRows, AreReadOneByOne) {
  std::set<std::string> names;
  int32_t count = 0;
  auto row = sized<tb_dtype_row>();
  for (; tb_dtype_row_get(count, &row) == TB_OK; ++count) {
    EXPECT_EQ(row.struct_size, sizeof(row));
    EXPECT_TRUE(names.insert(row.name).second) << row.name;
    const std::string kind = row.kind;
    EXPECT_EQ(row.tf_enum == 0, kind == "torch only") << row.name;
    EXPECT_EQ(row.torch_scalar < 0, std::string(row.torch_name).empty()) << row.name;
    EXPECT_EQ(std::string(row.nearest).empty(), kind == "refused" || kind == "torch only")
        << row.name;
    EXPECT_EQ(std::string(row.reason).empty(), kind == "shared") << row.name;
    if (kind == "shared") {
      EXPECT_STREQ(row.nearest, row.torch_name);
    }
  }
  EXPECT_EQ(count, 36);
  EXPECT_EQ(names.count("float32"), 1u);
  EXPECT_EQ(names.count("float4_e2m1fn"), 1u);
  expectStatus(tb_dtype_row_get(count, &row), TB_INVALID_OPTION, {"0 to 35", "36"});
}

TEST(DtypeRows, OutOfRangeLeaveTheRowUntouched) {
  auto row = sized<tb_dtype_row>(0x5a);
  const tb_dtype_row before = row;
  for (int32_t index : {-1, 36, 1000, INT32_MAX, INT32_MIN}) {
    expectStatus(tb_dtype_row_get(index, &row), TB_INVALID_OPTION, {std::to_string(index)});
    EXPECT_EQ(std::memcmp(&row, &before, sizeof(row)), 0);
  }
}

TEST(DtypeRows, OfAnotherSizeAreNotWritten) {
  // A program built with the header of another release.
  tb_dtype_row row;
  for (uint32_t size : {0u, 8u, static_cast<uint32_t>(sizeof(row)) + 8}) {
    std::memset(&row, 0x5a, sizeof(row));
    row.struct_size = size;
    const tb_dtype_row before = row;
    expectStatus(tb_dtype_row_get(0, &row), TB_INVALID_OPTION,
                 {"struct_size", "tb_dtype_row", std::to_string(sizeof(row))});
    EXPECT_EQ(std::memcmp(&row, &before, sizeof(row)), 0);
  }
}

// --- naming TensorFlow --------------------------------------------------------------------------

TEST(UseTensorflow, TakesTheOneThatIsLoaded) {
  void* library = dlopen("libtensorflow_framework.so.2", RTLD_NOLOAD | RTLD_LAZY);
  ASSERT_NE(library, nullptr);
  EXPECT_EQ(tb_use_tensorflow(library), TB_OK) << tb_last_error();
}

TEST(UseTensorflow, RefusesWhatIsNone) {
  expectStatus(tb_use_tensorflow(nullptr), TB_INVALID_HANDLE, {"dlopen", "null"});
  void* libm = dlopen("libm.so.6", RTLD_NOW);
  ASSERT_NE(libm, nullptr);
  expectStatus(tb_use_tensorflow(libm), TB_FRAMEWORK, {"lacks TF_NewTensor"});
  dlclose(libm);
  // The TensorFlow in use stays in use.
  const TfTensor tensor = TfTensor::floats({1});
  EXPECT_NE(viewOf(tensor), nullptr);
}

// --- the Python family, in a process without Python ---------------------------------------------

class WithoutPython : public CApiTest {};

TEST_F(WithoutPython, NothingIsAnEagerTensor) {
  int nothing = 0;
  auto* object = reinterpret_cast<_object*>(&nothing);
  EXPECT_EQ(tb_py_is_eager_tensor(object), 0);
  EXPECT_EQ(tb_py_has_handle(object), 0);
}

TEST_F(WithoutPython, ConversionsSaySo) {
  int nothing = 0;
  auto* object = reinterpret_cast<_object*>(&nothing);
  _object* out = nullptr;
  const void* address = nullptr;
  int64_t shape[8];
  auto explanation = sized<tb_explanation>();
  expectStatus(tb_py_tf_to_torch(object, nullptr, &out), TB_FRAMEWORK, {"import tensorflow"});
  expectStatus(tb_py_tf_explain(object, nullptr, &explanation, shape, 8), TB_FRAMEWORK,
               {"import tensorflow"});
  expectStatus(tb_py_variable_to_torch(object, nullptr, 1, nullptr, &out), TB_FRAMEWORK,
               {"import tensorflow"});
  expectStatus(tb_py_variable_explain(object, nullptr, 1, nullptr, &explanation, shape, 8),
               TB_FRAMEWORK, {"import tensorflow"});
  expectStatus(tb_py_tf_address(object, &address), TB_FRAMEWORK, {"import tensorflow"});
  EXPECT_EQ(out, nullptr);
  EXPECT_EQ(address, nullptr);
}

}  // namespace
}  // namespace tensor_bridge::testing
