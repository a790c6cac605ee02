// Results in torch's own memory: plain copies and conversions through a lookup table.

#include <ATen/ops/empty.h>
#include <c10/core/DefaultDtype.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <numeric>
#include <vector>

#include "adapters/torch/copy_on_write.h"
#include "torch/foreign.h"

// A test below requests more memory than there is, which the sanitizer would report as an error.
extern "C" const char* __asan_default_options();
extern "C" const char* __asan_default_options() { return "allocator_may_return_null=1"; }

namespace tensor_bridge::testing {
namespace {

using ::testing::HasSubstr;

at::Tensor copied(Foreign* foreign) {
  return wrapped(&foreign->ref(), specFor(foreign->ref(), WrapAction::kCopy));
}

class CopyOfSize : public ::testing::TestWithParam<int64_t> {};

TEST_P(CopyOfSize, HasTheValuesAndTakesNothing) {
  std::vector<float> values(static_cast<size_t>(GetParam()));
  std::iota(values.begin(), values.end(), 1.0f);
  Foreign foreign = Foreign::floats(values, {GetParam()});
  at::Tensor tensor = copied(&foreign);
  EXPECT_EQ(valuesOf<float>(tensor), values);
  EXPECT_EQ(tensor.scalar_type(), at::kFloat);
  EXPECT_TRUE(tensor.is_contiguous());
  EXPECT_TRUE(tensor.is_leaf());
  EXPECT_FALSE(showsForeign(tensor));
  if (GetParam() > 0) {
    EXPECT_NE(tensor.const_data_ptr(), foreign.data());
  }
  const void* address = tensor.const_data_ptr();
  tensor.add_(1);
  EXPECT_EQ(tensor.const_data_ptr(), address) << "ordinary torch memory";
  EXPECT_TRUE(foreign.unchanged());
  EXPECT_EQ(foreign.released(), 0);
}

// Around the size from which torch's own threads copy: 64 KiB.
INSTANTIATE_TEST_SUITE_P(Sizes, CopyOfSize,
                         ::testing::Values(0, 1, 6, 16383, 16384, 16385, 1000003));

TEST(Copy, KeepsShapeAndDtype) {
  Foreign foreign(std::vector<int64_t>{1, 2, 3, 4, 5, 6}, {3, 1, 2}, Dtype::kInt64, 8);
  const at::Tensor tensor = copied(&foreign);
  EXPECT_EQ(tensor.sizes(), (c10::IntArrayRef{3, 1, 2}));
  EXPECT_EQ(tensor.scalar_type(), at::kLong);
  EXPECT_EQ(valuesOf<int64_t>(tensor), (std::vector<int64_t>{1, 2, 3, 4, 5, 6}));
}

TEST(Copy, OfAScalar) {
  Foreign foreign = Foreign::floats({3.5}, {});
  const at::Tensor tensor = copied(&foreign);
  EXPECT_EQ(tensor.dim(), 0);
  EXPECT_EQ(tensor.item<float>(), 3.5f);
}

TEST(Copy, SourceNeedNotBeAligned) {
  std::vector<float> values(40001, 2.0f);
  Foreign foreign = Foreign::floats(values, {40000});
  foreign.ref().dl.data = const_cast<float*>(foreign.as<float>() + 1);
  EXPECT_EQ(copied(&foreign).sum().item<float>(), 80000.0f);
}

TEST(Copy, InInferenceModeGivesAnInferenceTensor) {
  for (int64_t size : {4, 40000}) {
    std::vector<float> values(static_cast<size_t>(size), 1.0f);
    Foreign foreign = Foreign::floats(values, {size});
    c10::InferenceMode mode;
    at::Tensor tensor = copied(&foreign);
    EXPECT_TRUE(tensor.is_inference());
    tensor.add_(1);
    EXPECT_EQ(tensor.sum().item<float>(), 2.0f * static_cast<float>(size));
  }
}

TEST(Copy, MoveToTheCpuIsACopy) {
  Foreign foreign = Foreign::floats({1, 2}, {2});
  WrapSpec spec = specFor(foreign.ref(), WrapAction::kCopy);
  spec.move = true;
  spec.device = DLDevice{kDLCPU, -1};
  const at::Tensor tensor = wrapped(&foreign.ref(), spec);
  EXPECT_TRUE(tensor.is_cpu());
  EXPECT_EQ(valuesOf<float>(tensor), (std::vector<float>{1, 2}));
  EXPECT_NE(tensor.const_data_ptr(), foreign.data());
}

TEST(Copy, WithoutMemorySaysSo) {
  Foreign foreign = Foreign::floats({1}, {int64_t{1} << 48});
  const WrapSpec spec = specFor(foreign.ref(), WrapAction::kCopy);
  tb_torch_tensor* out = nullptr;
  EXPECT_EQ(Adapter::table().wrap(&foreign.ref(), &spec, &out), TB_OUT_OF_MEMORY);
  EXPECT_THAT(Adapter::error(), HasSubstr("memory"));
  EXPECT_EQ(out, nullptr);
  EXPECT_EQ(foreign.released(), 0);
}

TEST(Copy, ToADeviceThatTorchLacksSaysSo) {
  Foreign foreign = Foreign::floats({1, 2}, {2});
  WrapSpec spec = specFor(foreign.ref(), WrapAction::kCopy);
  spec.move = true;
  spec.device = DLDevice{kDLVulkan, 0};
  tb_torch_tensor* out = nullptr;
  EXPECT_EQ(Adapter::table().wrap(&foreign.ref(), &spec, &out), TB_TORCH);
  EXPECT_THAT(Adapter::error(), HasSubstr("device"));
  EXPECT_EQ(foreign.released(), 0);
}

// --- lookup -------------------------------------------------------------------------------------

std::vector<uint8_t> everyByte() {
  std::vector<uint8_t> bytes(256);
  std::iota(bytes.begin(), bytes.end(), static_cast<uint8_t>(0));
  return bytes;
}

// A table whose entry for byte b is `first + b`.
template <typename T>
std::vector<T> tableFrom(int first) {
  std::vector<T> table(256);
  for (int i = 0; i < 256; ++i) table[static_cast<size_t>(i)] = static_cast<T>(first + i);
  return table;
}

template <typename T>
void expectLookedUp(Dtype stored, Dtype result, int first) {
  const std::vector<T> table = tableFrom<T>(first);
  Foreign foreign(everyByte(), {16, 16}, stored, 1);
  WrapSpec spec = specFor(foreign.ref(), WrapAction::kLookup);
  spec.dtype = result;
  spec.lookup = table.data();
  at::Tensor tensor = wrapped(&foreign.ref(), spec);
  EXPECT_EQ(tensor.sizes(), (c10::IntArrayRef{16, 16}));
  EXPECT_EQ(valuesOf<T>(tensor), table);
  EXPECT_FALSE(showsForeign(tensor));
  tensor.mutable_data_ptr();
  EXPECT_TRUE(foreign.unchanged());
  EXPECT_EQ(foreign.released(), 0);
}

TEST(Lookup, OfOneByteResults) { expectLookedUp<int8_t>(Dtype::kInt4, Dtype::kInt8, -128); }

TEST(Lookup, OfTwoByteResults) {
  expectLookedUp<uint16_t>(Dtype::kFloat8E4M3B11FNUZ, Dtype::kFloat16, 0x3c00);
}

TEST(Lookup, OfFourByteResults) {
  expectLookedUp<float>(Dtype::kFloat4E2M1FN, Dtype::kFloat32, -100);
}

TEST(Lookup, OfNothingAndOfAScalar) {
  const std::vector<int8_t> table = tableFrom<int8_t>(0);
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{0, 3}, {}}) {
    Foreign foreign(std::vector<uint8_t>(shape.empty() ? 1 : 0, 7), shape, Dtype::kInt4, 1);
    WrapSpec spec = specFor(foreign.ref(), WrapAction::kLookup);
    spec.dtype = Dtype::kInt8;
    spec.lookup = table.data();
    const at::Tensor tensor = wrapped(&foreign.ref(), spec);
    EXPECT_EQ(tensor.sizes(), c10::IntArrayRef(shape));
    EXPECT_EQ(tensor.scalar_type(), at::kChar);
    if (shape.empty()) {
      EXPECT_EQ(tensor.item<int8_t>(), 7);
    }
  }
}

}  // namespace
}  // namespace tensor_bridge::testing
