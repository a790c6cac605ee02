// tb_strings: byte strings of both frameworks, and their conversions.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "c_api/fixture.h"

namespace tensor_bridge::testing {
namespace {

using Shape = std::vector<int64_t>;
using Texts = std::vector<std::string>;

const Texts kTexts = {"a",
                      "",
                      std::string(22, 'b'),
                      std::string(23, 'c'),
                      std::string("\0d\0", 3),
                      std::string(5000, 'e')};

// One block and its offsets, in memory of the test.
struct Block {
  explicit Block(const Texts& texts) {
    for (const std::string& text : texts) {
      offsets.push_back(static_cast<int64_t>(bytes.size()));
      bytes += text;
    }
    offsets.push_back(static_cast<int64_t>(bytes.size()));
  }
  std::string bytes;
  std::vector<int64_t> offsets;
};

class Strings : public CApiTest {
 protected:
  ~Strings() override { close(); }
  void close() { tb_strings_release(std::exchange(strings_, nullptr)); }

  // The strings refer to the block, which must stay alive.
  tb_status open(const Block& block, const Shape& shape) {
    close();
    block_ = block;
    return tb_strings_from_memory(block_.bytes.data(), static_cast<int64_t>(block_.bytes.size()),
                                  block_.offsets.data(),
                                  static_cast<int64_t>(block_.offsets.size()), shape.data(),
                                  static_cast<int32_t>(shape.size()), &strings_);
  }
  tb_status open(const at::Tensor& bytes, const at::Tensor& offsets, const Shape& shape) {
    close();
    return tb_strings_from_torch(reinterpret_cast<tb_torch_tensor*>(bytes.unsafeGetTensorImpl()),
                                 reinterpret_cast<tb_torch_tensor*>(offsets.unsafeGetTensorImpl()),
                                 shape.data(), static_cast<int32_t>(shape.size()), &strings_);
  }

  Texts texts() {
    std::vector<tb_string> found(static_cast<size_t>(tb_strings_count(strings_)));
    EXPECT_EQ(tb_strings_get(strings_, 0, tb_strings_count(strings_), found.data()), TB_OK)
        << tb_last_error();
    Texts result;
    for (const tb_string& string : found) {
      result.emplace_back(string.data, static_cast<size_t>(string.size));
    }
    return result;
  }

  TfTensor toTf() {
    TF_Tensor* tensor = nullptr;
    EXPECT_EQ(tb_strings_to_tf(strings_, nullptr, &tensor), TB_OK) << tb_last_error();
    return TfTensor(tensor);
  }

  // Views them as strings of TensorFlow's.
  const TfTensor& throughTf() {
    tensor_.emplace(toTf());
    close();
    EXPECT_EQ(tb_strings_from_tf(tensor_->get(), &strings_), TB_OK) << tb_last_error();
    return *tensor_;
  }

  // Every use of `strings_` fails in the same way.
  void expectUnusable(tb_status status, const std::vector<std::string>& parts) {
    tb_string found[8];
    int64_t nbytes = -1;
    char bytes[64];
    int64_t offsets[8];
    TF_Tensor* tensor = nullptr;
    tb_torch_tensor* torch[2] = {};
    expectStatus(tb_strings_get(strings_, 0, tb_strings_count(strings_), found), status, parts);
    expectStatus(tb_strings_nbytes(strings_, &nbytes), status, parts);
    expectStatus(tb_strings_gather(strings_, offsets, bytes, 3), status, parts);
    expectStatus(tb_strings_to_tf(strings_, nullptr, &tensor), status, parts);
    expectStatus(tb_strings_to_torch(strings_, nullptr, &torch[0], &torch[1]), status, parts);
    EXPECT_EQ(nbytes, -1);
    EXPECT_EQ(tensor, nullptr);
    EXPECT_EQ(torch[0], nullptr);
    auto explanation = sized<tb_explanation>();
    ASSERT_EQ(tb_strings_explain(strings_, nullptr, &explanation), TB_OK);
    EXPECT_EQ(explanation.status, status);
    EXPECT_EQ(explanation.action, TB_ACTION_REFUSED);
  }

  Block block_{{}};
  std::optional<TfTensor> tensor_;
  tb_strings* strings_ = nullptr;
};

at::Tensor torchBytes(const std::string& bytes) {
  at::Tensor tensor = at::empty({static_cast<int64_t>(bytes.size())}, at::kByte);
  if (!bytes.empty()) std::memcpy(tensor.mutable_data_ptr(), bytes.data(), bytes.size());
  return tensor;
}

TEST_F(Strings, GoToTensorflowAndBack) {
  ASSERT_EQ(open(Block(kTexts), {2, 3}), TB_OK) << tb_last_error();
  const TfTensor& tensor = throughTf();
  EXPECT_EQ(TF_TensorType(tensor.get()), TF_STRING);
  EXPECT_EQ(tb_strings_ndim(strings_), 2);
  EXPECT_EQ(tb_strings_shape(strings_)[0], 2);
  EXPECT_EQ(tb_strings_shape(strings_)[1], 3);
  EXPECT_EQ(tb_strings_count(strings_), 6);
  EXPECT_EQ(texts(), kTexts);
}

TEST_F(Strings, AreGatheredIntoABlock) {
  ASSERT_EQ(open(Block(kTexts), {6}), TB_OK);
  throughTf();
  const Block expected(kTexts);
  int64_t nbytes = 0;
  ASSERT_EQ(tb_strings_nbytes(strings_, &nbytes), TB_OK);
  ASSERT_EQ(nbytes, static_cast<int64_t>(expected.bytes.size()));
  std::string bytes(expected.bytes.size(), '#');
  std::vector<int64_t> offsets(7);
  ASSERT_EQ(tb_strings_gather(strings_, offsets.data(), bytes.data(), nbytes), TB_OK);
  EXPECT_EQ(bytes, expected.bytes);
  EXPECT_EQ(offsets, expected.offsets);
  bytes.assign(bytes.size(), '#');
  ASSERT_EQ(tb_strings_gather(strings_, nullptr, bytes.data(), nbytes), TB_OK);
  EXPECT_EQ(bytes, expected.bytes);
  expectStatus(tb_strings_gather(strings_, nullptr, bytes.data(), nbytes - 1), TB_INVALID_HANDLE,
               {"other sizes"});
}

TEST_F(Strings, BecomeTwoTorchTensorsOfTheirOwn) {
  tb_torch_tensor* made[2] = {};
  const Block expected(kTexts);
  ASSERT_EQ(open(Block(kTexts), {6}), TB_OK);
  throughTf();
  ASSERT_EQ(tb_strings_to_torch(strings_, nullptr, &made[0], &made[1]), TB_OK) << tb_last_error();
  close();
  tensor_.reset();
  const TorchTensor bytes(made[0]);
  const TorchTensor offsets(made[1]);
  EXPECT_EQ(dtypeOf(bytes), "uint8");
  EXPECT_EQ(dtypeOf(offsets), "int64");
  EXPECT_EQ(valuesOf<char>(bytes), std::vector<char>(expected.bytes.begin(), expected.bytes.end()));
  EXPECT_EQ(valuesOf<int64_t>(offsets), expected.offsets);
  // Writable like any other tensor: nothing is shared with TensorFlow.
  void* writable = nullptr;
  const void* address = addressOf(bytes);
  ASSERT_EQ(tb_torch_tensor_mutable_data(bytes.get(), &writable), TB_OK);
  EXPECT_EQ(writable, address);
  EXPECT_EQ(owners_.added(), 0);
}

TEST_F(Strings, OfTorchAreReadInPlaceAndKeptAlive) {
  at::Tensor bytes = torchBytes("abc");
  at::Tensor offsets = at::tensor({0, 1, 3}, at::kLong);
  const void* address = bytes.const_data_ptr();
  ASSERT_EQ(open(bytes, offsets, {2}), TB_OK) << tb_last_error();
  bytes.reset();
  offsets.reset();
  EXPECT_EQ(texts(), (Texts{"a", "bc"}));
  tb_string first;
  ASSERT_EQ(tb_strings_get(strings_, 0, 1, &first), TB_OK);
  EXPECT_EQ(first.data, address);
}

TEST_F(Strings, OfTorchMayBeStridedMisalignedAndSliced) {
  const at::Tensor wide = torchBytes("a.b.c.d.");
  const at::Tensor strided = at::tensor({0, 9, 1, 9, 3, 9, 4, 9}, at::kLong).slice(0, 0, 8, 2);
  ASSERT_EQ(open(wide.slice(0, 0, 8, 2), strided, {3}), TB_OK) << tb_last_error();
  EXPECT_EQ(texts(), (Texts{"a", "bc", "d"}));

  // Offsets that do not begin at 0: a part of the strings.
  const at::Tensor part = at::tensor({0, 1, 3, 4}, at::kLong).slice(0, 1, 4);
  ASSERT_EQ(open(torchBytes("abcd").slice(0, 0, 4), part, {2}), TB_OK);
  EXPECT_EQ(texts(), (Texts{"bc", "d"}));
  int64_t offsets[3];
  char bytes[3];
  ASSERT_EQ(tb_strings_gather(strings_, offsets, bytes, 3), TB_OK) << tb_last_error();
  EXPECT_EQ(std::string(bytes, 3), "bcd");
  EXPECT_EQ(std::vector<int64_t>(offsets, offsets + 3), (std::vector<int64_t>{0, 2, 3}));
  TfTensor tensor = toTf();
  EXPECT_EQ(TF_Dim(tensor.get(), 0), 2);
}

TEST_F(Strings, OfNothingAndOfOne) {
  ASSERT_EQ(open(Block({}), {0}), TB_OK);
  EXPECT_EQ(texts(), Texts{});
  EXPECT_EQ(TF_Dim(toTf().get(), 0), 0);
  ASSERT_EQ(open(Block({}), {2, 0, 3}), TB_OK);
  EXPECT_EQ(TF_NumDims(toTf().get()), 3);
  ASSERT_EQ(open(Block({"one"}), {}), TB_OK);
  EXPECT_EQ(tb_strings_ndim(strings_), 0);
  EXPECT_EQ(texts(), Texts{"one"});
  EXPECT_EQ(TF_NumDims(toTf().get()), 0);
  ASSERT_EQ(open(torchBytes(""), at::zeros({1}, at::kLong), {0}), TB_OK) << tb_last_error();
  EXPECT_EQ(texts(), Texts{});
}

TEST_F(Strings, OffsetsThatLieAreNeverFollowed) {
  const std::vector<std::vector<int64_t>> lies = {
      {0, 2, 1, 3},         {-1, 1, 2, 3},        {0, 1, 2, 4}, {0, 1, INT64_MAX, 3}, {3, 2, 1, 0},
      {0, INT64_MIN, 2, 3}, {INT64_MIN, 0, 1, 2}, {0, 4, 4, 4}, {0, -1, -1, 3}};
  for (const std::vector<int64_t>& offsets : lies) {
    Block block({"a", "b", "c"});
    block.offsets = offsets;
    ASSERT_EQ(open(block, {3}), TB_OK) << "the offsets are checked when they are used";
    expectUnusable(TB_VALUE_OUT_OF_RANGE, {"do not descend", "3 bytes"});
    ASSERT_EQ(open(torchBytes("abc"), at::tensor(offsets, at::kLong), {3}), TB_OK);
    expectUnusable(TB_VALUE_OUT_OF_RANGE, {"do not descend", "3 bytes"});
  }
  // Without strings there is one offset, which must be in the block too.
  Block block({});
  block.offsets = {7};
  ASSERT_EQ(open(block, {0}), TB_OK);
  int64_t nbytes = 0;
  expectStatus(tb_strings_nbytes(strings_, &nbytes), TB_VALUE_OUT_OF_RANGE, {"0 bytes"});
}

TEST_F(Strings, OffsetsThatChangeAreCheckedAgain) {
  ASSERT_EQ(open(Block({"a", "b", "c"}), {3}), TB_OK);
  EXPECT_EQ(texts(), (Texts{"a", "b", "c"}));
  block_.offsets[1] = 100;
  expectUnusable(TB_VALUE_OUT_OF_RANGE, {"100"});
}

TEST_F(Strings, SizesThatDoNotFitAreRefused) {
  const Block block({"a", "b", "c"});
  expectStatus(open(block, {2}), TB_INVALID_OPTION, {"one more offset", "(2)", "4"});
  expectStatus(open(block, {3, 2}), TB_INVALID_OPTION, {"(6)"});
  expectStatus(open(block, {-3}), TB_INVALID_OPTION, {"negative"});
  expectStatus(open(block, {INT64_MAX, 2}), TB_INVALID_OPTION, {"overflows"});
  expectStatus(open(block, Shape(255, 1)), TB_INVALID_OPTION, {"254", "255"});
  EXPECT_EQ(strings_, nullptr);
  const int64_t offset = 0;
  expectStatus(tb_strings_from_memory("", -1, &offset, 1, nullptr, 0, &strings_), TB_INVALID_OPTION,
               {"negative"});
  expectStatus(tb_strings_from_memory(nullptr, 1, &offset, 1, nullptr, 0, &strings_),
               TB_INVALID_HANDLE, {"null"});
  expectStatus(tb_strings_from_memory("", 0, nullptr, 1, nullptr, 0, &strings_), TB_INVALID_HANDLE,
               {"null"});
  expectStatus(tb_strings_from_memory("", 0, &offset, 1, nullptr, 1, &strings_), TB_INVALID_HANDLE,
               {"shape"});
}

TEST_F(Strings, OtherTorchTensorsAreRefused) {
  const at::Tensor bytes = torchBytes("abc");
  const at::Tensor offsets = at::tensor({0, 3}, at::kLong);
  expectStatus(open(bytes.to(at::kChar), offsets, {1}), TB_UNSUPPORTED_DTYPE,
               {"bytes", "uint8", "int8"});
  expectStatus(open(bytes, offsets.to(at::kInt), {1}), TB_UNSUPPORTED_DTYPE,
               {"offsets", "int64", "int32"});
  expectStatus(open(bytes.view({1, 3}), offsets, {1}), TB_INVALID_OPTION, {"bytes", "dimension"});
  expectStatus(open(bytes, offsets.view({2, 1}), {1}), TB_INVALID_OPTION, {"offsets", "dimension"});
  expectStatus(open(bytes.to(at::kMeta), offsets, {1}), TB_UNSUPPORTED_TYPE, {"bytes", "dense"});
  expectStatus(open(bytes, offsets.to_sparse(), {1}), TB_UNSUPPORTED_TYPE, {"offsets", "dense"});
}

TEST_F(Strings, OfOtherTensorsAreRefused) {
  const TfTensor floats = TfTensor::floats({1});
  expectStatus(tb_strings_from_tf(floats.get(), &strings_), TB_UNSUPPORTED_DTYPE,
               {"strings", "float32"});
  EXPECT_EQ(strings_, nullptr);
}

TEST_F(Strings, ThatThereAreNotAreRefused) {
  ASSERT_EQ(open(Block({"a", "b"}), {2}), TB_OK);
  tb_string found[3];
  for (const auto& [first, count] : std::vector<std::pair<int64_t, int64_t>>{
           {0, 3}, {-1, 1}, {2, 1}, {0, -1}, {3, 0}, {1, INT64_MAX}, {INT64_MAX, 1}}) {
    expectStatus(tb_strings_get(strings_, first, count, found), TB_INVALID_OPTION, {"2 strings"});
  }
  EXPECT_EQ(tb_strings_get(strings_, 2, 0, found), TB_OK);
}

TEST_F(Strings, AreCopiedAndNothingElse) {
  ASSERT_EQ(open(Block(kTexts), {6}), TB_OK);
  tb_torch_tensor* torch[2] = {};
  options_.copy = TB_COPY_NEVER;
  expectStatus(tb_strings_to_torch(strings_, &options_, &torch[0], &torch[1]), TB_COPY_REQUIRED,
               {"copy=False", "Use copy=None"});
  options_.copy = TB_COPY_AUTO;
  options_.has_device = 1;
  options_.device_type = 99;
  EXPECT_NE(tb_strings_to_torch(strings_, &options_, &torch[0], &torch[1]), TB_OK);
  options_.has_device = 0;
  const double scale = 1;
  const int64_t zero_point = 0;
  options_.num_scales = 1;
  options_.scale = &scale;
  options_.zero_point = &zero_point;
  expectStatus(tb_strings_to_torch(strings_, &options_, &torch[0], &torch[1]), TB_INVALID_OPTION,
               {"scale", "strings"});
  options_.struct_size = 1;
  expectStatus(tb_strings_to_torch(strings_, &options_, &torch[0], &torch[1]), TB_INVALID_OPTION,
               {"struct_size"});
  EXPECT_EQ(torch[0], nullptr);

  tb_convert_back_options back;
  tb_convert_back_options_init(&back);
  TF_Tensor* tensor = nullptr;
  back.tf_dtype = TF_FLOAT;
  expectStatus(tb_strings_to_tf(strings_, &back, &tensor), TB_INVALID_OPTION, {"string"});
  back.tf_dtype = TF_STRING;
  ASSERT_EQ(tb_strings_to_tf(strings_, &back, &tensor), TB_OK);
  TF_DeleteTensor(tensor);
  tensor = nullptr;
  back.copy = TB_COPY_NEVER;
  expectStatus(tb_strings_to_tf(strings_, &back, &tensor), TB_COPY_REQUIRED, {"copy=False"});
  EXPECT_EQ(tensor, nullptr);
}

TEST_F(Strings, AreExplained) {
  ASSERT_EQ(open(Block({"a", "bc"}), {1, 2}), TB_OK);
  auto explanation = sized<tb_explanation>();
  ASSERT_EQ(tb_strings_explain(strings_, nullptr, &explanation), TB_OK) << tb_last_error();
  EXPECT_EQ(explanation.action, TB_ACTION_COPIED);
  EXPECT_EQ(explanation.on_write, -1);
  EXPECT_EQ(explanation.ndim, 2);
  EXPECT_EQ(explanation.nbytes, 3 + 3 * 8);
  EXPECT_STREQ(explanation.tf_dtype, "string");
  EXPECT_STREQ(explanation.torch_dtype, "torch.uint8");
  EXPECT_STREQ(explanation.device, "cpu");
  ASSERT_EQ(tb_strings_explain_back(strings_, nullptr, &explanation), TB_OK) << tb_last_error();
  EXPECT_EQ(explanation.action, TB_ACTION_COPIED);
  EXPECT_EQ(explanation.nbytes, 3 + 2 * 24);
  EXPECT_STREQ(explanation.device, "CPU:0");
  options_.copy = TB_COPY_NEVER;
  ASSERT_EQ(tb_strings_explain(strings_, &options_, &explanation), TB_OK);
  EXPECT_EQ(explanation.status, TB_COPY_REQUIRED);
  EXPECT_EQ(explanation.ndim, 2);
  explanation.struct_size = 8;
  expectStatus(tb_strings_explain(strings_, nullptr, &explanation), TB_INVALID_OPTION,
               {"struct_size"});
  expectStatus(tb_strings_explain_back(strings_, nullptr, &explanation), TB_INVALID_OPTION,
               {"struct_size"});
}

TEST_F(Strings, NullsAreErrors) {
  ASSERT_EQ(open(Block({"a"}), {1}), TB_OK);
  const int64_t one = 1;
  const at::Tensor bytes = torchBytes("a");
  auto* torch = reinterpret_cast<tb_torch_tensor*>(bytes.unsafeGetTensorImpl());
  tb_strings* out = nullptr;
  tb_torch_tensor* result = nullptr;
  TF_Tensor* tensor = nullptr;
  int64_t nbytes = 0;
  tb_string found;
  auto explanation = sized<tb_explanation>();
  const tb_status statuses[] = {
      tb_strings_from_tf(nullptr, &out),
      tb_strings_from_torch(nullptr, torch, &one, 1, &out),
      tb_strings_from_torch(torch, nullptr, &one, 1, &out),
      tb_strings_from_torch(torch, torch, &one, 1, nullptr),
      tb_strings_from_memory("", 0, &one, 1, nullptr, 0, nullptr),
      tb_strings_get(nullptr, 0, 0, &found),
      tb_strings_get(strings_, 0, 1, nullptr),
      tb_strings_nbytes(nullptr, &nbytes),
      tb_strings_nbytes(strings_, nullptr),
      tb_strings_gather(nullptr, nullptr, nullptr, 0),
      tb_strings_gather(strings_, nullptr, nullptr, 1),
      tb_strings_to_torch(nullptr, nullptr, &result, &result),
      tb_strings_to_torch(strings_, nullptr, nullptr, &result),
      tb_strings_to_torch(strings_, nullptr, &result, nullptr),
      tb_strings_to_tf(nullptr, nullptr, &tensor),
      tb_strings_to_tf(strings_, nullptr, nullptr),
      tb_strings_explain(nullptr, nullptr, &explanation),
      tb_strings_explain_back(nullptr, nullptr, &explanation),
  };
  for (size_t i = 0; i < std::size(statuses); ++i) EXPECT_EQ(statuses[i], TB_INVALID_HANDLE) << i;
  tb_strings_release(nullptr);
}

}  // namespace
}  // namespace tensor_bridge::testing
