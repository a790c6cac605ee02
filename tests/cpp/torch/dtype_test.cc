// The table's torch column against torch's own names and sizes.

#include <c10/core/ScalarType.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <string>

#include "adapters/torch/torch_dtype.h"

namespace tensor_bridge {
namespace {

struct Row {
  const char* name;
  int torch_scalar;
  const char* torch_name;
  int itemsize;
};
constexpr Row kRows[] = {
#define TB_DTYPE(id, name, tf, torch, torch_name, code, bits, size, ...) \
  {name, torch, torch_name, size},
#include "core/dtype_table.def"
#undef TB_DTYPE
};

// ScalarType's C++ names differ from the dtypes' newer Python names.
std::string pythonName(c10::ScalarType type) {
  static const std::map<std::string, std::string> renamed = {{"Byte", "uint8"},
                                                             {"Char", "int8"},
                                                             {"Short", "int16"},
                                                             {"Int", "int32"},
                                                             {"Long", "int64"},
                                                             {"Half", "float16"},
                                                             {"Float", "float32"},
                                                             {"Double", "float64"},
                                                             {"ComplexHalf", "complex32"},
                                                             {"ComplexFloat", "complex64"},
                                                             {"ComplexDouble", "complex128"}};
  const std::string name = c10::toString(type);
  if (const auto found = renamed.find(name); found != renamed.end()) return found->second;
  std::string lower = name;
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lower;
}

TEST(TorchDtype, NumbersAndSizesAreTorchs) {
  for (size_t i = 0; i < std::size(kRows); ++i) {
    if (kRows[i].torch_scalar < 0) continue;
    const c10::ScalarType type = scalarType(static_cast<Dtype>(i));
    EXPECT_EQ(static_cast<int>(type), kRows[i].torch_scalar);
    EXPECT_EQ("torch." + pythonName(type), kRows[i].torch_name);
    EXPECT_EQ(static_cast<int>(c10::elementSize(type)), kRows[i].itemsize) << kRows[i].name;
  }
}

TEST(TorchDtype, IsFoundByItsScalarType) {
  for (size_t i = 0; i < std::size(kRows); ++i) {
    if (kRows[i].torch_scalar < 0) continue;
    EXPECT_EQ(dtypeFromScalarType(scalarType(static_cast<Dtype>(i))), static_cast<Dtype>(i));
  }
}

TEST(TorchDtype, WithoutARowIsUnknown) {
  for (c10::ScalarType type :
       {c10::ScalarType::QUInt4x2, c10::ScalarType::Bits8, c10::ScalarType::Undefined,
        c10::ScalarType::UInt4, c10::ScalarType::Int4, c10::ScalarType::UInt1}) {
    EXPECT_EQ(dtypeFromScalarType(type), Dtype::kUnknown) << c10::toString(type);
  }
}

}  // namespace
}  // namespace tensor_bridge
