// The table's TensorFlow column against TensorFlow's own header. This is a separate file because
// that header and tf_api.h both declare TF_Status.

#include <gtest/gtest.h>

#include "core/dtype.h"
#include "tensorflow/c/tf_datatype.h"

namespace tensor_bridge {
namespace {

struct Number {
  TF_DataType tensorflow;
  Dtype row;
};

// The dtypes up to TensorFlow 2.12. Newer dtypes have fixed numbers, which the core tests check.
constexpr Number kNumbers[] = {
    {TF_FLOAT, Dtype::kFloat32},
    {TF_DOUBLE, Dtype::kFloat64},
    {TF_INT32, Dtype::kInt32},
    {TF_UINT8, Dtype::kUInt8},
    {TF_INT16, Dtype::kInt16},
    {TF_INT8, Dtype::kInt8},
    {TF_STRING, Dtype::kString},
    {TF_COMPLEX64, Dtype::kComplex64},
    {TF_INT64, Dtype::kInt64},
    {TF_BOOL, Dtype::kBool},
    {TF_QINT8, Dtype::kQInt8},
    {TF_QUINT8, Dtype::kQUInt8},
    {TF_QINT32, Dtype::kQInt32},
    {TF_BFLOAT16, Dtype::kBFloat16},
    {TF_QINT16, Dtype::kQInt16},
    {TF_QUINT16, Dtype::kQUInt16},
    {TF_UINT16, Dtype::kUInt16},
    {TF_COMPLEX128, Dtype::kComplex128},
    {TF_HALF, Dtype::kFloat16},
    {TF_RESOURCE, Dtype::kResource},
    {TF_VARIANT, Dtype::kVariant},
    {TF_UINT32, Dtype::kUInt32},
    {TF_UINT64, Dtype::kUInt64},
    {TF_FLOAT8_E5M2, Dtype::kFloat8E5M2},
    {TF_FLOAT8_E4M3FN, Dtype::kFloat8E4M3FN},
    {TF_FLOAT8_E4M3FNUZ, Dtype::kFloat8E4M3FNUZ},
    {TF_FLOAT8_E4M3B11FNUZ, Dtype::kFloat8E4M3B11FNUZ},
    {TF_FLOAT8_E5M2FNUZ, Dtype::kFloat8E5M2FNUZ},
    {TF_INT4, Dtype::kInt4},
    {TF_UINT4, Dtype::kUInt4},
    {TF_INT2, Dtype::kInt2},
    {TF_UINT2, Dtype::kUInt2},
    {TF_FLOAT4_E2M1FN, Dtype::kFloat4E2M1FN},
};

TEST(DtypeNumbers, AreTensorFlows) {
  for (const Number& number : kNumbers) {
    EXPECT_EQ(dtypeFromTf(number.tensorflow), number.row) << number.tensorflow;
  }
}

TEST(DtypeNumbers, ItemsizeIsTensorFlows) {
  for (const Number& number : kNumbers) {
    EXPECT_EQ(dtypeInfo(number.row).itemsize, TF_DataTypeSize(number.tensorflow))
        << dtypeInfo(number.row).name;
  }
}

TEST(DtypeNumbers, EveryDtypeOfTensorFlowHasARow) {
  for (int number = 1; number <= 33; ++number) {
    EXPECT_NE(dtypeFromTf(number), Dtype::kUnknown) << number;
  }
}

}  // namespace
}  // namespace tensor_bridge
