// Storages that share_to_tf_test.cc does not have: shrunk, resized, used by several threads, with
// deleters that call the adapter again.

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <future>
#include <limits>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "adapters/torch/copy_on_write.h"
#include "support/on_threads.h"
#include "torch/foreign.h"

namespace tensor_bridge::testing {
namespace {

using ::testing::HasSubstr;

Obstacle obstacleOf(const at::Tensor& tensor) { return factsOf(tensor).obstacle; }

at::Tensor six() { return at::arange(1, 7, at::kFloat).view({2, 3}); }

// --- describe -----------------------------------------------------------------------------------

TEST(DescribeStorage, LayoutsThatAreNotRowMajor) {
  const at::Tensor tensor = six();
  EXPECT_EQ(obstacleOf(tensor.t()), Obstacle::kStrided);
  EXPECT_EQ(obstacleOf(tensor.slice(1, 0, 2)), Obstacle::kStrided);
  EXPECT_EQ(obstacleOf(at::ones({1}).expand({5})), Obstacle::kStrided);
  EXPECT_EQ(obstacleOf(tensor.slice(0, 1, 2)), Obstacle::kMisaligned);
  // Dimensions of size 1 may have any stride.
  EXPECT_EQ(obstacleOf(tensor.as_strided({1, 6}, {77, 1})), Obstacle::kNone);
}

TEST(DescribeStorage, EveryOffsetButMultiplesOf64IsMisaligned) {
  const at::Tensor bytes = at::zeros({256}, at::kByte);
  for (int64_t offset = 0; offset < 130; ++offset) {
    EXPECT_EQ(obstacleOf(bytes.slice(0, offset)),
              offset % 64 == 0 ? Obstacle::kNone : Obstacle::kMisaligned)
        << offset;
  }
}

TEST(DescribeStorage, StorageThatWasMadeSmaller) {
  const at::Tensor tensor = six();
  const at::Tensor first_row = tensor.slice(0, 0, 1);
  const at::Tensor empty = tensor.slice(0, 0, 0);
  const at::Tensor transposed = tensor.t();
  storageOf(tensor)->set_nbytes(12);
  EXPECT_EQ(obstacleOf(tensor), Obstacle::kNoMemory);
  EXPECT_EQ(obstacleOf(transposed), Obstacle::kNoMemory);
  EXPECT_EQ(obstacleOf(first_row), Obstacle::kNone);
  EXPECT_EQ(factsOf(empty).nbytes, 0);
  EXPECT_NE(obstacleOf(empty), Obstacle::kNoMemory);
}

TEST(DescribeStorage, MoreBytesThanCanBeCounted) {
  const at::Tensor tensor = at::ones({1}).expand({int64_t{1} << 62});
  const TorchFacts facts = factsOf(tensor);
  EXPECT_EQ(facts.obstacle, Obstacle::kStrided);
  EXPECT_EQ(facts.nbytes, std::numeric_limits<int64_t>::max());
}

// --- share --------------------------------------------------------------------------------------

TEST(ShareStorage, DataIsThatOfTheViewNotOfTheStorage) {
  const at::Tensor tensor = at::arange(1024, at::kFloat);
  const at::Tensor view = tensor.slice(0, 512);
  const Kept share(view);
  EXPECT_EQ(share.data(), view.const_data_ptr());
}

TEST(ShareStorage, ViewsMoveTogether) {
  const at::Tensor tensor = six();
  const at::Tensor view = tensor.select(0, 1);
  Kept share(tensor);
  const at::Tensor later = tensor.t();
  view.zero_();
  EXPECT_EQ(static_cast<const float*>(tensor.const_data_ptr()) + 3, view.const_data_ptr());
  EXPECT_EQ(tensor.const_data_ptr(), later.const_data_ptr());
  EXPECT_TRUE(share.unchanged());
}

TEST(ShareStorage, OneReferenceOfSeveralIsEnoughToMove) {
  const at::Tensor tensor = six();
  Kept first(tensor);
  Kept second(tensor);
  tensor.add_(1);
  Kept third(tensor);
  first.release();
  tensor.add_(1);
  EXPECT_TRUE(second.unchanged());
  EXPECT_TRUE(third.unchanged());
  EXPECT_NE(second.data(), third.data());
}

TEST(ShareStorage, ResizedStorageIsLeftAlone) {
  const at::Tensor tensor = six();
  Kept share(tensor);
  tensor.resize_({100});
  const void* address = tensor.const_data_ptr();
  EXPECT_EQ(obstacleOf(tensor), Obstacle::kHooked);
  tensor.zero_();
  EXPECT_EQ(tensor.const_data_ptr(), address);
  EXPECT_EQ(obstacleOf(tensor), Obstacle::kNone);
  EXPECT_TRUE(share.unchanged());
}

TEST(ShareStorage, MemoryThatNobodyOwnsIsCopied) {
  alignas(64) std::array<float, 16> floats{};
  EXPECT_EQ(obstacleOf(at::from_blob(floats.data(), {16})), Obstacle::kAliased);
  EXPECT_EQ(obstacleOf(at::from_blob(floats.data(), {16}, [](void*) {})), Obstacle::kNone);
}

TEST(ShareStorage, MemoryWithAnArrayIsCopied) {
  const at::Tensor tensor = six();
  storageOf(tensor)->set_resizable(false);  // like Tensor.numpy()
  EXPECT_EQ(obstacleOf(tensor), Obstacle::kArray);
}

// These storages were never resizable, so that says nothing about an array over them.
TEST(ShareStorage, MemoryFromElsewhereIsSharedUntilAWriteLeavesItBehind) {
  alignas(64) std::array<float, 16> floats{};
  const at::Tensor blob = at::for_blob(floats.data(), {16})
                              .deleter([](void*) {})
                              .options(at::kFloat)
                              .allocator(c10::GetAllocator(c10::kCPU))
                              .make_tensor();
  // Like a storage from torch.load.
  at::Tensor loaded = at::empty({0});
  loaded.set_(c10::Storage(c10::make_intrusive<c10::StorageImpl>(
                  c10::StorageImpl::use_byte_size_t(), 64,
                  c10::GetAllocator(c10::kCPU)->allocate(64), nullptr, /*resizable=*/false)),
              0, {16});
  for (const at::Tensor& tensor : {blob, loaded}) {
    ASSERT_FALSE(storageOf(tensor)->resizable());
    EXPECT_EQ(obstacleOf(tensor), Obstacle::kNone);
    const Kept share(tensor);
    tensor.zero_();
    EXPECT_EQ(obstacleOf(tensor), Obstacle::kArray);
    EXPECT_FALSE(Kept::attempted(tensor).taken());
  }
}

TEST(ShareStorage, WrittenForeignMemoryIsSharedAndKeptForItsReaders) {
  auto [foreign, tensor] = SharedFloats(std::vector<float>(16, 1.0f), {16});
  tensor.add_(1);
  Kept first(tensor);
  EXPECT_EQ(foreign.released(), 0) << "a kernel may still read the previous generation";
  tensor.add_(1);
  EXPECT_EQ(foreign.released(), 1) << "one generation only";
  EXPECT_TRUE(first.unchanged());
  tensor.reset();
}

// Another thread writes between describe() and share(): share() must not pair the old address with
// a reference to the new bytes.
TEST(ShareStorage, ReferenceAndAddressBelongTogether) {
  const at::Tensor tensor = six();
  Kept first(tensor);
  const TorchFacts facts = factsOf(tensor);
  tensor.add_(1);
  Kept second(tensor);
  EXPECT_EQ(facts.data, first.data());
  EXPECT_EQ(second.data(), tensor.const_data_ptr());
}

// --- deleters that call the adapter again -------------------------------------------------------

// A tensor over memory whose deleter runs a function.
at::Tensor withDeleter(std::function<void()> function) {
  void* memory = std::aligned_alloc(64, 64);
  std::memset(memory, 0, 64);
  return at::for_blob(memory, {16})
      .deleter([function = std::move(function)](void* data) {
        function();
        std::free(data);
      })
      .options(at::TensorOptions().dtype(at::kFloat))
      .allocator(c10::GetAllocator(c10::kCPU))
      .resizeable_storage()  // only resizable storages are shared a second time
      .make_tensor();
}

// Runs `function`, and fails if it hangs.
void inTime(const std::function<void()>& function) {
  std::promise<void> done;
  std::thread thread([&] {
    function();
    done.set_value();
  });
  if (done.get_future().wait_for(std::chrono::seconds(60)) != std::future_status::ready) {
    std::fprintf(stderr, "a deleter that writes to a shared tensor hangs\n");
    std::abort();
  }
  thread.join();
}

// The deleter of memory that a write releases may do anything: it may write, or take the GIL, which
// may be held by a thread that waits for a write to another storage. So it must not run under a
// lock. There are many storages here, so that one of them shares a lock with the written storage.
void writeToMany(std::vector<at::Tensor>* tensors) {
  for (at::Tensor& tensor : *tensors) tensor.mutable_data_ptr();
}

class ManyShared {
 public:
  ManyShared() {
    for (int i = 0; i < 2000; ++i) {
      tensors_.push_back(at::zeros({16}));
      shares_.emplace_back(tensors_.back());
    }
  }
  void write() { writeToMany(&tensors_); }

 private:
  std::vector<at::Tensor> tensors_;
  std::vector<Kept> shares_;
};

// A write releases the previous generation, or, if nobody holds the bytes of either, the owner from
// which the storage took its own bytes back.
TEST(Deleter, MayWriteToSharedTensors) {
  for (const bool takes_back : {false, true}) {
    ManyShared many;
    int ended = 0;
    at::Tensor tensor = withDeleter([&] {
      ++ended;
      many.write();
    });
    inTime([&] {
      Kept first(tensor);
      tensor.add_(1);
      Kept second(tensor);
      first.release();
      EXPECT_EQ(ended, 0);
      if (takes_back) second.release();
      tensor.add_(1);
      EXPECT_EQ(ended, 1);
      EXPECT_TRUE(takes_back || second.unchanged());
    });
  }
}

// --- threads ------------------------------------------------------------------------------------

TEST(ShareStorageThreads, WriteAgainstRelease) {
  for (int round = 0; round < 300; ++round) {
    const at::Tensor tensor = six();
    Kept first(tensor);
    Kept second(tensor);
    onThreads(3, [&](int i) {
      if (i == 0) {
        tensor.add_(1);
      } else {
        (i == 1 ? first : second).release();
      }
    });
    ASSERT_EQ(valuesOf<float>(tensor), (std::vector<float>{2, 3, 4, 5, 6, 7}));
  }
}

// Sharing during a write gives the values before or after it, in memory that stays alive.
TEST(ShareStorageThreads, ShareAgainstWrite) {
  for (int round = 0; round < 300; ++round) {
    const at::Tensor tensor = at::zeros({1024});
    Kept kept(tensor);
    std::vector<Kept> shares;
    onThreads(2, [&](int i) {
      for (int k = 0; k < 5; ++k) {
        if (i == 0) {
          tensor.mutable_data_ptr();
        } else if (obstacleOf(tensor) == Obstacle::kNone) {
          shares.push_back(Kept::attempted(tensor));
        }
      }
    });
    for (const Kept& share : shares) ASSERT_TRUE(!share.taken() || share.unchanged());
    ASSERT_TRUE(kept.unchanged());
  }
}

// The first write moves a tensor over TensorFlow's memory while to_tf describes it.
TEST(ShareStorageThreads, DescribeAgainstTheFirstWrite) {
  for (int round = 0; round < 300; ++round) {
    Foreign foreign = Foreign::floats(std::vector<float>(16, 1.0f), {16});
    const at::Tensor tensor = shared(&foreign);
    onThreads(2, [&](int i) {
      if (i == 0) {
        tensor.add_(1);
        return;
      }
      for (int k = 0; k < 20; ++k) {
        const TorchFacts facts = factsOf(tensor);
        ASSERT_TRUE(facts.foreign_release == nullptr || facts.foreign_release == Foreign::release);
      }
    });
  }
}

// --- copies -------------------------------------------------------------------------------------

TEST(CopyOutBits, KeepsBitsThatArithmeticLoses) {
  const std::array<uint32_t, 4> bits = {0x7fc12345, 0x7f812345, 0x80000000, 1};
  at::Tensor tensor = at::empty({4, 2});
  for (int64_t i = 0; i < 4; ++i) {
    std::memcpy(static_cast<float*>(tensor.mutable_data_ptr()) + 2 * i,
                &bits[static_cast<size_t>(i)], 4);
  }
  std::array<uint32_t, 4> out{};
  ASSERT_EQ(Adapter::table().copyOut(borrow(tensor.select(1, 0)), out.data()), TB_OK);
  EXPECT_EQ(out, bits);
}

}  // namespace
}  // namespace tensor_bridge::testing
