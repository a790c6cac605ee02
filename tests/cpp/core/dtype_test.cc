// The dtype table: every row is consistent in itself and with the other rows. A new row needs no
// new test code, except its numbers in kNumbers.

#include "core/dtype.h"

#include <gtest/gtest.h>

#include <climits>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "core/narrow_dtypes.h"

namespace tensor_bridge {
namespace {

constexpr int kRows = static_cast<int>(Dtype::kCount);

class DtypeRow : public ::testing::TestWithParam<int> {
 protected:
  Dtype dtype() const { return static_cast<Dtype>(GetParam()); }
  const DtypeInfo& row() const { return dtypeInfo(dtype()); }
  const DtypeInfo& nearest() const { return dtypeInfo(row().nearest); }
  bool is(DtypeKind kind) const { return row().kind == kind; }
};

TEST_P(DtypeRow, ItemsizeMatchesBits) {
  EXPECT_EQ(row().itemsize, (row().dl.bits + 7) / 8);
  EXPECT_EQ(row().dl.lanes, 1);
}

TEST_P(DtypeRow, TorchNameAndTorchNumberGoTogether) {
  EXPECT_EQ(row().torch_scalar >= 0, std::strlen(row().torch_name) > 0);
  if (row().torch_scalar >= 0) {
    EXPECT_EQ(row().torch_name, std::string("torch.") + row().name);
  }
}

TEST_P(DtypeRow, NearestHasATorchTwinOfItsOwn) {
  if (is(DtypeKind::kRefused)) return;
  EXPECT_GE(nearest().torch_scalar, 0);
  EXPECT_TRUE(nearest().kind == DtypeKind::kShared || is(DtypeKind::kTorchOnly)) << nearest().name;
}

TEST_P(DtypeRow, SharedRowsHaveBothSidesAndNeedNoReason) {
  if (!is(DtypeKind::kShared)) return;
  EXPECT_GT(row().tf_enum, 0);
  EXPECT_GE(row().torch_scalar, 0);
  EXPECT_EQ(row().nearest, dtype());
  EXPECT_STREQ(row().reason, "");
  EXPECT_NE(row().dl.code, 255) << "DLPack has every dtype that both sides have";
}

TEST_P(DtypeRow, OtherRowsSayWhy) {
  if (is(DtypeKind::kShared)) return;
  EXPECT_GT(std::strlen(row().reason), 10u);
}

TEST_P(DtypeRow, ViewedRowsKeepTheirBytes) {
  if (!is(DtypeKind::kViewed)) return;
  EXPECT_EQ(row().itemsize, nearest().itemsize);
  EXPECT_LT(row().torch_scalar, 0);
}

TEST_P(DtypeRow, ConvertedRowsAreOneByteAndHaveALookupTable) {
  EXPECT_EQ(lookupTable(dtype()) != nullptr, is(DtypeKind::kConverted));
  if (!is(DtypeKind::kConverted)) return;
  EXPECT_EQ(row().itemsize, 1);
  EXPECT_LT(row().torch_scalar, 0);
}

TEST_P(DtypeRow, QuantizedRowsArePlainIntegersOfTheSameSize) {
  if (!is(DtypeKind::kQuantized)) return;
  EXPECT_EQ(row().itemsize, nearest().itemsize);
  EXPECT_EQ(std::string(row().name), std::string("q") + nearest().name);
  EXPECT_EQ(row().dl.code, 255) << "DLPack has no scale and zero point";
}

TEST_P(DtypeRow, RefusedRowsHaveNoElements) {
  EXPECT_EQ(row().itemsize == 0, is(DtypeKind::kRefused));
  if (!is(DtypeKind::kRefused)) return;
  EXPECT_LT(row().torch_scalar, 0);
  EXPECT_EQ(row().dl.code, 255);
}

TEST_P(DtypeRow, OnlyTorchOnlyRowsLackATensorFlowNumber) {
  EXPECT_EQ(row().tf_enum == 0, is(DtypeKind::kTorchOnly));
}

TEST_P(DtypeRow, IsFoundByItsNumbers) {
  if (row().tf_enum > 0) {
    EXPECT_EQ(dtypeFromTf(row().tf_enum), dtype());
  }
  if (row().torch_scalar >= 0) {
    EXPECT_EQ(dtypeFromTorch(row().torch_scalar), dtype());
  }
}

TEST_P(DtypeRow, KindHasAName) {
  EXPECT_STRNE(dtypeKindName(row().kind), "");
  EXPECT_STRNE(dtypeKindName(row().kind), "unknown");
}

std::string rowName(const ::testing::TestParamInfo<int>& info) {
  return dtypeInfo(static_cast<Dtype>(info.param)).name;
}

INSTANTIATE_TEST_SUITE_P(Table, DtypeRow, ::testing::Range(0, kRows), rowName);

// Both frameworks' numbers, written down a second time: TF_DataType, then c10::ScalarType.
const std::map<std::string, std::pair<int, int>> kNumbers = {
    {"float32", {1, 6}},
    {"float64", {2, 7}},
    {"int32", {3, 3}},
    {"uint8", {4, 0}},
    {"int16", {5, 2}},
    {"int8", {6, 1}},
    {"string", {7, -1}},
    {"complex64", {8, 9}},
    {"int64", {9, 4}},
    {"bool", {10, 11}},
    {"qint8", {11, 12}},
    {"quint8", {12, 13}},
    {"qint32", {13, 14}},
    {"bfloat16", {14, 15}},
    {"qint16", {15, -1}},
    {"quint16", {16, -1}},
    {"uint16", {17, 27}},
    {"complex128", {18, 10}},
    {"float16", {19, 5}},
    {"resource", {20, -1}},
    {"variant", {21, -1}},
    {"uint32", {22, 28}},
    {"uint64", {23, 29}},
    {"float8_e5m2", {24, 23}},
    {"float8_e4m3fn", {25, 24}},
    {"float8_e4m3fnuz", {26, 26}},
    {"float8_e4m3b11fnuz", {27, -1}},
    {"float8_e5m2fnuz", {28, 25}},
    {"int4", {29, -1}},
    {"uint4", {30, -1}},
    {"int2", {31, -1}},
    {"uint2", {32, -1}},
    {"float4_e2m1fn", {33, -1}},
    {"complex32", {0, 8}},
    {"float8_e8m0fnu", {0, 44}},
    {"float4_e2m1fn_x2", {0, 45}},
};

TEST(DtypeTable, HoldsTheNumbersOfBothFrameworks) {
  EXPECT_EQ(static_cast<size_t>(kRows), kNumbers.size());
  for (int i = 0; i < kRows; ++i) {
    const DtypeInfo& row = dtypeInfo(static_cast<Dtype>(i));
    const auto numbers = kNumbers.find(row.name);
    ASSERT_NE(numbers, kNumbers.end()) << row.name;
    EXPECT_EQ(row.tf_enum, numbers->second.first) << row.name;
    EXPECT_EQ(row.torch_scalar, numbers->second.second) << row.name;
  }
}

TEST(DtypeTable, NamesAndNumbersAreUnique) {
  std::set<std::string> names;
  std::set<int> tf_numbers;
  std::set<int> torch_numbers;
  std::set<std::pair<int, int>> dlpack_types;
  for (int i = 0; i < kRows; ++i) {
    const DtypeInfo& row = dtypeInfo(static_cast<Dtype>(i));
    EXPECT_TRUE(names.insert(row.name).second) << row.name;
    if (row.tf_enum > 0) {
      EXPECT_TRUE(tf_numbers.insert(row.tf_enum).second) << row.name;
    }
    if (row.torch_scalar >= 0) {
      EXPECT_TRUE(torch_numbers.insert(row.torch_scalar).second) << row.name;
    }
    if (row.dl.code != 255) {
      EXPECT_TRUE(dlpack_types.insert({row.dl.code, row.dl.bits}).second) << row.name;
    }
  }
}

TEST(DtypeTable, UnknownNumbersAreUnknown) {
  // 34 and up: newer than the table; 101 and up: TF1's _REF dtypes.
  for (int number : {INT_MIN, -1, 0, 34, 63, 64, 100, 101, 133, 255, INT_MAX}) {
    EXPECT_EQ(dtypeFromTf(number), Dtype::kUnknown) << number;
  }
  // 16 to 22: packed quantized, bits and Undefined; 30 to 43: shells without arithmetic.
  for (int number : {INT_MIN, -1, 16, 22, 30, 43, 46, 63, 64, 127, 255, INT_MAX}) {
    EXPECT_EQ(dtypeFromTorch(number), Dtype::kUnknown) << number;
  }
}

TEST(DtypeTable, DlpackCodesAreThoseOfTheHeader) {
  const auto code = [](Dtype dtype) { return int{dtypeInfo(dtype).dl.code}; };
  EXPECT_EQ(code(Dtype::kInt64), kDLInt);
  EXPECT_EQ(code(Dtype::kUInt16), kDLUInt);
  EXPECT_EQ(code(Dtype::kFloat16), kDLFloat);
  EXPECT_EQ(code(Dtype::kBFloat16), kDLBfloat);
  EXPECT_EQ(code(Dtype::kComplex64), kDLComplex);
  EXPECT_EQ(code(Dtype::kBool), kDLBool);
  EXPECT_EQ(code(Dtype::kFloat8E5M2), kDLFloat8_e5m2);
  EXPECT_EQ(code(Dtype::kFloat8E4M3FN), kDLFloat8_e4m3fn);
  EXPECT_EQ(code(Dtype::kFloat8E4M3FNUZ), kDLFloat8_e4m3fnuz);
  EXPECT_EQ(code(Dtype::kFloat8E5M2FNUZ), kDLFloat8_e5m2fnuz);
  EXPECT_EQ(code(Dtype::kFloat8E4M3B11FNUZ), kDLFloat8_e4m3b11fnuz);
  EXPECT_EQ(code(Dtype::kFloat8E8M0FNU), kDLFloat8_e8m0fnu);
}

}  // namespace
}  // namespace tensor_bridge
