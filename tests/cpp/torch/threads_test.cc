// Several threads on one shared tensor. Compiled with OpenMP, as at::parallel_for needs.

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <vector>

#include "support/on_threads.h"
#include "torch/foreign.h"

namespace tensor_bridge::testing {
namespace {

constexpr int kRounds = 300;

TEST(Threads, FirstWriteByTwoAtOnceMovesOnce) {
  for (int round = 0; round < kRounds; ++round) {
    Foreign foreign = Foreign::floats({1, 2, 3, 4}, {2, 2});
    at::Tensor tensor = shared(&foreign);
    const void* seen[2] = {};
    const at::Tensor rows[] = {tensor.select(0, 0), tensor.select(0, 1)};
    onThreads(2, [&](int i) {
      rows[i].add_(10 * (i + 1));
      seen[i] = tensor.const_data_ptr();
    });
    ASSERT_EQ(seen[0], seen[1]);
    ASSERT_EQ(valuesOf<float>(tensor), (std::vector<float>{11, 12, 23, 24}));
    ASSERT_TRUE(foreign.unchanged());
  }
}

TEST(Threads, FirstWriteToManyTensorsAtOnce) {
  // More storages than there are locks.
  constexpr int kTensors = 200;
  std::vector<std::unique_ptr<Foreign>> foreign;
  std::vector<at::Tensor> tensors;
  for (int i = 0; i < kTensors; ++i) {
    foreign.emplace_back(new Foreign(std::vector<float>{1, 2}, {2}, Dtype::kFloat32, 4));
    tensors.push_back(shared(foreign.back().get()));
  }
  onThreads(4, [&](int t) {
    for (int i = 0; i < kTensors; ++i)
      tensors[static_cast<size_t>((i + t * 50) % kTensors)].mutable_data_ptr();
  });
  for (int i = 0; i < kTensors; ++i) {
    const auto index = static_cast<size_t>(i);
    EXPECT_NE(tensors[index].const_data_ptr(), foreign[index]->data());
    EXPECT_TRUE(foreign[index]->unchanged());
    tensors[index].reset();
    EXPECT_EQ(foreign[index]->released(), 1);
  }
}

TEST(Threads, RaiseByTwoAtOnceRaisesInBoth) {
  for (int round = 0; round < kRounds; ++round) {
    Foreign foreign = Foreign::floats({1, 2}, {2});
    at::Tensor tensor = shared(&foreign, TB_ON_WRITE_RAISE);
    std::atomic<int> raised{0};
    onThreads(2, [&](int) {
      try {
        tensor.add_(1);
      } catch (const c10::BufferError&) {
        raised.fetch_add(1);
      }
    });
    ASSERT_EQ(raised.load(), 2);
    ASSERT_TRUE(foreign.unchanged());
  }
}

TEST(Threads, ReaderBesideTheFirstWriterReadsLiveMemory) {
  constexpr int64_t kSize = 20000;
  for (int round = 0; round < 60; ++round) {
    Foreign foreign = Foreign::floats(std::vector<float>(kSize, 1.0f), {kSize});
    at::Tensor tensor = shared(&foreign);
    const auto read = [&] {
      for (int i = 0; i < 20; ++i) {
        const float sum = tensor.sum().item<float>();
        // The values before, during or after the write, but never other memory.
        EXPECT_GE(sum, 1.0f * kSize);
        EXPECT_LE(sum, 2.0f * kSize);
      }
    };
    atOnce({read, [&] { tensor.add_(1); }});
    EXPECT_TRUE(foreign.unchanged());
  }
}

TEST(Threads, LastReferenceMayGoWhileAnotherThreadWrites) {
  for (int round = 0; round < kRounds; ++round) {
    Foreign foreign = Foreign::floats({1, 2, 3, 4}, {4});
    at::Tensor tensor = shared(&foreign);
    at::Tensor view = tensor.narrow(0, 1, 2);
    const auto write = [&] {
      view.add_(1);
      view.reset();
    };
    atOnce({write, [&] { tensor.reset(); }});
    ASSERT_EQ(foreign.released(), 1);
  }
}

TEST(Threads, DataPtrInsideParallelForMovesOnce) {
  at::set_num_threads(4);
  constexpr int64_t kSize = 4096;
  for (int round = 0; round < 50; ++round) {
    Foreign foreign = Foreign::floats(std::vector<float>(kSize, 1.0f), {kSize});
    at::Tensor tensor = shared(&foreign);
    std::atomic<int> chunks{0};
    at::parallel_for(0, kSize, 1, [&](int64_t begin, int64_t end) {
      chunks.fetch_add(1);
      float* data = tensor.data_ptr<float>();
      for (int64_t i = begin; i < end; ++i) data[i] += static_cast<float>(i);
    });
    EXPECT_GT(chunks.load(), 1) << "it ran in parallel";
    const float* data = tensor.const_data_ptr<float>();
    for (int64_t i = 0; i < kSize; ++i) ASSERT_EQ(data[i], 1.0f + static_cast<float>(i));
    EXPECT_TRUE(foreign.unchanged());
  }
}

}  // namespace
}  // namespace tensor_bridge::testing
