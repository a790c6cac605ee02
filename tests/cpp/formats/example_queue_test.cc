// Queues of batches: order, threads, damage, memory that is used again, closing.

#include "formats/example_queue.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "formats/tfrecord.h"

namespace tensor_bridge::testing {
namespace {

// Two files of raw records; the bytes of a record are its number.
class QueueTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (int64_t i = 0; i < 100; ++i) {
      std::string& file = i < 60 ? first_ : second_;
      offsets_.push_back(static_cast<int64_t>(file.size()));
      const std::string payload = std::to_string(i);
      const int64_t begin = 0;
      const auto size = static_cast<int64_t>(payload.size());
      std::string framed(payload.size() + 16, '\0');
      frameRecords(reinterpret_cast<const uint8_t*>(payload.data()), &begin, &size, 1,
                   reinterpret_cast<uint8_t*>(framed.data()));
      file += framed;
    }
    data_ = {reinterpret_cast<const uint8_t*>(first_.data()),
             reinterpret_cast<const uint8_t*>(second_.data())};
    sizes_ = {static_cast<int64_t>(first_.size()), static_cast<int64_t>(second_.size())};
  }

  RecordFiles files() const { return {data_.data(), sizes_.data(), ends_, 2, offsets_.data()}; }

  static std::string text(const ParsedBatch& batch) {
    std::string out;
    const ParsedBatch::Column& column = batch.columns.at(0);
    for (int64_t i = 0; i < batch.count; ++i) {
      const auto* bytes = static_cast<const char*>(column.memory.values);
      const int64_t* offsets = column.memory.offsets;
      out += std::string(bytes + offsets[i], bytes + offsets[i + 1]) + " ";
    }
    return out;
  }

  std::string first_;
  std::string second_;
  std::vector<const uint8_t*> data_;
  std::vector<int64_t> sizes_;
  std::vector<int64_t> offsets_;
  int64_t ends_[2] = {60, 100};
};

TEST_F(QueueTest, BatchesComeInTheOrderInWhichTheyWereAskedFor) {
  ExampleQueue queue(nullptr, files(), {true, false, 4});
  for (int64_t i = 0; i < 99; ++i) {
    const int64_t numbers[] = {i + 1, i};
    queue.submit(numbers, 2);
  }
  for (int64_t i = 0; i < 99; ++i) {
    const std::unique_ptr<ParsedBatch> batch = queue.take();
    ASSERT_FALSE(batch->failed);
    EXPECT_EQ(text(*batch), std::to_string(i + 1) + " " + std::to_string(i) + " ");
  }
  EXPECT_EQ(queue.take(), nullptr);
}

TEST_F(QueueTest, DamageIsAFailureOfItsBatchOrLeftOut) {
  first_[static_cast<size_t>(offsets_[7]) + 12] ^= 1;
  const int64_t numbers[] = {6, 7, 8};
  ExampleQueue strict(nullptr, files(), {true, false, 1});
  strict.submit(numbers, 3);
  strict.submit(numbers, 1);
  const std::unique_ptr<ParsedBatch> failed = strict.take();
  EXPECT_TRUE(failed->failed);
  EXPECT_EQ(failed->fault, RecordFault::kDataCheck);
  EXPECT_EQ(failed->file, 0);
  EXPECT_EQ(failed->offset, offsets_[7]);
  EXPECT_EQ(text(*strict.take()), "6 ");
  ExampleQueue skipping(nullptr, files(), {true, true, 1});
  skipping.submit(numbers, 3);
  const std::unique_ptr<ParsedBatch> rest = skipping.take();
  EXPECT_EQ(text(*rest), "6 8 ");
  EXPECT_EQ(rest->skipped_records, 1);
}

TEST_F(QueueTest, BatchesOutliveTheQueueAndGoBackFromAnyThread) {
  std::vector<std::unique_ptr<ParsedBatch>> kept;
  {
    ExampleQueue queue(nullptr, files(), {true, false, 3});
    for (int64_t i = 0; i < 50; ++i) queue.submit(&i, 1);
    for (int64_t i = 0; i < 20; ++i) kept.push_back(queue.take());
  }
  EXPECT_EQ(text(*kept.back()), "19 ");
  std::thread other([&] { kept.clear(); });
  other.join();
}

TEST_F(QueueTest, ABlockOfAboutTheSizeIsUsedAgain) {
  BlockPool pool;
  BlockPool::Block block = pool.take(1000);
  const uint8_t* place = block.data.get();
  pool.give(std::move(block));
  EXPECT_EQ(pool.take(900).data.get(), place);
  pool.give(pool.take(10000));
  EXPECT_LT(pool.take(100).size, 1000U);
}

}  // namespace
}  // namespace tensor_bridge::testing
