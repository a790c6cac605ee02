// The effect of a write to a tensor that shares memory: on_write="copy", "raise", "alias".

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "adapters/torch/copy_on_write.h"
#include "torch/foreign.h"

namespace tensor_bridge::testing {
namespace {

using ::testing::HasSubstr;

// --- copy ---------------------------------------------------------------------------------------

TEST(CopyOnWrite, FirstWriteMovesTheTensorAndLeavesTheSource) {
  auto [foreign, tensor] = SharedFloats(kSix, {2, 3});
  tensor.add_(10);
  EXPECT_NE(tensor.const_data_ptr(), foreign.data());
  EXPECT_EQ(valuesOf<float>(tensor), (std::vector<float>{11, 12, 13, 14, 15, 16}));
  EXPECT_TRUE(foreign.unchanged());
  EXPECT_FALSE(showsForeign(tensor));
  EXPECT_EQ(foreign.released(), 0) << "kept until the storage dies";
}

TEST(CopyOnWrite, MovesAllViewsTogether) {
  auto [foreign, tensor] = SharedFloats(kSix, {2, 3});
  const at::Tensor row = tensor.select(0, 1);
  const at::Tensor column = tensor.select(1, 2);
  const at::Tensor flat = tensor.view({6});
  const at::Tensor detached = tensor.detach();
  row.mul_(10);
  EXPECT_EQ(valuesOf<float>(tensor), (std::vector<float>{1, 2, 3, 40, 50, 60}));
  EXPECT_EQ(flat.const_data_ptr(), tensor.const_data_ptr());
  EXPECT_EQ(detached.const_data_ptr(), tensor.const_data_ptr());
  EXPECT_EQ(row.const_data_ptr<float>(), tensor.const_data_ptr<float>() + 3);
  EXPECT_EQ(column.const_data_ptr<float>(), tensor.const_data_ptr<float>() + 2);
  EXPECT_EQ(column.sum().item<float>(), 63.0f);
  EXPECT_TRUE(foreign.unchanged());
}

TEST(CopyOnWrite, SecondWriteDoesNotMoveAgain) {
  auto [foreign, tensor] = SharedFloats(kSix, {6});
  tensor.add_(1);
  const void* moved = tensor.const_data_ptr();
  tensor.add_(1);
  tensor.view({2, 3}).zero_();
  EXPECT_EQ(tensor.mutable_data_ptr(), moved);
  EXPECT_EQ(tensor.const_data_ptr(), moved);
  EXPECT_FALSE(storageOf(tensor)->has_materializer()) << "nothing is left to pay for";
}

TEST(CopyOnWrite, APointerTakenBeforeTheWriteStaysValid) {
  auto [foreign, tensor] = SharedFloats(kSix, {6});
  const float* before = tensor.const_data_ptr<float>();
  tensor.fill_(0);
  for (int i = 0; i < 6; ++i) EXPECT_EQ(before[i], kSix[static_cast<size_t>(i)]);
}

TEST(CopyOnWrite, TwoTensorsOverOneMemoryMoveSeparately) {
  Foreign first = Foreign::floats(kSix, {6});
  Foreign second = Foreign::floats(kSix, {6});
  second.ref().dl.data = const_cast<void*>(first.data());
  {
    at::Tensor a = shared(&first);
    at::Tensor b = shared(&second);
    a.add_(1);
    EXPECT_EQ(b.const_data_ptr(), first.data());
    EXPECT_EQ(valuesOf<float>(b), kSix);
    b.add_(2);
    EXPECT_EQ(a[0].item<float>(), 2.0f);
    EXPECT_EQ(b[0].item<float>(), 3.0f);
    EXPECT_TRUE(first.unchanged());
  }
  EXPECT_EQ(first.released(), 1);
  EXPECT_EQ(second.released(), 1);
}

// Each asks torch for a writable pointer in a different way.
struct Writer {
  const char* name;
  std::function<void(at::Tensor&)> write;
};

const Writer kWriters[] = {
    {"add_", [](at::Tensor& t) { t.add_(1); }},
    {"fill_", [](at::Tensor& t) { t.fill_(9); }},
    {"zero_", [](at::Tensor& t) { t.zero_(); }},
    {"copy_", [](at::Tensor& t) { t.copy_(at::zeros({6})); }},
    {"index_put_", [](at::Tensor& t) { t.select(0, 2).fill_(9); }},
    {"data_ptr", [](at::Tensor& t) { *static_cast<float*>(t.data_ptr()) = 9; }},
    {"data_ptr_T", [](at::Tensor& t) { *t.data_ptr<float>() = 9; }},
    {"mutable_data_ptr", [](at::Tensor& t) { *t.mutable_data_ptr<float>() = 9; }},
    {"accessor", [](at::Tensor& t) { t.accessor<float, 1>()[3] = 9; }},
    {"storage", [](at::Tensor& t) { *static_cast<float*>(t.storage().mutable_data()) = 9; }},
    {"storage_data_ptr",
     [](at::Tensor& t) { *static_cast<float*>(t.storage().mutable_data_ptr().mutable_get()) = 9; }},
    {"requires_grad",
     [](at::Tensor& t) {
       t.requires_grad_();
       const at::NoGradGuard guard;
       t.sub_(1);
     }},
    {"detach", [](at::Tensor& t) { t.detach().neg_(); }},
    {"variable_data", [](at::Tensor& t) { t.variable_data().neg_(); }},
};

class EveryWriter : public ::testing::TestWithParam<Writer> {};

TEST_P(EveryWriter, LeavesTheSourceAndOwnsItsMemory) {
  auto [foreign, tensor] = SharedFloats(kSix, {6});
  GetParam().write(tensor);
  EXPECT_NE(tensor.const_data_ptr(), foreign.data());
  EXPECT_NE(valuesOf<float>(tensor), kSix) << "the write happened";
  EXPECT_TRUE(foreign.unchanged());
}

TEST_P(EveryWriter, RaisesWhereItMayNotWrite) {
  auto [foreign, tensor] = SharedFloats(kSix, {6}, TB_ON_WRITE_RAISE);
  EXPECT_THROW(GetParam().write(tensor), c10::BufferError);
  EXPECT_EQ(tensor.const_data_ptr(), foreign.data());
  EXPECT_TRUE(foreign.unchanged());
  EXPECT_THROW(GetParam().write(tensor), c10::BufferError) << "a second write";
}

TEST_P(EveryWriter, WritesThroughAnAlias) {
  auto [foreign, tensor] = SharedFloats(kSix, {6}, TB_ON_WRITE_ALIAS);
  GetParam().write(tensor);
  EXPECT_EQ(tensor.const_data_ptr(), foreign.data());
  EXPECT_FALSE(foreign.unchanged());
  EXPECT_EQ(std::vector<float>(foreign.as<float>(), foreign.as<float>() + 6),
            valuesOf<float>(tensor));
}

INSTANTIATE_TEST_SUITE_P(All, EveryWriter, ::testing::ValuesIn(kWriters),
                         [](const auto& writer) { return std::string(writer.param.name); });

// --- resizing, swapping, replacing --------------------------------------------------------------

TEST(CopyOnWrite, ResizingDownSharesOn) {
  auto [foreign, tensor] = SharedFloats(kSix, {6});
  tensor.resize_({2});
  EXPECT_EQ(tensor.const_data_ptr(), foreign.data());
  EXPECT_TRUE(showsForeign(tensor));
  tensor.fill_(0);
  EXPECT_TRUE(foreign.unchanged());
  EXPECT_EQ(valuesOf<float>(tensor), (std::vector<float>{0, 0}));
  tensor.resize_({6});
  EXPECT_EQ(valuesOf<float>(tensor), (std::vector<float>{0, 0, 3, 4, 5, 6}));
}

TEST(CopyOnWrite, ResizingUpMovesAndReleases) {
  auto [foreign, tensor] = SharedFloats(kSix, {6});
  tensor.resize_({1000});
  EXPECT_NE(tensor.const_data_ptr(), foreign.data());
  EXPECT_FALSE(showsForeign(tensor));
  EXPECT_EQ(foreign.released(), 1) << "torch gave the storage other memory";
  const std::vector<float> values = valuesOf<float>(tensor);
  EXPECT_EQ(std::vector<float>(values.begin(), values.begin() + 6), kSix);
  const void* resized = tensor.const_data_ptr();
  tensor.fill_(1);
  EXPECT_EQ(tensor.const_data_ptr(), resized) << "a resized storage does not move";
}

TEST(CopyOnWrite, ResizingAfterAWriteReleasesOnce) {
  auto [foreign, tensor] = SharedFloats(kSix, {6});
  tensor.add_(1);
  tensor.resize_({1000});
  EXPECT_EQ(foreign.released(), 1);
  EXPECT_EQ(tensor[5].item<float>(), 7.0f);
  tensor.add_(1);
  EXPECT_EQ(tensor[0].item<float>(), 3.0f);
}

TEST(CopyOnWrite, EmptyingTheStorageReleases) {
  auto [foreign, tensor] = SharedFloats(kSix, {6});
  c10::StorageImpl* storage = storageOf(tensor);
  storage->set_data_ptr_noswap(c10::DataPtr(nullptr, c10::Device(c10::kCPU)));
  storage->set_nbytes(0);
  EXPECT_EQ(foreign.released(), 1);
  EXPECT_FALSE(showsForeign(tensor));
  EXPECT_EQ(storage->mutable_data(), nullptr);
}

TEST(CopyOnWrite, SetDataReplacesTheStorage) {
  auto [foreign, tensor] = SharedFloats(kSix, {6});
  at::Tensor other = at::zeros({6});
  tensor.set_data(other);
  EXPECT_EQ(foreign.released(), 1);
  EXPECT_EQ(tensor.const_data_ptr(), other.const_data_ptr());
}

TEST(CopyOnWrite, TheOtherSideOfSetSharesOn) {
  Foreign foreign = Foreign::floats(kSix, {6});
  at::Tensor target = at::empty({0});
  {
    const at::Tensor tensor = shared(&foreign);
    target.set_(tensor);
    EXPECT_EQ(target.const_data_ptr(), tensor.const_data_ptr());
  }
  EXPECT_EQ(valuesOf<float>(target), kSix);
  target.zero_();
  EXPECT_EQ(target.sum().item<float>(), 0.0f);
  EXPECT_TRUE(foreign.unchanged());
}

TEST(CopyOnWrite, SwappingStoragesMovesFirst) {
  Foreign foreign = Foreign::floats(kSix, {6});
  {
    at::Tensor tensor = shared(&foreign);
    at::Tensor other = at::zeros({6});
    storageOf(tensor)->swap_data_ptr(*storageOf(other));
    EXPECT_EQ(valuesOf<float>(other), kSix);
    EXPECT_EQ(tensor.sum().item<float>(), 0.0f);
    EXPECT_NE(other.const_data_ptr(), foreign.data());
    other.add_(1);
    tensor.add_(1);
    EXPECT_TRUE(foreign.unchanged());
    EXPECT_EQ(other.sum().item<float>(), 27.0f);
    tensor.reset();
    EXPECT_EQ(foreign.released(), 0) << "the other storage holds it";
    other.reset();
    EXPECT_EQ(foreign.released(), 1);
  }
}

TEST(CopyOnWrite, TakingTheDataPointerOutMovesFirst) {
  auto [foreign, tensor] = SharedFloats(kSix, {6});
  const c10::DataPtr taken =
      storageOf(tensor)->set_data_ptr(c10::DataPtr(nullptr, c10::Device(c10::kCPU)));
  EXPECT_NE(taken.get(), foreign.data());
  EXPECT_EQ(static_cast<const float*>(taken.get())[5], 6.0f);
  EXPECT_EQ(foreign.released(), 0);
}

TEST(CopyOnWrite, AnAllocatorThatFailsLeavesTheTensorShared) {
  struct Failing final : c10::Allocator {
    c10::DataPtr allocate(size_t) override { TORCH_CHECK(false, "no memory today"); }
    void copy_data(void*, const void*, std::size_t) const override {}
  };
  static Failing failing;
  auto [foreign, tensor] = SharedFloats(kSix, {6});
  c10::Allocator* usual = storageOf(tensor)->allocator();
  storageOf(tensor)->set_allocator(&failing);
  EXPECT_THROW(tensor.add_(1), c10::Error);
  EXPECT_EQ(tensor.const_data_ptr(), foreign.data());
  EXPECT_TRUE(foreign.unchanged());
  storageOf(tensor)->set_allocator(usual);
  tensor.add_(1);
  EXPECT_EQ(tensor.sum().item<float>(), 27.0f);
  EXPECT_TRUE(foreign.unchanged());
}

TEST(CopyOnWrite, AutogradSeesTheWrite) {
  auto [foreign, tensor] = SharedFloats(kSix, {6});
  at::Tensor weight = at::zeros({6}).requires_grad_();
  const at::Tensor product = tensor.mul(weight).sum();
  tensor.add_(1);
  EXPECT_EQ(tensor._version(), 1);
  EXPECT_THROW(product.backward(), c10::Error) << "a tensor saved for backward was changed";
}

// --- raise --------------------------------------------------------------------------------------

TEST(RaiseOnWrite, SaysWhatToDoAndLeavesTheHook) {
  auto [foreign, tensor] = SharedFloats(kSix, {6}, TB_ON_WRITE_RAISE);
  for (int i = 0; i < 2; ++i) {
    try {
      tensor.add_(1);
      ADD_FAILURE() << "the write went through";
    } catch (const c10::BufferError& e) {
      EXPECT_THAT(e.what_without_backtrace(), HasSubstr("on_write=\"raise\""));
      EXPECT_THAT(e.what_without_backtrace(), HasSubstr("clone()"));
      EXPECT_THAT(e.what_without_backtrace(), HasSubstr("on_write=\"copy\""));
    }
    EXPECT_TRUE(storageOf(tensor)->has_materializer());
    EXPECT_TRUE(showsForeign(tensor));
  }
  EXPECT_EQ(tensor.sum().item<float>(), 21.0f) << "reading still works";
  at::Tensor clone = tensor.clone();
  clone.add_(1);
  EXPECT_EQ(clone.sum().item<float>(), 27.0f);
  EXPECT_THROW(tensor.view({2, 3}).zero_(), c10::BufferError) << "views as well";
  EXPECT_TRUE(foreign.unchanged());
}

TEST(RaiseOnWrite, EndsWithTheSharing) {
  auto [foreign, tensor] = SharedFloats(kSix, {6}, TB_ON_WRITE_RAISE);
  tensor.resize_({1000});
  EXPECT_EQ(foreign.released(), 1);
  tensor.fill_(1);
  EXPECT_EQ(tensor.sum().item<float>(), 1000.0f);
}

// --- alias --------------------------------------------------------------------------------------

TEST(AliasOnWrite, HasNoHookAndIsKnownAsForeign) {
  auto [foreign, tensor] = SharedFloats(kSix, {6}, TB_ON_WRITE_ALIAS);
  EXPECT_FALSE(storageOf(tensor)->has_materializer());
  tensor.add_(1);
  EXPECT_TRUE(showsForeign(tensor));
  EXPECT_EQ(foreign.as<float>()[0], 2.0f);
}

}  // namespace
}  // namespace tensor_bridge::testing
