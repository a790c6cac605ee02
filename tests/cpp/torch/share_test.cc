// The properties of a shared tensor before it is written to.

#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "adapters/torch/copy_on_write.h"
#include "adapters/torch/maker.h"
#include "torch/foreign.h"

namespace tensor_bridge::testing {
namespace {

using ::testing::HasSubstr;

TEST(Share, ShowsTheMemoryAndReleasesItWithTheStorage) {
  auto [foreign, tensor] = SharedFloats(kSix, {2, 3});
  EXPECT_EQ(tensor.const_data_ptr(), foreign.data());
  EXPECT_EQ(valuesOf<float>(tensor), kSix);
  EXPECT_EQ(tensor.sizes(), (c10::IntArrayRef{2, 3}));
  EXPECT_EQ(tensor.strides(), (c10::IntArrayRef{3, 1}));
  EXPECT_EQ(tensor.scalar_type(), at::kFloat);
  EXPECT_EQ(tensor.storage().nbytes(), 24u);
  EXPECT_EQ(tensor.storage_offset(), 0);
  EXPECT_TRUE(showsForeign(tensor));
  EXPECT_EQ(foreign.released(), 0);
  tensor.reset();
  EXPECT_EQ(foreign.released(), 1);
}

TEST(Share, ResultIsAnOrdinaryLeafOnTheCpu) {
  auto [foreign, tensor] = SharedFloats(kSix, {2, 3});
  EXPECT_TRUE(tensor.is_cpu());
  EXPECT_TRUE(tensor.is_contiguous());
  EXPECT_TRUE(tensor.is_leaf());
  EXPECT_FALSE(tensor.requires_grad());
  EXPECT_FALSE(tensor.is_inference());
  EXPECT_FALSE(tensor.is_pinned());
  EXPECT_EQ(tensor.layout(), at::kStrided);
  EXPECT_EQ(tensor._version(), 0);
  EXPECT_EQ(tensor.key_set(), at::empty({1}).key_set());
  EXPECT_TRUE(tensor.storage().resizable());
}

// torch computes a tensor's layout flags once and does not check them again.
void expectSameLayout(const at::Tensor& tensor, const at::Tensor& plain) {
  ASSERT_EQ(tensor.sizes(), plain.sizes());
  EXPECT_EQ(tensor.strides(), plain.strides()) << plain.sizes();
  EXPECT_EQ(tensor.numel(), plain.numel()) << plain.sizes();
  EXPECT_EQ(tensor.is_contiguous(), plain.is_contiguous()) << plain.sizes();
  EXPECT_EQ(tensor.is_non_overlapping_and_dense(), plain.is_non_overlapping_and_dense())
      << plain.sizes();
  for (const auto format : {at::MemoryFormat::ChannelsLast, at::MemoryFormat::ChannelsLast3d}) {
    EXPECT_EQ(tensor.is_contiguous(format), plain.is_contiguous(format)) << plain.sizes();
    EXPECT_EQ(tensor.unsafeGetTensorImpl()->is_strides_like(format),
              plain.unsafeGetTensorImpl()->is_strides_like(format))
        << plain.sizes();
  }
}

TEST(Share, LayoutIsThatOfAnOrdinaryTensorForEveryRankAndSize) {
  constexpr int64_t kSizes[] = {0, 1, 2, 3};
  int64_t compared = 0;
  for (size_t ndim = 0; ndim <= 6; ++ndim) {
    const size_t count = size_t{1} << (2 * ndim);
    for (size_t code = 0; code < count; ++code) {
      std::vector<int64_t> shape;
      for (size_t i = 0; i < ndim; ++i) shape.push_back(kSizes[(code >> (2 * i)) & 3]);
      const at::Tensor plain = at::empty(shape);
      Foreign foreign =
          Foreign::floats(std::vector<float>(static_cast<size_t>(plain.numel())), shape);
      expectSameLayout(shared(&foreign), plain);
      ++compared;
    }
  }
  EXPECT_EQ(compared, 1 + 4 + 16 + 64 + 256 + 1024 + 4096);
}

TEST(Share, ReadingSharesOn) {
#if defined(__aarch64__)
  // There oneDNN's products ask for a mutable pointer to what they read.
  at::globalContext().setUserEnabledMkldnn(false);
#endif
  auto [foreign, tensor] = SharedFloats(kSix, {2, 3});
  EXPECT_EQ(tensor.sum().item<float>(), 21.0f);
  EXPECT_EQ(tensor.add(tensor).max().item<float>(), 12.0f);
  EXPECT_EQ(tensor.clone().const_data_ptr() == foreign.data(), false);
  EXPECT_EQ(tensor.matmul(tensor.t()).size(0), 2);
#if defined(__aarch64__)
  at::globalContext().setUserEnabledMkldnn(true);
#endif
  EXPECT_EQ(tensor.select(0, 1).const_data_ptr<float>()[0], 4.0f);
  EXPECT_EQ(tensor.const_data_ptr(), foreign.data());
  EXPECT_TRUE(showsForeign(tensor));
}

TEST(Share, ViewsKeepTheMemoryAlive) {
  auto [foreign, tensor] = SharedFloats(kSix, {2, 3});
  at::Tensor view = tensor.select(0, 1);
  at::Tensor detached = view.detach();
  tensor.reset();
  view.reset();
  EXPECT_EQ(foreign.released(), 0);
  EXPECT_EQ(detached.const_data_ptr<float>(), foreign.as<float>() + 3);
  EXPECT_EQ(valuesOf<float>(detached), (std::vector<float>{4, 5, 6}));
  detached.reset();
  EXPECT_EQ(foreign.released(), 1);
}

TEST(Share, MayDieOnAnotherThread) {
  auto [foreign, tensor] = SharedFloats(kSix, {6});
  std::thread([moved = std::move(tensor)]() mutable { moved.reset(); }).join();
  EXPECT_EQ(foreign.released(), 1);
}

TEST(Share, ScalarHasNoDimensions) {
  auto [foreign, tensor] = SharedFloats({7}, {});
  EXPECT_EQ(tensor.dim(), 0);
  EXPECT_EQ(tensor.item<float>(), 7.0f);
  EXPECT_EQ(tensor.const_data_ptr(), foreign.data());
}

TEST(Share, EmptyTensorHasAnOwnerAndNoMemory) {
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{0}, {3, 0, 2}, {0, int64_t{1} << 40}}) {
    auto [foreign, tensor] = SharedFloats({}, shape);
    EXPECT_EQ(tensor.sizes(), c10::IntArrayRef(shape));
    EXPECT_EQ(tensor.numel(), 0);
    EXPECT_EQ(tensor.const_data_ptr(), nullptr);
    EXPECT_EQ(foreign.released(), 0);
    tensor.add_(1);
    tensor.mutable_data_ptr();
    EXPECT_EQ(tensor.sum().item<float>(), 0.0f);
  }
}

TEST(Share, HasUpTo254Dimensions) {
  std::vector<int64_t> shape(254, 1);
  shape[17] = 6;
  auto [foreign, tensor] = SharedFloats(kSix, shape);
  EXPECT_EQ(tensor.sizes(), c10::IntArrayRef(shape));
  EXPECT_EQ(tensor.const_data_ptr(), foreign.data());
}

TEST(Share, AddressNeedNotBeAligned) {
  std::vector<float> values(5, 1.5f);
  Foreign foreign = Foreign::floats(values, {3});
  foreign.ref().dl.data = const_cast<float*>(foreign.as<float>() + 1);
  const at::Tensor tensor = shared(&foreign);
  EXPECT_EQ(tensor.const_data_ptr(), foreign.as<float>() + 1);
  EXPECT_EQ(tensor.sum().item<float>(), 4.5f);
}

TEST(Share, InInferenceModeGivesAnInferenceTensor) {
  Foreign foreign = Foreign::floats(kSix, {6});
  c10::InferenceMode mode;
  at::Tensor tensor = shared(&foreign);
  EXPECT_TRUE(tensor.is_inference());
  EXPECT_EQ(tensor.const_data_ptr(), foreign.data());
  tensor.add_(1);
  EXPECT_EQ(tensor.sum().item<float>(), 27.0f);
  EXPECT_TRUE(foreign.unchanged());
}

struct Row {
  Dtype dtype;
  const char* name;
  int torch_scalar;
  int itemsize;
  bool quantized;
};

std::vector<Row> torchRows() {
  std::vector<Row> rows;
  const Row all[] = {
#define TB_DTYPE(id, name, tf, torch, torch_name, code, bits, size, ...) \
  {Dtype::k##id, name, torch, size, name[0] == 'q'},
#include "core/dtype_table.def"
#undef TB_DTYPE
  };
  for (const Row& row : all) {
    if (row.torch_scalar >= 0 && !row.quantized) rows.push_back(row);
  }
  return rows;
}

class EveryTorchDtype : public ::testing::TestWithParam<Row> {};

TEST_P(EveryTorchDtype, IsSharedMovedByAWriteAndReleased) {
  const Row& row = GetParam();
  std::vector<uint8_t> bytes(6u * static_cast<size_t>(row.itemsize), 1);
  Foreign foreign(bytes, {2, 3}, row.dtype, row.itemsize);
  at::Tensor tensor = shared(&foreign);
  EXPECT_EQ(static_cast<int>(tensor.scalar_type()), row.torch_scalar);
  EXPECT_EQ(tensor.const_data_ptr(), foreign.data());
  EXPECT_EQ(tensor.nbytes(), bytes.size());
  void* data = tensor.mutable_data_ptr();
  EXPECT_NE(data, foreign.data());
  EXPECT_EQ(std::memcmp(data, bytes.data(), bytes.size()), 0);
  std::memset(data, 0, bytes.size());
  EXPECT_TRUE(foreign.unchanged());
}

INSTANTIATE_TEST_SUITE_P(Table, EveryTorchDtype, ::testing::ValuesIn(torchRows()),
                         [](const auto& row) { return std::string(row.param.name); });

// --- quantized ----------------------------------------------------------------------------------

class Quantized : public ::testing::Test {
 protected:
  WrapSpec specOf(Foreign* foreign) {
    WrapSpec spec = specFor(foreign->ref(), WrapAction::kShare);
    spec.quant = {static_cast<int64_t>(scale_.size()), scale_.data(), zero_point_.data(),
                  per_channel_, axis_};
    return spec;
  }

  std::vector<double> scale_ = {0.5};
  std::vector<int64_t> zero_point_ = {-1};
  bool per_channel_ = false;
  int64_t axis_ = 0;
};

TEST_F(Quantized, PerTensorSharesTheIntegers) {
  Foreign foreign(std::vector<int8_t>{-1, 0, 1, 2, 3, 4}, {2, 3}, Dtype::kQInt8, 1);
  at::Tensor tensor = wrapped(&foreign.ref(), specOf(&foreign));
  EXPECT_EQ(tensor.const_data_ptr(), foreign.data());
  EXPECT_TRUE(tensor.is_quantized());
  EXPECT_EQ(tensor.scalar_type(), at::kQInt8);
  EXPECT_EQ(tensor.q_scale(), 0.5);
  EXPECT_EQ(tensor.q_zero_point(), -1);
  EXPECT_EQ(valuesOf<float>(tensor.dequantize()), (std::vector<float>{0, .5, 1, 1.5, 2, 2.5}));
  EXPECT_EQ(tensor.const_data_ptr(), foreign.data()) << "reading keeps the memory shared";
  tensor.fill_(2.0);
  EXPECT_NE(tensor.const_data_ptr(), foreign.data());
  EXPECT_EQ(tensor.dequantize().sum().item<float>(), 12.0f);
  EXPECT_TRUE(foreign.unchanged());
}

TEST_F(Quantized, PerChannelHasAScaleForEachChannel) {
  Foreign foreign(std::vector<uint8_t>{10, 20, 30, 11, 21, 31}, {2, 3}, Dtype::kQUInt8, 1);
  scale_ = {1, 0.5, 2};
  zero_point_ = {10, 20, 30};
  per_channel_ = true;
  axis_ = 1;
  {
    const at::Tensor tensor = wrapped(&foreign.ref(), specOf(&foreign));
    EXPECT_EQ(tensor.const_data_ptr(), foreign.data());
    EXPECT_EQ(tensor.q_per_channel_axis(), 1);
    EXPECT_EQ(valuesOf<double>(tensor.q_per_channel_scales()), scale_);
    EXPECT_EQ(valuesOf<int64_t>(tensor.q_per_channel_zero_points()), zero_point_);
    EXPECT_EQ(valuesOf<float>(tensor.dequantize()), (std::vector<float>{0, 0, 0, 1, .5, 2}));
    EXPECT_TRUE(foreign.unchanged());
  }
  EXPECT_EQ(foreign.released(), 1);
}

TEST_F(Quantized, Int32AndCopy) {
  Foreign foreign(std::vector<int32_t>{5, -5}, {2}, Dtype::kQInt32, 4);
  zero_point_ = {0};
  WrapSpec spec = specOf(&foreign);
  spec.action = WrapAction::kCopy;
  const at::Tensor tensor = wrapped(&foreign.ref(), spec);
  EXPECT_NE(tensor.const_data_ptr(), foreign.data());
  EXPECT_EQ(valuesOf<float>(tensor.dequantize()), (std::vector<float>{2.5, -2.5}));
  EXPECT_EQ(foreign.released(), 0) << "a copy does not take the owner";
}

// --- failures -----------------------------------------------------------------------------------

TEST(ShareFailure, LeavesTheOwnerWithTheCaller) {
  Foreign foreign = Foreign::floats(kSix, {6});
  foreign.ref().dl.device = DLDevice{kDLVulkan, 0};
  const WrapSpec spec = specFor(foreign.ref(), WrapAction::kShare);
  tb_torch_tensor* out = nullptr;
  EXPECT_EQ(Adapter::table().wrap(&foreign.ref(), &spec, &out), TB_TORCH);
  EXPECT_EQ(Adapter::status(), TB_TORCH);
  EXPECT_THAT(Adapter::error(), HasSubstr("DLPack device type 7"));
  EXPECT_EQ(out, nullptr);
  EXPECT_EQ(foreign.released(), 0);
}

TEST(ShareFailure, OfAShapeWhoseStridesOverflowLeavesTheOwner) {
  Foreign foreign = Foreign::floats({}, {0, int64_t{1} << 40, int64_t{1} << 40});
  foreign.ref().nbytes = 0;
  const WrapSpec spec = specFor(foreign.ref(), WrapAction::kShare);
  tb_torch_tensor* out = nullptr;
  EXPECT_EQ(Adapter::table().wrap(&foreign.ref(), &spec, &out), TB_TORCH) << Adapter::error();
  EXPECT_EQ(foreign.released(), 0);
}

TEST(ShareFailure, ReleasesAnOwnerThatWasTaken) {
  // Like sharePython(): a failure before the owner is handed over, and one after.
  {
    Foreign foreign = Foreign::floats(kSix, {6});
    foreign.ref().dl.device = DLDevice{kDLVulkan, 0};
    const WrapSpec spec = specFor(foreign.ref(), WrapAction::kShare);
    {
      TensorRef ref = std::move(foreign.ref());
      EXPECT_THROW(sharedTensor(&ref, spec, true), c10::Error);
      EXPECT_EQ(foreign.released(), 0);
    }
    EXPECT_EQ(foreign.released(), 1);
  }
  {
    Foreign foreign = Foreign::floats({}, {0, int64_t{1} << 40, int64_t{1} << 40});
    const WrapSpec spec = specFor(foreign.ref(), WrapAction::kShare);
    TensorRef ref = std::move(foreign.ref());
    EXPECT_THROW(sharedTensor(&ref, spec, true), c10::Error);
    EXPECT_EQ(ref.owner, nullptr);
  }
}

TEST(SharedTensor, WithoutTakingHasNoOwnerUntilItIsAttached) {
  Foreign foreign = Foreign::floats(kSix, {6});
  {
    const at::Tensor dropped =
        sharedTensor(&foreign.ref(), specFor(foreign.ref(), WrapAction::kShare), false);
    EXPECT_EQ(dropped.const_data_ptr(), foreign.data());
  }
  EXPECT_EQ(foreign.released(), 0);
  {
    const at::Tensor tensor =
        sharedTensor(&foreign.ref(), specFor(foreign.ref(), WrapAction::kShare), false);
    attachOwner(storageOf(tensor), &foreign.ref());
    EXPECT_TRUE(showsForeign(tensor));
  }
  EXPECT_EQ(foreign.released(), 1);
}

TEST(ForeignOwner, IsNotFoundInTorchsOwnStorages) {
  Adapter::table();
  EXPECT_FALSE(showsForeign(at::empty({3})));
  EXPECT_FALSE(showsForeign(at::empty({0})));
}

}  // namespace
}  // namespace tensor_bridge::testing
