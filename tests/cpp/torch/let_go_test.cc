// Memory that the other framework has released: the first write takes it over without a copy.

#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "adapters/torch/copy_on_write.h"
#include "support/on_threads.h"
#include "torch/foreign.h"

namespace tensor_bridge::testing {
namespace {

TEST(LetGo, FirstWriteStaysWhereItIs) {
  auto [foreign, tensor] = SharedFloats(kSix, {2, 3});
  foreign.letGo();
  tensor.add_(10);
  EXPECT_EQ(tensor.const_data_ptr(), foreign.data());
  EXPECT_EQ(valuesOf<float>(tensor), (std::vector<float>{11, 12, 13, 14, 15, 16}));
  EXPECT_FALSE(storageOf(tensor)->has_materializer()) << "nothing is left to pay for";
  EXPECT_EQ(foreignKind(storageOf(tensor)), nullptr) << "torch owns it";
  EXPECT_EQ(tensor.mutable_data_ptr(), foreign.data());
  EXPECT_EQ(foreign.released(), 0) << "it lives with the storage";
}

TEST(LetGo, IsAskedAtTheWriteAndNotBefore) {
  auto [foreign, tensor] = SharedFloats(kSix, {6});
  tensor.add_(1);
  EXPECT_NE(tensor.const_data_ptr(), foreign.data());
  foreign.letGo();
  tensor.add_(1);
  EXPECT_NE(tensor.const_data_ptr(), foreign.data()) << "it moves once, and never back";
  EXPECT_TRUE(foreign.unchanged());
}

TEST(LetGo, ViewsFollow) {
  auto [foreign, tensor] = SharedFloats(kSix, {2, 3});
  const at::Tensor row = tensor.select(0, 1);
  foreign.letGo();
  row.mul_(10);
  EXPECT_EQ(valuesOf<float>(tensor), (std::vector<float>{1, 2, 3, 40, 50, 60}));
  EXPECT_EQ(row.const_data_ptr<float>(), tensor.const_data_ptr<float>() + 3);
  EXPECT_EQ(tensor.const_data_ptr(), foreign.data());
}

TEST(LetGo, RaiseRaisesAllTheSame) {
  auto [foreign, tensor] = SharedFloats(kSix, {6}, TB_ON_WRITE_RAISE);
  foreign.letGo();
  for (int i = 0; i < 2; ++i) EXPECT_THROW(tensor.add_(1), c10::BufferError);
  EXPECT_TRUE(foreign.unchanged());
}

TEST(LetGo, AShareIsAHolderUntilItIsReleased) {
  auto [foreign, tensor] = SharedFloats(kSix, {6});
  foreign.letGo();
  const Kept held = Kept::orHeld(tensor);
  EXPECT_TRUE(held.isForeigns());
  EXPECT_EQ(held.data(), foreign.data());
  EXPECT_EQ(factsOf(tensor).storage_bytes, 24);
  tensor.add_(1);
  EXPECT_NE(tensor.const_data_ptr(), foreign.data());
  EXPECT_TRUE(foreign.unchanged());
}

TEST(LetGo, AShareOfAPartIsAHolderUntilItIsReleased) {
  auto [foreign, tensor] = SharedFloats(std::vector<float>(32, 1.0f), {32});
  foreign.letGo();
  Kept held = Kept::orHeld(tensor.slice(0, 16));
  EXPECT_EQ(held.data(), static_cast<const float*>(foreign.data()) + 16);
  EXPECT_EQ(factsOf(tensor.slice(0, 16)).storage_bytes, 128);
  held.release();
  tensor.add_(1);
  EXPECT_EQ(tensor.const_data_ptr(), foreign.data());
}

TEST(LetGo, AViewIsAHolderUntilItIsReleased) {
  auto [foreign, tensor] = SharedFloats(kSix, {2, 3});
  foreign.letGo();
  int64_t shape[2];
  int64_t strides[2];
  TensorRef view;
  ASSERT_EQ(Adapter::table().view(borrow(tensor), shape, strides, &view), TB_OK);
  EXPECT_EQ(view.dl.data, foreign.data());
  tensor.add_(10);
  EXPECT_NE(tensor.const_data_ptr(), foreign.data()) << "the view still shows the memory";
  EXPECT_EQ(static_cast<const float*>(view.dl.data)[0], 1);
  view.reset();

  auto [second, other] = SharedFloats(kSix, {6});
  second.letGo();
  ASSERT_EQ(Adapter::table().view(borrow(other), shape, strides, &view), TB_OK);
  view.reset();
  other.add_(10);
  EXPECT_EQ(other.const_data_ptr(), second.data()) << "nothing else shows the memory any more";
}

TEST(LetGo, WhatWasTakenOverIsSharedAsTorchsOwn) {
  auto [foreign, tensor] = SharedFloats(kSix, {6});
  foreign.letGo();
  tensor.add_(1);
  const TorchFacts facts = factsOf(tensor);
  EXPECT_EQ(facts.obstacle, Obstacle::kNone);
  EXPECT_EQ(facts.foreign_release, nullptr);
  Kept held = Kept::orHeld(tensor);
  EXPECT_TRUE(held.taken() && !held.isForeigns());
  EXPECT_EQ(held.data(), foreign.data());
  tensor.add_(1);
  EXPECT_NE(tensor.const_data_ptr(), foreign.data()) << "the bytes are kept";
  EXPECT_EQ(held.data()[0], 2.0f);
  held.release();
  EXPECT_EQ(foreign.released(), 0) << "one generation is kept for kernels that still read";
}

TEST(LetGo, WhatWasTakenOverAndSharedIsTakenBack) {
  auto [foreign, tensor] = SharedFloats(kSix, {6});
  foreign.letGo();
  for (int i = 0; i < 3; ++i) {
    tensor.add_(1);
    EXPECT_EQ(tensor.const_data_ptr(), foreign.data());
    Kept held = Kept::orHeld(tensor);
    held.release();
  }
}

// Tensor.numpy() takes the address and makes the storage refuse to be resized.
TEST(LetGo, AnArrayOverWhatWasTakenOverForbidsSharing) {
  auto [foreign, tensor] = SharedFloats(kSix, {6});
  foreign.letGo();
  tensor.mutable_data_ptr();
  storageOf(tensor)->set_resizable(false);
  EXPECT_EQ(factsOf(tensor).obstacle, Obstacle::kArray);
  EXPECT_FALSE(Kept::orHeld(tensor).taken());
}

TEST(LetGo, StorageMayBeReplaced) {
  auto [foreign, tensor] = SharedFloats(kSix, {6});
  foreign.letGo();
  tensor.add_(1);
  tensor.resize_({100});
  EXPECT_EQ(foreign.released(), 1);
  EXPECT_EQ(tensor[5].item<float>(), 7.0f);
}

TEST(LetGo, TwoFirstWritesAtOnceTakeItOverOnce) {
  for (int round = 0; round < 300; ++round) {
    Foreign foreign = Foreign::floats(std::vector<float>(64, 1.0f), {2, 32});
    const at::Tensor tensor = shared(&foreign);
    foreign.letGo();
    atOnce({[&] { tensor.select(0, 0).add_(1); }, [&] { tensor.select(0, 1).add_(1); }});
    ASSERT_EQ(tensor.const_data_ptr(), foreign.data());
    ASSERT_EQ(tensor.sum().item<float>(), 128.0f);
    // The memory is either shared and protected, or not shared.
    const Kept held = Kept::orHeld(tensor);
    if (held.taken()) {
      tensor.zero_();
      ASSERT_EQ(held.data()[0], 2.0f);
    }
  }
}

// A share before the first write holds the memory; a share after it gets torch's bytes. Neither
// sees a write.
TEST(LetGo, ShareAgainstTheFirstWrite) {
  for (int round = 0; round < 500; ++round) {
    Foreign foreign = Foreign::floats(std::vector<float>(64, 1.0f), {64});
    const at::Tensor tensor = shared(&foreign);
    foreign.letGo();
    std::optional<Kept> held;
    atOnce({[&] { tensor.add_(1); }, [&] { held.emplace(Kept::orHeld(tensor)); }});
    if (!held->taken()) continue;
    tensor.add_(5);
    ASSERT_TRUE(held->unchanged()) << "the share sees no write";
    ASSERT_EQ(tensor[63].item<float>(), 7.0f);
  }
}

}  // namespace
}  // namespace tensor_bridge::testing
