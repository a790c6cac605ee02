// Memory that the other framework has let go of: the first write takes it over as it is.

#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include "adapters/torch/copy_on_write.h"
#include "torch/foreign.h"

namespace tensor_bridge::testing {
namespace {

// As to_tf shares: what still is the other framework's is held, torch's own is kept.
struct Share {
  void* owner = nullptr;
  ReleaseFn release = nullptr;
  void* data = nullptr;

  static Share attempted(const at::Tensor& tensor) {
    Share result;
    const TorchFacts facts = factsOf(tensor, /*hold=*/true);
    if (facts.foreign_owner != nullptr) {
      result = {facts.foreign_owner, facts.foreign_release, const_cast<void*>(facts.data)};
    } else if (facts.obstacle == Obstacle::kNone &&
               Adapter::table().share(borrow(tensor), &result.owner, &result.release,
                                      &result.data) != TB_OK) {
      result.owner = nullptr;
    }
    return result;
  }
};

Share share(const at::Tensor& tensor) {
  const Share result = Share::attempted(tensor);
  EXPECT_NE(result.owner, nullptr);
  return result;
}

// Starts the functions at once, each on a thread.
void race(const std::vector<std::function<void()>>& functions) {
  std::atomic<size_t> waiting{functions.size()};
  std::vector<std::thread> threads;
  for (const auto& function : functions) {
    threads.emplace_back([&waiting, &function] {
      --waiting;
      while (waiting != 0) std::this_thread::yield();
      function();
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(LetGo, FirstWriteStaysWhereItIs) {
  Foreign foreign = Foreign::floats(kSix, {2, 3});
  {
    at::Tensor tensor = shared(&foreign);
    foreign.letGo();
    tensor.add_(10);
    EXPECT_EQ(tensor.const_data_ptr(), foreign.data());
    EXPECT_EQ(valuesOf<float>(tensor), (std::vector<float>{11, 12, 13, 14, 15, 16}));
    EXPECT_FALSE(storageOf(tensor)->has_materializer()) << "nothing is left to pay for";
    EXPECT_EQ(foreignKind(storageOf(tensor)), nullptr) << "it is torch's";
    EXPECT_EQ(tensor.mutable_data_ptr(), foreign.data());
    EXPECT_EQ(foreign.released(), 0) << "it lives with the storage";
  }
  EXPECT_EQ(foreign.released(), 1);
}

TEST(LetGo, IsAskedAtTheWriteAndNotBefore) {
  Foreign foreign = Foreign::floats(kSix, {6});
  at::Tensor tensor = shared(&foreign);
  tensor.add_(1);
  EXPECT_NE(tensor.const_data_ptr(), foreign.data());
  foreign.letGo();
  tensor.add_(1);
  EXPECT_NE(tensor.const_data_ptr(), foreign.data()) << "it moves once, and never back";
  EXPECT_TRUE(foreign.unchanged());
}

TEST(LetGo, ViewsFollow) {
  Foreign foreign = Foreign::floats(kSix, {2, 3});
  at::Tensor tensor = shared(&foreign);
  const at::Tensor row = tensor.select(0, 1);
  foreign.letGo();
  row.mul_(10);
  EXPECT_EQ(valuesOf<float>(tensor), (std::vector<float>{1, 2, 3, 40, 50, 60}));
  EXPECT_EQ(row.const_data_ptr<float>(), tensor.const_data_ptr<float>() + 3);
  EXPECT_EQ(tensor.const_data_ptr(), foreign.data());
}

TEST(LetGo, RaiseRaisesAllTheSame) {
  Foreign foreign = Foreign::floats(kSix, {6});
  at::Tensor tensor = shared(&foreign, TB_ON_WRITE_RAISE);
  foreign.letGo();
  for (int i = 0; i < 2; ++i) EXPECT_THROW(tensor.add_(1), c10::BufferError);
  EXPECT_TRUE(foreign.unchanged());
}

TEST(LetGo, AShareIsAHolderUntilItIsReleased) {
  Foreign foreign = Foreign::floats(kSix, {6});
  {
    at::Tensor tensor = shared(&foreign);
    foreign.letGo();
    const Share held = share(tensor);
    EXPECT_EQ(held.release, Foreign::release);
    EXPECT_EQ(held.data, foreign.data());
    EXPECT_EQ(factsOf(tensor).storage_bytes, 24);
    tensor.add_(1);
    EXPECT_NE(tensor.const_data_ptr(), foreign.data());
    EXPECT_TRUE(foreign.unchanged());
    held.release(held.owner);
  }
  EXPECT_EQ(foreign.released(), 1);
  Foreign second = Foreign::floats(std::vector<float>(32, 1.0f), {32});
  at::Tensor tensor = shared(&second);
  second.letGo();
  const Share held = share(tensor.slice(0, 16));
  EXPECT_EQ(held.data, static_cast<const float*>(second.data()) + 16);
  EXPECT_EQ(factsOf(tensor.slice(0, 16)).storage_bytes, 128);
  held.release(held.owner);
  tensor.add_(1);
  EXPECT_EQ(tensor.const_data_ptr(), second.data());
}

TEST(LetGo, AViewIsAHolderUntilItIsReleased) {
  Foreign foreign = Foreign::floats(kSix, {2, 3});
  at::Tensor tensor = shared(&foreign);
  foreign.letGo();
  int64_t shape[2];
  int64_t strides[2];
  TensorRef view;
  ASSERT_EQ(Adapter::table().view(borrow(tensor), shape, strides, &view), TB_OK);
  EXPECT_EQ(view.dl.data, foreign.data());
  tensor.add_(10);
  EXPECT_NE(tensor.const_data_ptr(), foreign.data()) << "the view shows it";
  EXPECT_EQ(static_cast<const float*>(view.dl.data)[0], 1);
  view.reset();

  at::Tensor other = shared(&foreign);
  ASSERT_EQ(Adapter::table().view(borrow(other), shape, strides, &view), TB_OK);
  view.reset();
  other.add_(10);
  EXPECT_EQ(other.const_data_ptr(), foreign.data()) << "nobody shows it any more";
}

TEST(LetGo, WhatWasTakenOverIsSharedAsTorchsOwn) {
  Foreign foreign = Foreign::floats(kSix, {6});
  {
    at::Tensor tensor = shared(&foreign);
    foreign.letGo();
    tensor.add_(1);
    const TorchFacts facts = factsOf(tensor);
    EXPECT_EQ(facts.obstacle, Obstacle::kNone);
    EXPECT_EQ(facts.foreign_release, nullptr);
    const Share held = share(tensor);
    EXPECT_NE(held.release, Foreign::release);
    EXPECT_EQ(held.data, foreign.data());
    tensor.add_(1);
    EXPECT_NE(tensor.const_data_ptr(), foreign.data()) << "the bytes are kept";
    EXPECT_EQ(*static_cast<const float*>(held.data), 2.0f);
    held.release(held.owner);
    EXPECT_EQ(foreign.released(), 0) << "one generation is kept for kernels that still read";
  }
  EXPECT_EQ(foreign.released(), 1);
}

TEST(LetGo, WhatWasTakenOverAndSharedIsTakenBack) {
  Foreign foreign = Foreign::floats(kSix, {6});
  at::Tensor tensor = shared(&foreign);
  foreign.letGo();
  for (int i = 0; i < 3; ++i) {
    tensor.add_(1);
    EXPECT_EQ(tensor.const_data_ptr(), foreign.data());
    const Share held = share(tensor);
    held.release(held.owner);
  }
}

// Tensor.numpy() takes the address and makes the storage refuse to be resized.
TEST(LetGo, AnArrayOverWhatWasTakenOverForbidsSharing) {
  Foreign foreign = Foreign::floats(kSix, {6});
  at::Tensor tensor = shared(&foreign);
  foreign.letGo();
  tensor.mutable_data_ptr();
  storageOf(tensor)->set_resizable(false);
  EXPECT_EQ(factsOf(tensor).obstacle, Obstacle::kArray);
  EXPECT_EQ(Share::attempted(tensor).owner, nullptr);
}

TEST(LetGo, StorageMayBeReplaced) {
  Foreign foreign = Foreign::floats(kSix, {6});
  at::Tensor tensor = shared(&foreign);
  foreign.letGo();
  tensor.add_(1);
  tensor.resize_({100});
  EXPECT_EQ(foreign.released(), 1);
  EXPECT_EQ(tensor[5].item<float>(), 7.0f);
}

TEST(LetGo, TwoFirstWritesAtOnceTakeItOverOnce) {
  for (int round = 0; round < 300; ++round) {
    Foreign foreign = Foreign::floats(std::vector<float>(64, 1.0f), {2, 32});
    {
      const at::Tensor tensor = shared(&foreign);
      foreign.letGo();
      race({[&] { tensor.select(0, 0).add_(1); }, [&] { tensor.select(0, 1).add_(1); }});
      ASSERT_EQ(tensor.const_data_ptr(), foreign.data());
      ASSERT_EQ(tensor.sum().item<float>(), 128.0f);
      // Either it can be shared and is protected, or nobody can tell and it is not shared.
      const Share held = Share::attempted(tensor);
      if (held.owner != nullptr) {
        tensor.zero_();
        ASSERT_EQ(*static_cast<const float*>(held.data), 2.0f);
        held.release(held.owner);
      }
    }
    ASSERT_EQ(foreign.released(), 1);
  }
}

// A share that comes first is a holder; one that comes later gets torch's bytes. Neither sees a
// write.
TEST(LetGo, ShareAgainstTheFirstWrite) {
  for (int round = 0; round < 500; ++round) {
    Foreign foreign = Foreign::floats(std::vector<float>(64, 1.0f), {64});
    {
      const at::Tensor tensor = shared(&foreign);
      foreign.letGo();
      Share held;
      race({[&] { tensor.add_(1); }, [&] { held = Share::attempted(tensor); }});
      if (held.owner == nullptr) continue;
      const float seen = static_cast<const float*>(held.data)[63];
      tensor.add_(5);
      ASSERT_EQ(static_cast<const float*>(held.data)[63], seen) << "the share sees no write";
      ASSERT_EQ(tensor[63].item<float>(), 7.0f);
      held.release(held.owner);
    }
    ASSERT_EQ(foreign.released(), 1);
  }
}

}  // namespace
}  // namespace tensor_bridge::testing
