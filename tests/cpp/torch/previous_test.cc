// The memory that a storage keeps after it moved away, and its release.

#include <ATen/ops/arange.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <future>
#include <thread>
#include <utility>
#include <vector>

#include "adapters/torch/copy_on_write.h"
#include "support/on_threads.h"
#include "torch/foreign.h"

namespace tensor_bridge::testing {
namespace {

// Whether there was something to release.
bool releasePrevious(const at::Tensor& tensor) {
  void* owner = nullptr;
  ReleaseFn release = nullptr;
  EXPECT_EQ(Adapter::table().takePrevious(borrow(tensor), &owner, &release), TB_OK);
  if (owner == nullptr) return false;
  release(owner);
  return true;
}

TEST(Previous, IsKeptUntilItIsGivenBack) {
  auto [foreign, tensor] = SharedFloats(kSix, {2, 3});
  tensor.add_(10);
  const void* own = tensor.const_data_ptr();
  EXPECT_EQ(foreign.released(), 0);
  EXPECT_TRUE(releasePrevious(tensor));
  EXPECT_EQ(foreign.released(), 1);
  EXPECT_FALSE(releasePrevious(tensor)) << "nothing is left to release";
  tensor.mul_(2);
  EXPECT_EQ(tensor.const_data_ptr(), own);
  EXPECT_EQ(valuesOf<float>(tensor), (std::vector<float>{22, 24, 26, 28, 30, 32}));
  tensor.resize_({100});
  EXPECT_EQ(tensor[5].item<float>(), 32.0f);
}

TEST(Previous, GoesWithTheStorageOtherwise) {
  auto [foreign, tensor] = SharedFloats(kSix, {6});
  tensor.add_(1);
  EXPECT_EQ(foreign.released(), 0);
}

TEST(Previous, IsReachedThroughEveryView) {
  auto [foreign, tensor] = SharedFloats(kSix, {2, 3});
  const at::Tensor row = tensor.select(0, 1);
  const at::Tensor alias = tensor.detach();
  row.add_(1);
  EXPECT_TRUE(releasePrevious(alias));
  EXPECT_EQ(foreign.released(), 1);
  EXPECT_FALSE(releasePrevious(row));
  EXPECT_EQ(valuesOf<float>(tensor), (std::vector<float>{1, 2, 3, 5, 6, 7}));
}

// Memory that the tensor shows is never released, whoever holds it.
TEST(Previous, IsNotWhatATensorShows) {
  for (const int32_t on_write : {TB_ON_WRITE_COPY, TB_ON_WRITE_RAISE, TB_ON_WRITE_ALIAS}) {
    for (const bool let_go : {false, true}) {
      auto [foreign, tensor] = SharedFloats(kSix, {6}, on_write);
      if (let_go) foreign.letGo();
      EXPECT_FALSE(releasePrevious(tensor));
      EXPECT_EQ(foreign.released(), 0);
      EXPECT_EQ(valuesOf<float>(tensor), kSix);
    }
  }
}

TEST(Previous, IsNotWhatWasTakenOver) {
  auto [foreign, tensor] = SharedFloats(kSix, {6});
  foreign.letGo();
  tensor.add_(1);
  EXPECT_FALSE(releasePrevious(tensor));
  EXPECT_EQ(foreign.released(), 0);
  EXPECT_EQ(tensor[5].item<float>(), 7.0f);
}

TEST(Previous, IsNothingOfTorchsOwn) {
  EXPECT_FALSE(releasePrevious(at::ones({8})));
  EXPECT_FALSE(releasePrevious(at::ones({0})));
}

TEST(Previous, OfATensorWithoutAStorageIsRefused) {
  void* owner = nullptr;
  ReleaseFn release = nullptr;
  EXPECT_EQ(Adapter::table().takePrevious(borrow(at::ones({2, 2}).to_sparse()), &owner, &release),
            TB_UNSUPPORTED_TYPE);
  EXPECT_THAT(Adapter::error(), ::testing::HasSubstr("x.values()"));
}

// Only torch's reference is released: another tensor still shows the same memory.
TEST(Previous, StaysWithItsOtherHolders) {
  auto [foreign, tensor] = SharedFloats(kSix, {6});
  Foreign::kind().retain(&foreign);
  at::Tensor other = shared(&foreign);
  tensor.add_(1);
  EXPECT_TRUE(releasePrevious(tensor));
  EXPECT_EQ(foreign.released(), 0);
  EXPECT_EQ(valuesOf<float>(other), kSix);
  EXPECT_EQ(other.const_data_ptr(), foreign.data());
}

// TensorFlow keeps its own reference to bytes that were shared with it.
TEST(Previous, OfAShareStaysWithTensorFlow) {
  auto [foreign, tensor] = SharedFloats(kSix, {6});
  foreign.letGo();
  tensor.add_(1);  // from now on torch owns the bytes, and `freed` counts how often they are freed
  Kept share(tensor);
  tensor.add_(1);
  EXPECT_TRUE(releasePrevious(tensor));
  EXPECT_EQ(foreign.released(), 0);
  EXPECT_EQ(share.data()[5], 7.0f);
  share.release();
  EXPECT_EQ(foreign.released(), 1) << "the memory has no holder any more";
  EXPECT_EQ(valuesOf<float>(tensor), (std::vector<float>{3, 4, 5, 6, 7, 8}));
}

TEST(Previous, OfAStorageThatIsSharedAgainIsGivenBack) {
  auto [foreign, tensor] = SharedFloats(kSix, {6});
  tensor.add_(1);
  Kept share(tensor);
  EXPECT_EQ(foreign.released(), 0);
  EXPECT_TRUE(releasePrevious(tensor));
  EXPECT_EQ(foreign.released(), 1);
  EXPECT_FALSE(releasePrevious(tensor)) << "the tensor shows the memory that TensorFlow shares";
  EXPECT_EQ(share.data(), tensor.const_data_ptr());
  tensor.add_(1);
  EXPECT_EQ(share.data()[0], 2.0f);
  EXPECT_EQ(tensor[0].item<float>(), 3.0f);
}

// An optimizer that steps a parameter between shares: one buffer after each step.
TEST(Previous, OfEachMoveIsGivenBack) {
  at::Tensor tensor = at::arange(64, at::kFloat);
  const int64_t before = Adapter::owners();
  for (int step = 0; step < 5; ++step) {
    Kept share(tensor);
    tensor.add_(1);
    EXPECT_TRUE(releasePrevious(tensor));
    EXPECT_EQ(share.data()[63], 63.0f + static_cast<float>(step));
  }
  EXPECT_EQ(Adapter::owners(), before);
  EXPECT_EQ(tensor[63].item<float>(), 68.0f);
}

// torch.load and from_numpy make storages without an allocator, on which numpy() leaves no mark. An
// array that was made before the share may show the memory as long as the tensor lives.
TEST(Previous, OfAStorageWithoutAnAllocatorIsKept) {
  std::vector<float> memory(64, 1.0f);
  alignas(64) static float aligned[64];
  std::copy(memory.begin(), memory.end(), aligned);
  std::atomic<int> freed{0};
  {
    at::Tensor tensor = at::from_blob(aligned, {64}, [&freed](void*) { ++freed; });
    ASSERT_EQ(storageOf(tensor)->allocator(), nullptr);
    Kept share(tensor);
    tensor.add_(1);
    ASSERT_NE(tensor.const_data_ptr(), aligned);
    EXPECT_FALSE(releasePrevious(tensor));
    share.release();
    EXPECT_EQ(freed, 0) << "an array may show the memory";
  }
  EXPECT_EQ(freed, 1);
}

// The reader has no reference, so a count of references cannot replace the caller's statement that
// nothing reads the memory.
TEST(Previous, AReaderOfAnotherThreadIsNotCounted) {
  Foreign foreign = Foreign::floats(std::vector<float>(1024, 1.0f), {2, 512});
  at::Tensor tensor = shared(&foreign);
  std::promise<void> reads;
  std::promise<void> moved;
  // Like a kernel, it gets the pointer once, and reads a row that nobody writes to.
  auto sum = std::async(std::launch::async, [&reads, &tensor, written = moved.get_future()] {
    const float* row = static_cast<const float*>(tensor.const_data_ptr());
    reads.set_value();
    written.wait();
    float total = 0;
    for (int i = 0; i < 512; ++i) total += row[i];
    return total;
  });
  reads.get_future().wait();
  tensor.unsafeGetTensorImpl()->mutable_data();  // a write that makes no further tensor
  foreign.letGo();
  EXPECT_EQ(tensor.use_count(), 1u);
  EXPECT_EQ(tensor.storage().use_count(), 1u);
  EXPECT_EQ(foreign.released(), 0) << "the other thread still reads it";
  moved.set_value();
  EXPECT_EQ(sum.get(), 512.0f);
  EXPECT_TRUE(releasePrevious(tensor)) << "no thread reads it any more";
  EXPECT_EQ(foreign.released(), 1);
}

// Adds through the new pointer only, because the former memory may not be read any more.
void addOne(const at::Tensor& tensor) {
  auto* data = static_cast<float*>(tensor.mutable_data_ptr());
  for (int64_t i = 0; i < tensor.numel(); ++i) data[i] += 1;
}

// In any order of the threads, memory is taken once, and never the memory that the tensor shows.
TEST(Previous, IsTakenOnceBesideWritesAndShares) {
  for (int round = 0; round < 300; ++round) {
    Foreign foreign = Foreign::floats(std::vector<float>(64, 1.0f), {64});
    const at::Tensor tensor = shared(&foreign);
    std::atomic<int> taken{0};
    const auto take = [&] { taken += releasePrevious(tensor) ? 1 : 0; };
    atOnce({[&] { addOne(tensor); }, take, take});
    take();
    ASSERT_EQ(taken, 1);
    ASSERT_EQ(foreign.released(), 1);
    ASSERT_EQ(tensor[63].item<float>(), 2.0f);
    Kept share(tensor);
    atOnce({[&] { addOne(tensor); }, take, take});
    take();
    ASSERT_EQ(taken, 2);
    ASSERT_EQ(share.data()[63], 2.0f);
    ASSERT_EQ(tensor[63].item<float>(), 3.0f);
  }
}

}  // namespace
}  // namespace tensor_bridge::testing
