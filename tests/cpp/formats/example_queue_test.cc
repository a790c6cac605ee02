// Queues of batches: order, threads, damage, batches in pieces, memory that is used again, the end.

#include "formats/example_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "formats/tfrecord.h"

namespace tensor_bridge::testing {
namespace {

// Two files of raw records, whose bytes are their number.
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

  // All batches of a queue, "!" for one that failed.
  std::vector<std::string> all(const RecordOrder& order, ExampleQueue::Options options) const {
    ExampleQueue queue(nullptr, files(), order, options);
    std::vector<std::string> found;
    while (const std::unique_ptr<ParsedBatch> batch = queue.take()) {
      found.push_back(batch->failed ? "!" : text(*batch));
    }
    return found;
  }

  static ExampleQueue::Options options(int64_t batch_size, int32_t threads = 1) {
    ExampleQueue::Options made;
    made.batch_size = batch_size;
    made.threads = threads;
    return made;
  }

  static std::string numbers(int64_t begin, int64_t end, int64_t step = 1) {
    std::string out;
    for (int64_t i = begin; i < end; i += step) out += std::to_string(i) + " ";
    return out;
  }
};

TEST_F(QueueTest, BatchesOfNumbersComeInOrderWhicheverThreadMadeThem) {
  std::vector<int64_t> asked;
  for (int64_t i = 0; i < 99; ++i) asked.insert(asked.end(), {i + 1, i});
  const RecordOrder order{asked.data(), static_cast<int64_t>(asked.size())};
  const std::vector<std::string> found = all(order, options(2, 4));
  ASSERT_EQ(found.size(), 99U);
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i], std::to_string(i + 1) + " " + std::to_string(i) + " ");
  }
}

TEST_F(QueueTest, RecordsAreFoundWithoutAnIndexWhileTheyAreRead) {
  for (int64_t step : {1, 3, 200}) {
    for (int64_t first = 0; first < std::min<int64_t>(step, 5); ++first) {
      std::string joined;
      RecordOrder order;
      order.first = first;
      order.step = step;
      for (const std::string& batch : all(order, options(7, 3))) joined += batch;
      EXPECT_EQ(joined, numbers(first, 100, step)) << first << " of " << step;
    }
  }
  ExampleQueue::Options full = options(30);
  full.drop_last = true;
  EXPECT_EQ(all({}, full).size(), 3U);
  EXPECT_EQ(all({}, options(30)).size(), 4U);
}

TEST_F(QueueTest, DamageIsAFailureOfItsBatchOrLeftOut) {
  first_[static_cast<size_t>(offsets_[7]) + 12] ^= 1;
  const int64_t asked[] = {6, 7, 8, 6, 9};
  const RecordOrder order{asked, 5};
  ExampleQueue strict(nullptr, files(), order, options(3));
  const std::unique_ptr<ParsedBatch> failed = strict.take();
  EXPECT_TRUE(failed->failed);
  EXPECT_EQ(failed->fault, RecordFault::kDataCheck);
  EXPECT_EQ(failed->file, 0);
  EXPECT_EQ(failed->offset, offsets_[7]);
  EXPECT_EQ(text(*strict.take()), "6 9 ");
  EXPECT_EQ(strict.take(), nullptr);
  ExampleQueue::Options skips = options(3);
  skips.skip = true;
  ExampleQueue skipping(nullptr, files(), order, skips);
  const std::unique_ptr<ParsedBatch> rest = skipping.take();
  EXPECT_EQ(text(*rest), "6 8 ");
  EXPECT_EQ(rest->skipped_records, 1);
}

TEST_F(QueueTest, WhereALengthIsDamagedTheNextFileGoesOn) {
  first_[static_cast<size_t>(offsets_[10])] ^= 1;
  const std::vector<std::string> found = all({}, options(4));
  EXPECT_EQ(found[1], "4 5 6 7 ");
  EXPECT_EQ(found[2], "!");
  EXPECT_EQ(found[3], "60 61 62 63 ");
  second_.resize(second_.size() - 1);
  sizes_[1] -= 1;
  EXPECT_EQ(all({}, options(4)).back(), "!");
}

TEST_F(QueueTest, ABatchInPiecesIsTheSameAsAWhole) {
  // Examples with one feature "s"; the piece of a batch is 8 records.
  std::vector<std::string> records;
  for (int i = 0; i < 21; ++i) {
    const std::string value(static_cast<size_t>(i), 'x');
    const auto nested = [](char tag, const std::string& inner) {
      return std::string(1, tag) + static_cast<char>(inner.size()) + inner;
    };
    const std::string feature = nested(0x0a, nested(0x0a, value));
    records.push_back(nested(0x0a, nested(0x0a, nested(0x0a, "s") + nested(0x12, feature))));
  }
  ExampleColumn column;
  column.key = "s";
  column.type = FeatureType::kBytes;
  column.required = true;
  const ExampleSpec spec({column}, false);
  std::string joined;
  std::vector<int64_t> begins;
  std::vector<int64_t> sizes;
  for (const std::string& record : records) {
    begins.push_back(static_cast<int64_t>(joined.size()));
    sizes.push_back(static_cast<int64_t>(record.size()));
    joined += record;
  }
  const auto* base = reinterpret_cast<const uint8_t*>(joined.data());
  const auto size = static_cast<int64_t>(joined.size());
  ASSERT_TRUE(BatchBuilder::fits(&spec, size, 21));
  ExampleBatch scratch(spec);
  ParsedBatch whole;
  parseRecords(&scratch, base, begins.data(), sizes.data(), 21, &whole);
  ParsedBatch pieces;
  BatchBuilder builder(&scratch, size, 21, &pieces);
  for (size_t i = 0; i < 21; i += 8) {
    builder.add(base, &begins[i], &sizes[i], std::min<int64_t>(8, 21 - static_cast<int64_t>(i)));
  }
  builder.finish();
  EXPECT_EQ(pieces.count, 21);
  EXPECT_EQ(pieces.bytes, whole.bytes);
  EXPECT_EQ(text(pieces), text(whole));
  for (int part = 0; part < 4; ++part) {
    EXPECT_EQ(pieces.columns[0].elements[part], whole.columns[0].elements[part]);
  }
  // A spec that the records cannot fit takes no memory ahead.
  ExampleColumn huge;
  huge.key = "n";
  huge.type = FeatureType::kInt64;
  huge.required = true;
  huge.stride = int64_t{1} << 40;
  EXPECT_FALSE(BatchBuilder::fits(
      std::make_unique<ExampleSpec>(std::vector<ExampleColumn>{huge}, false).get(), size, 21));
}

TEST_F(QueueTest, BatchesOutliveTheQueueAndGoBackFromAnyThread) {
  std::vector<std::unique_ptr<ParsedBatch>> kept;
  {
    ExampleQueue queue(nullptr, files(), {}, options(1, 3));
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
