// Many threads use the bridge at once. The tests also run under ThreadSanitizer, with the libraries
// and these tests instrumented, but not torch and TensorFlow. So:
// - While a first write may happen, threads use a tensor only through torch's operators:
//   StorageImpl (c10/core/StorageImpl.h) reads its hook and its pointer without synchronisation,
//   and if that is inlined here, the sanitizer reports it as our race.
// - Buffers whose last reference may be released on any thread are CountedBuffers: TensorFlow
// counts
//   references atomically, but the sanitizer does not see that and reports its free() as a race.

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "dlpack/dlpack.h"
#include "support/on_threads.h"
#include "support/owner_scope.h"
#include "support/tf_tensor.h"
#include "tensor_bridge/tensor_bridge.h"

namespace tensor_bridge::testing {
namespace {

constexpr int kThreads = 8;
#ifdef __SANITIZE_THREAD__
constexpr int kRounds = 100;
#else
constexpr int kRounds = 1000;
#endif

std::vector<float> valuesOf(const at::Tensor& tensor) {
  const float* data = tensor.const_data_ptr<float>();
  return std::vector<float>(data, data + tensor.numel());
}

// --- first use, in a separate process -----------------------------------------------------------

TEST(AloneFirstUse, ByManyThreadsAtOnce) {
  OwnerScope owners(tb_live_owners);
  const TfTensor source = TfTensor::floats({1, 2, 3});
  std::atomic<int> converted{0};
  onThreads(kThreads, [&](int) {
    // This finds TensorFlow, loads the adapter, and makes the thread's counter, status and message.
    const at::Tensor tensor = tfTensorToPyTorchTensor(source.get());
    EXPECT_EQ(tensor.const_data_ptr(), source.data());
    converted.fetch_add(1);
  });
  EXPECT_EQ(converted, kThreads);
}

TEST(AloneFirstErrors, ByManyThreadsAtOnce) {
  onThreads(kThreads, [&](int) {
    EXPECT_STREQ(tb_last_error(), "");
    EXPECT_EQ(tb_use_torch(2, 99), TB_FRAMEWORK);
    tb_tensor* out = nullptr;
    EXPECT_EQ(tb_tensor_from_tf(nullptr, &out), TB_INVALID_HANDLE);
    EXPECT_NE(std::string(tb_last_error()), "");
  });
}

// --- conversions --------------------------------------------------------------------------------

TEST(Concurrent, ConversionsOfOneTensor) {
  OwnerScope owners(tb_live_owners);
  CountedBuffer buffer(std::vector<float>{1, 2, 3, 4});
  TfTensor source(TF_FLOAT, {4}, &buffer);
  onThreads(kThreads, [&](int) {
    for (int i = 0; i < kRounds; ++i) {
      const at::Tensor tensor = tfTensorToPyTorchTensor(source.get());
      ASSERT_EQ(tensor.const_data_ptr(), buffer.data());
      ASSERT_EQ(valuesOf(tensor)[3], 4.0f);
    }
  });
  EXPECT_EQ(owners.added(), 0);
}

TEST(Concurrent, ConversionsOfTensorsOfTheirOwn) {
  OwnerScope owners(tb_live_owners);
  onThreads(kThreads, [&](int index) {
    ConvertOptions copy;
    copy.copy = true;
    for (int i = 0; i < kRounds; ++i) {
      const auto value = static_cast<float>(index * kRounds + i);
      OwnedTfTensor source(TfTensor::floats({value, 1}).release(), TF_DeleteTensor);
      const bool copies = i % 3 == 0;
      at::Tensor tensor = copies ? tfTensorToPyTorchTensor(std::move(source), copy)
                                 : tfTensorToPyTorchTensor(std::move(source));
      if (i % 5 == 0) tensor.add_(1);
      ASSERT_EQ(valuesOf(tensor)[0], value + (i % 5 == 0 ? 1 : 0));
    }
  });
}

TEST(Concurrent, CallersTensorMayGoWhileOthersHoldIt) {
  OwnerScope owners(tb_live_owners);
  for (int round = 0; round < kRounds / 10; ++round) {
    CountedBuffer buffer(std::vector<float>{1, 2});
    std::vector<at::Tensor> tensors(kThreads);
    TfTensor source(TF_FLOAT, {2}, &buffer);
    for (at::Tensor& tensor : tensors) tensor = tfTensorToPyTorchTensor(source.get());
    onThreads(kThreads + 1, [&](int index) {
      if (index == kThreads) {
        source.reset();
      } else {
        at::Tensor& tensor = tensors[static_cast<size_t>(index)];
        EXPECT_EQ(valuesOf(tensor)[1], 2.0f);
        tensor.reset();
      }
    });
  }
}

TEST(Concurrent, ErrorsKeepTheirThreadsMessage) {
  OwnerScope owners(tb_live_owners);
  const TfTensor packed(TF_INT4, {1}, std::vector<uint8_t>{1});
  onThreads(kThreads, [&](int index) {
    tb_convert_options options;
    for (int i = 0; i < kRounds; ++i) {
      tb_convert_options_init(&options);
      options.copy = 100 + index;
      tb_torch_tensor* out = nullptr;
      ASSERT_EQ(tb_tf_to_torch(packed.get(), &options, &out), TB_INVALID_OPTION);
      ASSERT_NE(std::string(tb_last_error()).find(std::to_string(100 + index)), std::string::npos);
      options.copy = TB_COPY_NEVER;
      ASSERT_EQ(tb_tf_to_torch_consume(packed.get(), &options, &out), TB_COPY_REQUIRED);
    }
  });
}

// --- releases across threads --------------------------------------------------------------------

template <typename T>
class Queue {
 public:
  void push(T value) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      values_.push_back(std::move(value));
    }
    ready_.notify_one();
  }
  T pop() {
    std::unique_lock<std::mutex> lock(mutex_);
    ready_.wait(lock, [this] { return !values_.empty(); });
    T value = std::move(values_.front());
    values_.pop_front();
    return value;
  }

 private:
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<T> values_;
};

TEST(Concurrent, TorchTensorsAreReleasedOnOtherThreads) {
  OwnerScope owners(tb_live_owners);
  std::vector<std::unique_ptr<CountedBuffer>> buffers;
  for (int i = 0; i < kThreads / 2 * kRounds; ++i) {
    buffers.emplace_back(new CountedBuffer(std::vector<float>{static_cast<float>(i)}));
  }
  Queue<at::Tensor> queue;
  onThreads(kThreads, [&](int index) {
    for (int i = 0; i < kRounds; ++i) {
      if (index % 2 == 0) {
        CountedBuffer& buffer = *buffers[static_cast<size_t>(index / 2 * kRounds + i)];
        const TfTensor source(TF_FLOAT, {1}, &buffer);
        queue.push(tfTensorToPyTorchTensor(source.get()));
      } else {
        at::Tensor tensor = queue.pop();
        if (i % 4 == 0) tensor.zero_();
      }
    }
  });
  EXPECT_EQ(owners.added(), 0);
  for (size_t i = 0; i < buffers.size(); ++i) {
    ASSERT_EQ(buffers[i]->freed(), 1);
    ASSERT_EQ(buffers[i]->as<float>()[0], static_cast<float>(i));
  }
}

TEST(Concurrent, DlpackStructuresAreDeletedOnOtherThreads) {
  OwnerScope owners(tb_live_owners);
  CountedBuffer buffer(std::vector<float>{1, 2});
  const TfTensor source(TF_FLOAT, {2}, &buffer);
  Queue<DLManagedTensorVersioned*> queue;
  onThreads(kThreads, [&](int index) {
    const ManagedTensor view = ManagedTensor::fromTf(source.get());
    for (int i = 0; i < kRounds; ++i) {
      if (index % 2 == 0) {
        queue.push(view.toDlpack());
      } else {
        DLManagedTensorVersioned* managed = queue.pop();
        ASSERT_EQ(managed->dl_tensor.data, buffer.data());
        managed->deleter(managed);
      }
    }
  });
}

TEST(Concurrent, OwnersAreCountedWhileOthersConvert) {
  OwnerScope owners(tb_live_owners);
  const TfTensor source = TfTensor::floats({1});
  std::atomic<bool> done{false};
  std::thread counter([&] {
    while (!done.load()) EXPECT_LE(tb_live_owners(), 1000000);
  });
  onThreads(4, [&](int) {
    for (int i = 0; i < kRounds; ++i) tfTensorToPyTorchTensor(source.get());
  });
  done.store(true);
  counter.join();
}

// --- first writes -------------------------------------------------------------------------------

TEST(Concurrent, FirstWriteOfManyThreadsMovesTheTensorOnce) {
  OwnerScope owners(tb_live_owners);
  for (int round = 0; round < 300; ++round) {
    CountedBuffer buffer(std::vector<float>{0, 0, 0, 0});
    const TfTensor source(TF_FLOAT, {4}, &buffer);
    const at::Tensor tensor = tfTensorToPyTorchTensor(source.get());
    onThreads(4, [&](int index) { tensor.select(0, index).add_(index + 1); });
    ASSERT_NE(tensor.const_data_ptr(), buffer.data());
    ASSERT_EQ(valuesOf(tensor), (std::vector<float>{1, 2, 3, 4}));
    ASSERT_EQ(source.values<float>(), (std::vector<float>{0, 0, 0, 0}));
  }
}

TEST(Concurrent, TensorsOverOneBufferMoveIndependently) {
  OwnerScope owners(tb_live_owners);
  for (int round = 0; round < kRounds / 10; ++round) {
    CountedBuffer buffer(std::vector<float>{1, 2});
    const TfTensor source(TF_FLOAT, {2}, &buffer);
    onThreads(kThreads, [&](int index) {
      const at::Tensor tensor = tfTensorToPyTorchTensor(source.get());
      if (index % 2 == 0) tensor.add_(index);
      const float expected = index % 2 == 0 ? 1.0f + static_cast<float>(index) : 1.0f;
      EXPECT_EQ(valuesOf(tensor)[0], expected);
    });
    EXPECT_EQ(source.values<float>(), (std::vector<float>{1, 2}));
  }
}

TEST(Concurrent, ReaderBesideTheFirstWriter) {
  OwnerScope owners(tb_live_owners);
  constexpr size_t kSize = 4096;
  for (int round = 0; round < kRounds / 10; ++round) {
    CountedBuffer buffer(std::vector<float>(kSize, 1.0f));
    const TfTensor source(TF_FLOAT, {kSize}, &buffer);
    const at::Tensor tensor = tfTensorToPyTorchTensor(source.get());
    onThreads(2, [&](int index) {
      if (index == 0) {
        tensor.add_(1);
        return;
      }
      for (int i = 0; i < 10; ++i) {
        const float sum = tensor.sum().item<float>();
        EXPECT_GE(sum, 1.0f * kSize);
        EXPECT_LE(sum, 2.0f * kSize);
      }
    });
    EXPECT_EQ(source.values<float>(), std::vector<float>(kSize, 1.0f));
  }
}

TEST(Concurrent, RaisingTensorRaisesInEveryThread) {
  OwnerScope owners(tb_live_owners);
  ConvertOptions options;
  options.on_write = OnWrite::kRaise;
  const TfTensor source = TfTensor::floats({1, 2});
  const at::Tensor tensor = tfTensorToPyTorchTensor(source.get(), options);
  std::atomic<int> raised{0};
  onThreads(kThreads, [&](int) {
    for (int i = 0; i < 20; ++i) {
      try {
        tensor.add_(1);
      } catch (const c10::BufferError&) {
        raised.fetch_add(1);
      }
    }
  });
  EXPECT_EQ(raised, kThreads * 20);
  EXPECT_EQ(source.values<float>(), (std::vector<float>{1, 2}));
}

}  // namespace
}  // namespace tensor_bridge::testing
