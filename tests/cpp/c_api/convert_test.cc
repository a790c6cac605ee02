// Conversions of TF_Tensors to torch tensors, through the C ABI.

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "c_api/fixture.h"

namespace tensor_bridge::testing {
namespace {

class Convert : public CApiTest {
 protected:
  TorchTensor converted(const TfTensor& tensor) {
    tb_torch_tensor* out = nullptr;
    EXPECT_EQ(tb_tf_to_torch(tensor.get(), &options_, &out), TB_OK) << tb_last_error();
    return TorchTensor(out);
  }
  TorchTensor consumed(TfTensor tensor) {
    tb_torch_tensor* out = nullptr;
    EXPECT_EQ(tb_tf_to_torch_consume(tensor.release(), &options_, &out), TB_OK) << tb_last_error();
    return TorchTensor(out);
  }
  tb_status statusOf(const TfTensor& tensor) {
    tb_torch_tensor* out = nullptr;
    const tb_status status = tb_tf_to_torch(tensor.get(), &options_, &out);
    tb_torch_tensor_release(out);
    return status;
  }
};

TEST_F(Convert, SharesAndOutlivesTheTensor) {
  CountedBuffer buffer(std::vector<float>{1, 2, 3});
  TfTensor tensor(TF_FLOAT, {3}, &buffer);
  tb_torch_tensor* made = nullptr;
  ASSERT_EQ(tb_tf_to_torch(tensor.get(), nullptr, &made), TB_OK) << tb_last_error();
  TorchTensor out(made);
  EXPECT_EQ(owners_.added(), 1);
  tensor.reset();
  EXPECT_EQ(valuesOf<float>(out), (std::vector<float>{1, 2, 3}));
  EXPECT_EQ(addressOf(out), buffer.data());
  EXPECT_EQ(buffer.freed(), 0);
}

TEST_F(Convert, ConsumesOnSuccess) {
  CountedBuffer buffer(std::vector<float>{1, 2, 3});
  TorchTensor out = consumed(TfTensor(TF_FLOAT, {3}, &buffer));
  EXPECT_EQ(owners_.added(), 1);
  EXPECT_EQ(addressOf(out), buffer.data());
  EXPECT_EQ(buffer.freed(), 0);
}

TEST_F(Convert, ConsumesOnACopyToo) {
  CountedBuffer buffer(std::vector<float>{1, 2, 3});
  options_.copy = TB_COPY_ALWAYS;
  TorchTensor out = consumed(TfTensor(TF_FLOAT, {3}, &buffer));
  EXPECT_EQ(buffer.freed(), 1) << "the buffer has no owner any more";
  EXPECT_EQ(owners_.added(), 0);
  EXPECT_EQ(valuesOf<float>(out), (std::vector<float>{1, 2, 3}));
}

TEST_F(Convert, FailureLeavesTheTensorToTheCaller) {
  CountedBuffer buffer(std::vector<uint8_t>{1, 2, 3});
  TfTensor tensor(TF_INT4, {3}, &buffer);
  tb_torch_tensor* out = nullptr;
  // The call is refused after the view was made, and then before.
  options_.copy = TB_COPY_NEVER;
  expectStatus(tb_tf_to_torch_consume(tensor.get(), &options_, &out), TB_COPY_REQUIRED,
               {"copy=False", "raw=True"});
  expectStatus(tb_tf_to_torch(tensor.get(), &options_, &out), TB_COPY_REQUIRED, {"copy=False"});
  options_.struct_size = 1;
  expectStatus(tb_tf_to_torch_consume(tensor.get(), &options_, &out), TB_INVALID_OPTION,
               {"struct_size"});
  EXPECT_EQ(out, nullptr);
  EXPECT_EQ(owners_.added(), 0);
  EXPECT_EQ(buffer.freed(), 0);
  EXPECT_EQ(tensor.data(), buffer.data());
}

TEST_F(Convert, NullsAreErrors) {
  tb_torch_tensor* out = nullptr;
  expectStatus(tb_tf_to_torch(nullptr, nullptr, &out), TB_INVALID_HANDLE, {"TF_Tensor", "null"});
  expectStatus(tb_tf_to_torch_consume(nullptr, nullptr, &out), TB_INVALID_HANDLE, {"null"});
  EXPECT_EQ(out, nullptr);

  const TfTensor tensor = TfTensor::floats({1});
  expectStatus(tb_tf_to_torch(tensor.get(), nullptr, nullptr), TB_INVALID_HANDLE, {"null"});
  expectStatus(tb_tf_to_torch_consume(tensor.get(), nullptr, nullptr), TB_INVALID_HANDLE, {"null"});
  EXPECT_EQ(owners_.added(), 0);

  tb_tensor* view = nullptr;
  void* data = nullptr;
  expectStatus(tb_torch_tensor_view(nullptr, &view), TB_INVALID_HANDLE, {"null"});
  expectStatus(tb_torch_tensor_mutable_data(nullptr, &data), TB_INVALID_HANDLE, {"null"});
  TorchTensor torch = converted(tensor);
  expectStatus(tb_torch_tensor_view(torch.get(), nullptr), TB_INVALID_HANDLE, {"null"});
  expectStatus(tb_torch_tensor_mutable_data(torch.get(), nullptr), TB_INVALID_HANDLE, {"null"});
  EXPECT_EQ(addressOf(torch), tensor.data()) << "nothing was moved";
}

TEST_F(Convert, OptionsOutOfRangeAreErrors) {
  const TfTensor tensor = TfTensor::floats({1});
  options_.copy = 7;
  EXPECT_EQ(statusOf(tensor), TB_INVALID_OPTION);
  tb_convert_options_init(&options_);
  options_.on_write = -1;
  EXPECT_EQ(statusOf(tensor), TB_INVALID_OPTION);
  tb_convert_options_init(&options_);
  options_.num_scales = -5;
  EXPECT_EQ(statusOf(tensor), TB_INVALID_OPTION);
  tb_convert_options_init(&options_);
  options_.has_axis = 1;
  EXPECT_EQ(statusOf(tensor), TB_INVALID_OPTION);
}

TEST_F(Convert, StringsResourcesAndVariantsAreRefused) {
  const int64_t none = 0;
  for (TF_DataType dtype : {TF_STRING, TF_RESOURCE, TF_VARIANT}) {
    const TfTensor tensor(TF_AllocateTensor(dtype, &none, 1, 0));
    tb_torch_tensor* out = nullptr;
    expectStatus(tb_tf_to_torch(tensor.get(), nullptr, &out), TB_UNSUPPORTED_DTYPE,
                 {"expected a tensor of numbers"});
    expectStatus(tb_tf_to_torch_consume(tensor.get(), nullptr, &out), TB_UNSUPPORTED_DTYPE, {});
    EXPECT_EQ(out, nullptr);
  }
}

TEST_F(Convert, UnavailableDeviceIsAnError) {
  const TfTensor tensor = TfTensor::floats({1});
  options_.has_device = 1;
  options_.device_type = 12345;
  EXPECT_EQ(statusOf(tensor), TB_UNSUPPORTED_DEVICE);
  options_.device_type = 1;
  options_.device_id = 9;
  EXPECT_EQ(statusOf(tensor), TB_OK) << "torch has one CPU";
}

TEST_F(Convert, MutableDataMovesATensorOnce) {
  const TfTensor tensor = TfTensor::floats({1, 2, 3});
  TorchTensor torch = converted(tensor);
  EXPECT_EQ(addressOf(torch), tensor.data());
  void* data = nullptr;
  ASSERT_EQ(tb_torch_tensor_mutable_data(torch.get(), &data), TB_OK) << tb_last_error();
  EXPECT_NE(data, tensor.data());
  static_cast<float*>(data)[0] = 100;
  EXPECT_EQ(valuesOf<float>(torch), (std::vector<float>{100, 2, 3}));
  EXPECT_EQ(tensor.values<float>(), (std::vector<float>{1, 2, 3}));
  void* again = nullptr;
  ASSERT_EQ(tb_torch_tensor_mutable_data(torch.get(), &again), TB_OK);
  EXPECT_EQ(again, data);
}

TEST_F(Convert, OnWriteRaiseGivesNoMutableData) {
  const TfTensor tensor = TfTensor::floats({1, 2});
  options_.on_write = TB_ON_WRITE_RAISE;
  TorchTensor torch = converted(tensor);
  void* data = nullptr;
  for (int i = 0; i < 2; ++i) {
    expectStatus(tb_torch_tensor_mutable_data(torch.get(), &data), TB_TORCH,
                 {"on_write=\"raise\"", "clone()"});
  }
  EXPECT_EQ(data, nullptr);
  EXPECT_EQ(addressOf(torch), tensor.data());
}

TEST_F(Convert, OnWriteAliasWritesThrough) {
  const TfTensor tensor = TfTensor::floats({1, 2});
  options_.on_write = TB_ON_WRITE_ALIAS;
  TorchTensor torch = converted(tensor);
  void* data = nullptr;
  ASSERT_EQ(tb_torch_tensor_mutable_data(torch.get(), &data), TB_OK);
  EXPECT_EQ(data, tensor.data());
  static_cast<float*>(data)[1] = 50;
  EXPECT_EQ(tensor.values<float>(), (std::vector<float>{1, 50}));
}

TEST_F(Convert, ViewKeepsTheTorchTensor) {
  CountedBuffer buffer(std::vector<float>{1, 2});
  TorchTensor torch = converted(TfTensor(TF_FLOAT, {2}, &buffer));
  View view = viewOf(torch.get());
  torch.reset();
  EXPECT_EQ(buffer.freed(), 0);
  EXPECT_EQ(tb_tensor_data(view.get()), buffer.data());
  EXPECT_EQ(tb_tensor_flags(view.get()), static_cast<uint64_t>(TB_FLAG_READ_ONLY));
}

TEST_F(Convert, TorchTensorMayBeReleasedOnAnotherThread) {
  CountedBuffer buffer(std::vector<float>{1});
  TorchTensor torch = converted(TfTensor(TF_FLOAT, {1}, &buffer));
  std::thread([&torch] { torch.reset(); }).join();
}

TEST_F(Convert, RankZeroTheGreatestRankAndNoElements) {
  std::vector<int64_t> ones(254, 1);
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{}, ones}) {
    const TfTensor tensor(TF_FLOAT, shape, std::vector<float>{7});
    TorchTensor torch = converted(tensor);
    View view = viewOf(torch.get());
    EXPECT_EQ(tb_tensor_ndim(view.get()), static_cast<int32_t>(shape.size()));
    EXPECT_EQ(tb_tensor_data(view.get()), tensor.data());
  }
  const TfTensor empty(TF_FLOAT, {0, 3}, std::vector<float>{});
  for (int32_t copy : {TB_COPY_AUTO, TB_COPY_NEVER, TB_COPY_ALWAYS}) {
    options_.copy = copy;
    TorchTensor torch = converted(empty);
    EXPECT_EQ(valuesOf<float>(torch), std::vector<float>());
  }
}

// --- every dtype --------------------------------------------------------------------------------

std::vector<tb_dtype_row> tensorflowRows() {
  std::vector<tb_dtype_row> rows;
  auto row = sized<tb_dtype_row>();
  row.struct_size = sizeof(row);
  for (int32_t i = 0; tb_dtype_row_get(i, &row) == TB_OK; ++i) {
    if (row.tf_enum != 0) rows.push_back(row);
  }
  return rows;
}

class EveryDtype : public Convert, public ::testing::WithParamInterface<tb_dtype_row> {
 protected:
  const tb_dtype_row& row() const { return GetParam(); }
  std::string kind() const { return row().kind; }
  // Values 0 and 1, which every dtype has; as bytes 0 or 1 in each byte.
  CountedBuffer buffer_{std::vector<uint8_t>(4u * static_cast<size_t>(row().itemsize), 1)};
  TfTensor tensor() { return TfTensor(static_cast<TF_DataType>(row().tf_enum), {2, 2}, &buffer_); }
};

TEST_P(EveryDtype, IsSharedOrConvertedOrRefusedAsTheTableSays) {
  if (kind() == "refused") return;  // these dtypes have no elements
  TfTensor source = tensor();
  tb_torch_tensor* made = nullptr;
  const tb_status status = tb_tf_to_torch(source.get(), nullptr, &made);
  const TorchTensor torch(made);
  if (kind() == "quantized") {
    expectStatus(status, TB_UNSUPPORTED_DTYPE, {row().name, "raw=True"});
    return;
  }
  ASSERT_EQ(status, TB_OK) << tb_last_error();
  EXPECT_EQ("torch." + dtypeOf(torch), row().nearest);
  EXPECT_EQ(addressOf(torch) == buffer_.data(), kind() != "converted");
  EXPECT_EQ(owners_.added(), kind() == "converted" ? 0 : 1);
}

TEST_P(EveryDtype, RawSharesTheBytes) {
  if (kind() == "refused") return;
  TfTensor source = tensor();
  options_.raw = 1;
  options_.copy = TB_COPY_NEVER;
  TorchTensor torch = converted(source);
  EXPECT_EQ(addressOf(torch), buffer_.data());
  EXPECT_EQ(valuesOf<uint8_t>(torch),
            std::vector<uint8_t>(buffer_.as<uint8_t>(), buffer_.as<uint8_t>() + buffer_.bytes()));
}

TEST_P(EveryDtype, ExplainSaysWhatConversionDoes) {
  const int64_t none = 0;
  TfTensor source =
      kind() == "refused"
          ? TfTensor(TF_AllocateTensor(static_cast<TF_DataType>(row().tf_enum), &none, 1, 0))
          : tensor();
  for (int32_t raw : {0, 1}) {
    for (int32_t copy : {TB_COPY_AUTO, TB_COPY_NEVER, TB_COPY_ALWAYS}) {
      options_.raw = raw;
      options_.copy = copy;
      auto explanation = sized<tb_explanation>(0x5a);
      ASSERT_EQ(tb_tf_explain(source.get(), &options_, &explanation), TB_OK) << tb_last_error();
      EXPECT_EQ(owners_.added(), 0);
      EXPECT_STREQ(explanation.tf_dtype, row().name);
      EXPECT_STRNE(explanation.reason, "");
      tb_torch_tensor* made = nullptr;
      const tb_status status = tb_tf_to_torch(source.get(), &options_, &made);
      const TorchTensor torch(made);
      EXPECT_EQ(explanation.status, status);
      if (status != TB_OK) {
        EXPECT_EQ(explanation.action, TB_ACTION_REFUSED);
        EXPECT_STREQ(explanation.reason, tb_last_error());
        EXPECT_STREQ(explanation.torch_dtype, "");
        EXPECT_EQ(explanation.on_write, -1);
        continue;
      }
      const bool shares = addressOf(torch) == buffer_.data();
      EXPECT_EQ(explanation.action, shares ? TB_ACTION_SHARED : TB_ACTION_COPIED);
      EXPECT_EQ(explanation.on_write, shares ? TB_ON_WRITE_COPY : -1);
      EXPECT_EQ(explanation.torch_dtype, "torch." + dtypeOf(torch));
      EXPECT_EQ(explanation.ndim, 2);
      EXPECT_STREQ(explanation.device, "cpu");
      EXPECT_EQ(explanation.nbytes, static_cast<int64_t>(valuesOf<char>(torch).size()));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Table, EveryDtype, ::testing::ValuesIn(tensorflowRows()),
                         [](const auto& row) { return std::string(row.param.name); });

TEST_F(Convert, Int4IsSignExtended) {
  const TfTensor tensor(TF_INT4, {4}, std::vector<uint8_t>{0x0f, 0x08, 0x07, 0x00});
  TorchTensor torch = converted(tensor);
  EXPECT_EQ(dtypeOf(torch), "int8");
  EXPECT_EQ(valuesOf<int8_t>(torch), (std::vector<int8_t>{-1, -8, 7, 0}));
}

TEST_F(Convert, Float4IsWidened) {
  const TfTensor tensor(TF_FLOAT4_E2M1FN, {3}, std::vector<uint8_t>{0x02, 0x0a, 0x07});
  TorchTensor torch = converted(tensor);
  EXPECT_EQ(dtypeOf(torch), "float32");
  EXPECT_EQ(valuesOf<float>(torch), (std::vector<float>{1, -1, 6}));
}

TEST_F(Convert, QuantizedWithParametersIsShared) {
  const TfTensor tensor(TF_QINT8, {2, 2}, std::vector<int8_t>{1, 2, 3, 4});
  const double scale[] = {0.5, 0.25};
  const int64_t zero_point[] = {0, 1};
  options_.scale = scale;
  options_.zero_point = zero_point;
  for (int64_t scales : {1, 2}) {
    options_.num_scales = scales;
    options_.has_axis = scales == 2 ? 1 : 0;
    options_.axis = -1;
    options_.copy = TB_COPY_NEVER;
    TorchTensor torch = converted(tensor);
    EXPECT_EQ(dtypeOf(torch), "qint8");
    EXPECT_EQ(addressOf(torch), tensor.data());
  }
  options_.axis = 2;
  EXPECT_EQ(statusOf(tensor), TB_INVALID_OPTION);
}

// --- explain ------------------------------------------------------------------------------------

class Explain : public CApiTest {};

TEST_F(Explain, OfNullIsRefused) {
  auto explanation = sized<tb_explanation>();
  ASSERT_EQ(tb_tf_explain(nullptr, nullptr, &explanation), TB_OK);
  EXPECT_EQ(explanation.action, TB_ACTION_REFUSED);
  EXPECT_EQ(explanation.status, TB_INVALID_HANDLE);
  EXPECT_STREQ(explanation.tf_dtype, "");
  EXPECT_EQ(explanation.ndim, -1);
  EXPECT_EQ(explanation.nbytes, -1);
}

TEST_F(Explain, OfBadOptionsIsRefused) {
  const TfTensor tensor = TfTensor::floats({1});
  options_.copy = 9;
  auto explanation = sized<tb_explanation>();
  ASSERT_EQ(tb_tf_explain(tensor.get(), &options_, &explanation), TB_OK);
  EXPECT_EQ(explanation.action, TB_ACTION_REFUSED);
  EXPECT_EQ(explanation.status, TB_INVALID_OPTION);
  EXPECT_STREQ(explanation.tf_dtype, "float32");
}

TEST_F(Explain, IntoNullIsAnError) {
  const TfTensor tensor = TfTensor::floats({1});
  expectStatus(tb_tf_explain(tensor.get(), nullptr, nullptr), TB_INVALID_HANDLE, {"null"});
  expectStatus(tb_dtype_row_get(0, nullptr), TB_INVALID_HANDLE, {"null"});
}

TEST_F(Explain, OfAnotherSizeIsNotWritten) {
  const TfTensor tensor = TfTensor::floats({1});
  tb_explanation explanation;
  std::memset(&explanation, 0x5a, sizeof(explanation));
  explanation.struct_size = 16;
  const tb_explanation before = explanation;
  expectStatus(tb_tf_explain(tensor.get(), nullptr, &explanation), TB_INVALID_OPTION,
               {"struct_size", "tb_explanation"});
  EXPECT_EQ(std::memcmp(&explanation, &before, sizeof(before)), 0);
}

TEST_F(Explain, NamesTheWritePolicyOfWhatIsShared) {
  const TfTensor tensor = TfTensor::floats({1});
  for (int32_t on_write : {TB_ON_WRITE_COPY, TB_ON_WRITE_RAISE, TB_ON_WRITE_ALIAS}) {
    options_.on_write = on_write;
    auto explanation = sized<tb_explanation>();
    ASSERT_EQ(tb_tf_explain(tensor.get(), &options_, &explanation), TB_OK);
    EXPECT_EQ(explanation.on_write, on_write);
  }
}

TEST_F(Explain, ChangesNothing) {
  CountedBuffer buffer(std::vector<float>{1, 2});
  const TfTensor tensor(TF_FLOAT, {2}, &buffer);
  auto explanation = sized<tb_explanation>();
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(tb_tf_explain(tensor.get(), nullptr, &explanation), TB_OK);
  }
  EXPECT_EQ(tensor.data(), buffer.data());
  EXPECT_EQ(owners_.added(), 0);
}

}  // namespace
}  // namespace tensor_bridge::testing
