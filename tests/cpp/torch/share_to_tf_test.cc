// Keeping torch's bytes alive for others, and the description of a torch tensor before that.

#include <ATen/ops/_efficientzerotensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/imag.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/quantize_per_tensor.h>
#include <c10/core/impl/COW.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "adapters/torch/copy_on_write.h"
#include "support/on_threads.h"
#include "torch/foreign.h"

namespace tensor_bridge::testing {
namespace {

class ShareToTf : public ::testing::Test {
 protected:
  void SetUp() override { before_ = Adapter::owners(); }
  void TearDown() override { EXPECT_EQ(Adapter::owners(), before_) << "bytes were not released"; }
  int64_t added() const { return Adapter::owners() - before_; }

 private:
  int64_t before_ = 0;
};

const std::vector<float> kSix = {0, 1, 2, 3, 4, 5};
at::Tensor six() { return at::arange(6, at::kFloat); }

TEST_F(ShareToTf, NextWriteMovesTorchAndKeepsTheBytes) {
  at::Tensor tensor = six();
  const void* address = tensor.const_data_ptr();
  Kept kept(tensor);
  EXPECT_EQ(kept.data(), address);
  EXPECT_EQ(added(), 1);
  EXPECT_EQ(tensor.const_data_ptr(), address) << "sharing does not move the tensor";
  const at::Tensor view = tensor.narrow(0, 2, 2);
  view.add_(100);
  EXPECT_NE(tensor.const_data_ptr(), address);
  EXPECT_EQ(kept.values(), kSix);
  EXPECT_EQ(valuesOf<float>(tensor), (std::vector<float>{0, 1, 102, 103, 4, 5}));
  EXPECT_EQ(view.const_data_ptr<float>(), tensor.const_data_ptr<float>() + 2);
  const void* moved = tensor.const_data_ptr();
  tensor.add_(1);
  EXPECT_EQ(tensor.const_data_ptr(), moved) << "the tensor moves once";
  EXPECT_EQ(kept.values(), kSix);
}

TEST_F(ShareToTf, BytesThatNobodyHoldsAnyMoreAreTakenBack) {
  at::Tensor tensor = six();
  const void* address = tensor.const_data_ptr();
  for (int i = 0; i < 3; ++i) {
    Kept kept(tensor);
    kept.release();
    tensor.add_(1);
    EXPECT_EQ(tensor.const_data_ptr(), address) << "nothing was copied";
  }
  EXPECT_EQ(tensor.sum().item<float>(), 33.0f);
}

TEST_F(ShareToTf, EachShareKeepsTheValuesOfItsTime) {
  at::Tensor tensor = six();
  Kept first(tensor);
  Kept again(tensor);
  EXPECT_EQ(first.data(), again.data());
  EXPECT_EQ(added(), 2);
  tensor.add_(1);
  Kept second(tensor);
  EXPECT_NE(second.data(), first.data());
  tensor.add_(1);
  EXPECT_EQ(first.values(), kSix);
  EXPECT_EQ(second.values(), (std::vector<float>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(tensor[0].item<float>(), 2.0f);
  first.release();
  EXPECT_EQ(again.values(), kSix);
}

TEST_F(ShareToTf, BytesOutliveTheTensorAndDieOnAnyThread) {
  at::Tensor tensor = six();
  Kept kept(tensor);
  tensor.reset();
  EXPECT_EQ(kept.values(), kSix);
  std::thread([&] { kept.release(); }).join();
}

TEST_F(ShareToTf, ForeignMemoryThatWasMovedIsTorchsOwn) {
  auto [foreign, tensor] = SharedFloats(kSix, {6});
  tensor.add_(1);
  Kept kept(tensor);
  EXPECT_EQ(kept.data(), tensor.const_data_ptr());
  EXPECT_TRUE(foreign.unchanged());
  // One generation of bytes is kept: the second move releases the bytes of the first.
  tensor.add_(1);
  EXPECT_EQ(kept.values(), (std::vector<float>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(foreign.released(), 1);
}

TEST_F(ShareToTf, ResizingMovesTorchOnly) {
  at::Tensor tensor = six();
  Kept kept(tensor);
  tensor.resize_({1000});
  tensor.fill_(7);
  EXPECT_EQ(kept.values(), kSix);
}

TEST_F(ShareToTf, FirstWriteByTwoThreadsMovesOnce) {
  for (int round = 0; round < 100; ++round) {
    const at::Tensor tensor = at::ones({2});
    Kept kept(tensor);
    onThreads(2, [&](int i) { tensor.select(0, i).add_(i + 1); });
    ASSERT_EQ(valuesOf<float>(tensor), (std::vector<float>{2, 3}));
    ASSERT_EQ(kept.values(), (std::vector<float>{1, 1}));
  }
}

TEST_F(ShareToTf, ReleaseBesideAWriteIsSafe) {
  for (int round = 0; round < 200; ++round) {
    const at::Tensor tensor = at::ones({64});
    Kept kept(tensor);
    atOnce({[&] { kept.release(); }, [&] { tensor.add_(1); }});
    ASSERT_EQ(tensor.sum().item<float>(), 128.0f);
  }
}

TEST_F(ShareToTf, BytesAreLeakedRatherThanFreedWhileTheProcessLeaves) {
  void* owner = nullptr;
  ReleaseFn release = nullptr;
  void* data = nullptr;
  {
    const at::Tensor tensor = six();
    ASSERT_EQ(Adapter::table().share(borrow(tensor), &owner, &release, &data), TB_OK);
  }
  Adapter::exiting() = true;
  release(owner);
  Adapter::exiting() = false;
  EXPECT_EQ(added(), 1) << "nothing was released";
  release(owner);
}

// --- facts --------------------------------------------------------------------------------------

TEST(Describe, AnOrdinaryTensorHasNoObstacle) {
  const at::Tensor tensor = at::ones({2, 3}).requires_grad_();
  const TorchFacts facts = factsOf(tensor);
  EXPECT_EQ(facts.obstacle, Obstacle::kNone);
  EXPECT_EQ(facts.dtype, Dtype::kFloat32);
  EXPECT_TRUE(facts.requires_grad);
  EXPECT_EQ(facts.device.device_type, kDLCPU);
  EXPECT_EQ(facts.ndim, 2);
  EXPECT_EQ(facts.shape[1], 3);
  EXPECT_EQ(facts.data, tensor.const_data_ptr());
  EXPECT_EQ(facts.nbytes, 24);
  EXPECT_EQ(facts.foreign_release, nullptr);
}

TEST(Describe, ChangesNothing) {
  auto [foreign, tensor] = SharedFloats(kSix, {6});
  for (int i = 0; i < 3; ++i) {
    const TorchFacts facts = factsOf(tensor);
    EXPECT_EQ(facts.foreign_release, Foreign::release);
  }
  EXPECT_EQ(tensor.const_data_ptr(), foreign.data());
  tensor.add_(1);
  EXPECT_EQ(factsOf(tensor).foreign_release, nullptr) << "the tensor has moved";
}

TEST(Describe, NamesEachObstacle) {
  const auto options = [](at::ScalarType type) { return at::TensorOptions().dtype(type); };
  const at::Tensor complex = at::ones({4}, options(at::kComplexFloat));
  const at::Tensor lazy = at::ones({6});
  const auto clone = c10::impl::cow::lazy_clone_storage(*storageOf(lazy));
  ASSERT_TRUE(clone.get() != nullptr);
  const struct {
    const char* name;
    at::Tensor tensor;
    Obstacle obstacle;
  } cases[] = {
      {"sparse", at::ones({2, 2}).to_sparse(), Obstacle::kNotDense},
      {"meta", at::empty({2}, at::TensorOptions().device(at::kMeta)), Obstacle::kMeta},
      {"quantized", at::quantize_per_tensor(at::ones({2}), 1, 0, at::kQInt8), Obstacle::kQuantized},
      {"bits", at::empty({2}, options(at::ScalarType::Bits8)), Obstacle::kUnknownDtype},
      {"conjugate", complex.conj(), Obstacle::kConjugate},
      {"negative", at::imag(complex.conj()), Obstacle::kNegative},
      {"zero", at::_efficientzerotensor({2}, at::kFloat), Obstacle::kZero},
      {"transposed", at::ones({2, 3}).t(), Obstacle::kStrided},
      {"expanded", at::ones({1}).expand({4}), Obstacle::kStrided},
      {"misaligned", at::ones({8}).narrow(0, 1, 4), Obstacle::kMisaligned},
      {"lazy clone", lazy, Obstacle::kLazyClone},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(static_cast<int>(factsOf(c.tensor).obstacle), static_cast<int>(c.obstacle)) << c.name;
  }
}

TEST(Describe, AnotherMaterializerIsAnObstacle) {
  const at::Tensor tensor = at::ones({16});
  storageOf(tensor)->set_materializer([](c10::StorageImpl*) {});
  EXPECT_EQ(factsOf(tensor).obstacle, Obstacle::kHooked);
}

// --- copies -------------------------------------------------------------------------------------

TEST(CopyOut, WritesRowMajorAndResolvesWhatIsLazy) {
  const at::Tensor transposed = six().view({2, 3}).t();
  std::vector<float> out(6);
  ASSERT_EQ(Adapter::table().copyOut(borrow(transposed), out.data()), TB_OK);
  EXPECT_EQ(out, (std::vector<float>{0, 3, 1, 4, 2, 5}));

  const at::Tensor complex = at::ones({1}, at::TensorOptions().dtype(at::kComplexFloat));
  at::imag(complex).fill_(2);
  std::vector<float> pair(2);
  ASSERT_EQ(Adapter::table().copyOut(borrow(complex.conj()), pair.data()), TB_OK);
  EXPECT_EQ(pair, (std::vector<float>{1, -2}));
}

TEST(CopyOut, OfForeignMemoryMovesNothing) {
  auto [foreign, tensor] = SharedFloats(kSix, {6});
  std::vector<float> out(6);
  ASSERT_EQ(Adapter::table().copyOut(borrow(tensor), out.data()), TB_OK);
  EXPECT_EQ(out, kSix);
  EXPECT_EQ(tensor.const_data_ptr(), foreign.data());
}

TEST(CastOut, WidensWithoutLoss) {
  const at::Tensor tensor = at::ones({2}, at::TensorOptions().dtype(at::kHalf)).mul(1.5);
  std::vector<double> doubles(2);
  ASSERT_EQ(Adapter::table().castOut(borrow(tensor), true, doubles.data()), TB_OK);
  EXPECT_EQ(doubles, (std::vector<double>{1.5, 1.5}));
  std::vector<int64_t> integers(6);
  ASSERT_EQ(Adapter::table().castOut(borrow(six().to(at::kChar)), false, integers.data()), TB_OK);
  EXPECT_EQ(integers, (std::vector<int64_t>{0, 1, 2, 3, 4, 5}));
}

}  // namespace
}  // namespace tensor_bridge::testing
