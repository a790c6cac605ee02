#include "core/layout.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <vector>

namespace tensor_bridge {
namespace {

using Dims = std::vector<int64_t>;

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

bool count(const Dims& shape, int64_t* out) {
  return elementCount(shape.data(), static_cast<int>(shape.size()), out);
}

Dims rowMajor(const Dims& shape) {
  Dims strides(shape.size());
  rowMajorStrides(shape.data(), static_cast<int>(shape.size()), strides.data());
  return strides;
}

bool isRowMajorWith(const Dims& shape, const Dims& strides) {
  return isRowMajor(shape.data(), strides.data(), static_cast<int>(shape.size()));
}

TEST(ElementCount, IsTheProductOfTheDimensions) {
  const struct {
    Dims shape;
    int64_t expected;
  } cases[] = {
      {{}, 1},
      {{0}, 0},
      {{7}, 7},
      {{2, 3, 4}, 24},
      {{1, 1}, 1},
      {{3, 0, 2}, 0},
      {{kMax}, kMax},
      {{1, kMax, 1}, kMax},
      {{int64_t{1} << 31, int64_t{1} << 31}, int64_t{1} << 62},
      {Dims(254, 1), 1},
  };
  for (const auto& c : cases) {
    int64_t result = -1;
    EXPECT_TRUE(count(c.shape, &result));
    EXPECT_EQ(result, c.expected);
  }
}

TEST(ElementCount, AcceptsOneHugeDimensionBesideAZero) {
  int64_t result = -1;
  EXPECT_TRUE(count({0, kMax}, &result));
  EXPECT_EQ(result, 0);
  EXPECT_TRUE(count({kMax, 0}, &result));
  EXPECT_EQ(result, 0);
}

TEST(ElementCount, RefusesAnEmptyShapeWhoseStridesOverflow) {
  // The tensor has no elements, but its row-major strides overflow; torch refuses it as well.
  const int64_t big = int64_t{1} << 40;
  int64_t result = 5;
  EXPECT_FALSE(count({0, big, big}, &result));
  EXPECT_FALSE(count({big, big, 0}, &result));
  EXPECT_EQ(result, 5) << "untouched on failure";
}

TEST(ElementCount, RefusesOverflow) {
  int64_t result = 5;
  EXPECT_FALSE(count({int64_t{1} << 32, int64_t{1} << 32}, &result));
  EXPECT_FALSE(count({kMax, 2}, &result));
  EXPECT_FALSE(count(Dims(64, 2), &result));
  EXPECT_EQ(result, 5) << "untouched on failure";
}

TEST(ElementCount, RefusesNegativeDimensions) {
  int64_t result = 5;
  EXPECT_FALSE(count({-1}, &result));
  EXPECT_FALSE(count({2, -3, 4}, &result));
  EXPECT_FALSE(count({0, -1}, &result)) << "negative in spite of the zero";
  EXPECT_FALSE(count({-1, 0}, &result));
  EXPECT_FALSE(count({std::numeric_limits<int64_t>::min()}, &result));
  EXPECT_EQ(result, 5) << "untouched on failure";
}

TEST(ByteCount, ChecksForOverflow) {
  int64_t bytes = 5;
  EXPECT_TRUE(byteCount(6, 4, &bytes));
  EXPECT_EQ(bytes, 24);
  EXPECT_TRUE(byteCount(kMax, 1, &bytes));
  EXPECT_EQ(bytes, kMax);
  EXPECT_TRUE(byteCount(0, 16, &bytes));
  EXPECT_EQ(bytes, 0);
  EXPECT_TRUE(byteCount(kMax / 16, 16, &bytes));
  EXPECT_FALSE(byteCount(kMax / 16 + 1, 16, &bytes));
  EXPECT_FALSE(byteCount(kMax, 2, &bytes));
}

TEST(RowMajorStrides, CountZerosAsOnes) {
  EXPECT_EQ(rowMajor({}), Dims({}));
  EXPECT_EQ(rowMajor({5}), Dims({1}));
  EXPECT_EQ(rowMajor({2, 3, 4}), Dims({12, 4, 1}));
  EXPECT_EQ(rowMajor({3, 0, 2}), Dims({2, 2, 1}));
  EXPECT_EQ(rowMajor({1, 1}), Dims({1, 1}));
}

TEST(IsRowMajor, HoldsForRowMajorStrides) {
  for (const Dims& shape : {Dims{}, Dims{5}, Dims{2, 3, 4}, Dims{3, 0, 2}, Dims(254, 1)}) {
    EXPECT_TRUE(isRowMajorWith(shape, rowMajor(shape)));
    EXPECT_TRUE(isRowMajor(shape.data(), nullptr, static_cast<int>(shape.size())));
  }
}

TEST(IsRowMajor, IgnoresStridesOfSizeOneDimensions) {
  EXPECT_TRUE(isRowMajorWith({1}, {12345}));
  EXPECT_TRUE(isRowMajorWith({2, 1, 3}, {3, -7, 1}));
  EXPECT_TRUE(isRowMajorWith({1, 4, 1}, {0, 1, kMax}));
  EXPECT_FALSE(isRowMajorWith({2, 1, 3}, {4, 3, 1}));
}

TEST(IsRowMajor, IgnoresEveryStrideWithoutElements) {
  EXPECT_TRUE(isRowMajorWith({2, 0, 3}, {-1, 99, 5}));
  EXPECT_TRUE(isRowMajorWith({0}, {17}));
}

TEST(IsRowMajor, RefusesOtherLayouts) {
  EXPECT_FALSE(isRowMajorWith({2, 3}, {1, 2})) << "transposed";
  EXPECT_FALSE(isRowMajorWith({2, 3}, {6, 2})) << "every second column";
  EXPECT_FALSE(isRowMajorWith({2, 3}, {0, 1})) << "expanded";
  EXPECT_FALSE(isRowMajorWith({3}, {-1})) << "reversed";
  EXPECT_FALSE(isRowMajorWith({1, 2, 2, 2}, {8, 1, 4, 2})) << "channels last";
}

TEST(IsAligned, LooksAtTheAddress) {
  alignas(128) static char memory[256];
  EXPECT_TRUE(isAligned(memory, kTensorFlowAlignment));
  EXPECT_TRUE(isAligned(memory + 64, kTensorFlowAlignment));
  for (size_t offset : {1, 4, 8, 16, 32, 63}) {
    EXPECT_FALSE(isAligned(memory + offset, kTensorFlowAlignment)) << offset;
  }
  EXPECT_TRUE(isAligned(nullptr, kTensorFlowAlignment));
}

}  // namespace
}  // namespace tensor_bridge
