// Batches of Examples and SequenceExamples made byte by byte: the values of each column, and what
// is refused. Tests in Python compare random messages with TensorFlow.

#include "formats/example.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "formats/example_keys.h"
#include "formats/format_error.h"
#include "support/protobuf_bytes.h"

namespace tensor_bridge::testing {
namespace {

std::string int64s(const std::vector<uint64_t>& values) {
  std::string packed;
  for (const uint64_t value : values) packed += varint(value);
  return bytes(3, bytes(1, packed));
}

std::string floats(const std::vector<float>& values) {
  std::string packed(values.size() * 4, '\0');
  if (!values.empty()) std::memcpy(packed.data(), values.data(), packed.size());
  return bytes(2, bytes(1, packed));
}

std::string strings(const std::vector<std::string>& values) {
  std::string list;
  for (const std::string& value : values) list += bytes(1, value);
  return bytes(1, list);
}

std::string entry(const std::string& key, const std::string& value) {
  return bytes(1, bytes(1, key) + bytes(2, value));
}

ExampleColumn column(const std::string& key, FeatureType type, ColumnKind kind,
                     int64_t stride = 1) {
  ExampleColumn made;
  made.key = key;
  made.type = type;
  made.kind = kind;
  made.stride = stride;
  made.required = kind == ColumnKind::kFixed;
  if (kind == ColumnKind::kPadded) {
    made.defaults.assign(type == FeatureType::kFloat ? 4 : 8, '\0');
    if (type == FeatureType::kBytes) {
      made.defaults = "-";
      made.default_ends = {1};
    }
  }
  return made;
}

// Consecutive records.
struct Records {
  explicit Records(const std::vector<std::string>& each) {
    for (const std::string& record : each) {
      begins.push_back(static_cast<int64_t>(data.size()));
      sizes.push_back(static_cast<int64_t>(record.size()));
      data += record;
    }
  }
  ExampleBatch scan(const ExampleSpec& spec) const {
    return {spec, reinterpret_cast<const uint8_t*>(data.data()), begins.data(), sizes.data(),
            static_cast<int64_t>(begins.size())};
  }
  std::string data;
  std::vector<int64_t> begins;
  std::vector<int64_t> sizes;
};

// The offset at which the first pass refuses the records.
int64_t refusedAt(const ExampleSpec& spec, const std::vector<std::string>& each) {
  try {
    Records(each).scan(spec);
  } catch (const FormatError& e) {
    return e.offset();
  }
  ADD_FAILURE() << "nothing was refused";
  return -1;
}

TEST(Example, FixedColumnsAreFilledInTheOrderOfRecords) {
  const ExampleSpec spec({column("x", FeatureType::kFloat, ColumnKind::kFixed, 2),
                          column("n", FeatureType::kInt64, ColumnKind::kFixed)},
                         false);
  const std::string first = bytes(1, entry("n", int64s({7})) + entry("x", floats({1, 2})));
  const std::string second = bytes(1, entry("x", floats({3, 4})) + entry("n", int64s({300})));
  const Records records({first, second});
  const ExampleBatch batch = records.scan(spec);
  float x[4];
  int64_t n[2];
  batch.fill(0, {x, nullptr, nullptr, nullptr});
  batch.fill(1, {n, nullptr, nullptr, nullptr});
  EXPECT_EQ(std::vector<float>(x, x + 4), (std::vector<float>{1, 2, 3, 4}));
  EXPECT_EQ(std::vector<int64_t>(n, n + 2), (std::vector<int64_t>{7, 300}));
}

TEST(Example, DefaultsStandForMissingFeatures) {
  ExampleColumn asked = column("s", FeatureType::kBytes, ColumnKind::kFixed, 2);
  asked.required = false;
  asked.defaults = "abc";
  asked.default_ends = {1, 3};
  const ExampleSpec spec({asked}, false);
  const Records records({bytes(1, entry("s", strings({"", "xyz"}))), ""});
  const ExampleBatch batch = records.scan(spec);
  ASSERT_EQ(batch.size(0).bytes, 6);
  char data[6];
  int64_t offsets[5];
  batch.fill(0, {data, offsets, nullptr, nullptr});
  EXPECT_EQ(std::string(data, 6), "xyzabc");
  EXPECT_EQ(std::vector<int64_t>(offsets, offsets + 5), (std::vector<int64_t>{0, 0, 3, 4, 6}));
}

TEST(Example, PaddedSparseAndRaggedColumnsOfOneBatch) {
  const ExampleSpec spec({column("p", FeatureType::kBytes, ColumnKind::kPadded),
                          column("s", FeatureType::kInt64, ColumnKind::kSparse),
                          column("r", FeatureType::kFloat, ColumnKind::kRagged)},
                         false);
  const Records records({bytes(1, entry("p", strings({"ab"})) + entry("s", int64s({5, 6}))),
                         bytes(1, entry("p", strings({"c", "d"})) + entry("r", floats({9})))});
  const ExampleBatch batch = records.scan(spec);
  char data[5];
  int64_t offsets[5];
  batch.fill(0, {data, offsets, nullptr, nullptr});
  EXPECT_EQ(std::string(data, 5), "ab-cd");
  int64_t values[2];
  int64_t index[4];
  batch.fill(1, {values, nullptr, index, nullptr});
  EXPECT_EQ(std::vector<int64_t>(index, index + 4), (std::vector<int64_t>{0, 0, 0, 1}));
  float ragged[1];
  int64_t splits[3];
  batch.fill(2, {ragged, nullptr, splits, nullptr});
  EXPECT_EQ(std::vector<int64_t>(splits, splits + 3), (std::vector<int64_t>{0, 0, 1}));
}

TEST(Example, FeatureListsHaveRows) {
  ExampleColumn rows = column("l", FeatureType::kInt64, ColumnKind::kPadded, 2);
  rows.in_lists = true;
  ExampleColumn ragged = column("r", FeatureType::kInt64, ColumnKind::kRagged);
  ragged.in_lists = true;
  const ExampleSpec spec({rows, ragged}, true);
  const std::string list = bytes(1, int64s({1, 2})) + bytes(1, int64s({3, 4}));
  const Records records({bytes(2, entry("l", list) + entry("r", list + bytes(1, ""))), ""});
  const ExampleBatch batch = records.scan(spec);
  int64_t values[8];
  int64_t lengths[2];
  batch.fill(0, {values, nullptr, nullptr, lengths});
  EXPECT_EQ(std::vector<int64_t>(values, values + 8),
            (std::vector<int64_t>{1, 2, 3, 4, 0, 0, 0, 0}));
  EXPECT_EQ(std::vector<int64_t>(lengths, lengths + 2), (std::vector<int64_t>{2, 0}));
  int64_t flat[4];
  int64_t splits[7];
  batch.fill(1, {flat, nullptr, splits, nullptr});
  EXPECT_EQ(std::vector<int64_t>(splits, splits + 7), (std::vector<int64_t>{0, 3, 3, 0, 2, 4, 4}));
}

TEST(Example, RefusalsNameThePlaceFromTheFirstByte) {
  const ExampleSpec spec({column("n", FeatureType::kInt64, ColumnKind::kFixed)}, false);
  const std::string good = bytes(1, entry("n", int64s({1})));
  const auto size = static_cast<int64_t>(good.size());
  EXPECT_EQ(refusedAt(spec, {good, ""}), size);                                    // missing
  EXPECT_EQ(refusedAt(spec, {good, "\x0b"}), size);                                // a group
  EXPECT_GT(refusedAt(spec, {good, bytes(1, entry("n", floats({1})))}), size);     // another type
  EXPECT_GT(refusedAt(spec, {good, bytes(1, entry("n", int64s({1, 2})))}), size);  // too many
}

TEST(Example, AVarintThatDoesNotEndIsFoundByTheSecondPass) {
  const ExampleSpec spec({column("n", FeatureType::kInt64, ColumnKind::kRagged)}, false);
  const std::string endless(11, '\xff');
  const Records records({bytes(1, entry("n", bytes(3, bytes(1, endless + '\1'))))});
  const ExampleBatch batch = records.scan(spec);
  int64_t values[1];
  int64_t splits[2];
  EXPECT_THROW(batch.fill(0, {values, nullptr, splits, nullptr}), FormatError);
}

TEST(Example, ColumnsThatMeanNothingAreRefused) {
  ExampleColumn twice = column("n", FeatureType::kInt64, ColumnKind::kRagged);
  EXPECT_THROW(ExampleSpec({twice, twice}, false), Error);
  EXPECT_THROW(ExampleSpec({column("n", FeatureType::kNone, ColumnKind::kRagged)}, false), Error);
  EXPECT_THROW(ExampleSpec({column("n", FeatureType::kInt64, ColumnKind::kPadded, 0)}, false),
               Error);
  ExampleColumn lacking = column("n", FeatureType::kInt64, ColumnKind::kFixed);
  lacking.required = false;
  EXPECT_THROW(ExampleSpec({lacking}, false), Error);
}

TEST(ExampleKeys, NameTypeAndNumberOfValues) {
  const std::string record = bytes(1, entry("n", int64s({1, 2})) + entry("e", "")) +
                             bytes(2, entry("l", bytes(1, floats({1}))));
  const auto keys = readExampleKeys(reinterpret_cast<const uint8_t*>(record.data()), record.size());
  ASSERT_EQ(keys.size(), 3U);
  EXPECT_EQ(keys[0].key, "n");
  EXPECT_EQ(keys[0].count, 2);
  EXPECT_EQ(keys[1].type, FeatureType::kNone);
  EXPECT_TRUE(keys[2].in_lists);
  EXPECT_EQ(keys[2].type, FeatureType::kFloat);
}

}  // namespace
}  // namespace tensor_bridge::testing
