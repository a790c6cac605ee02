#include "adapters/torch/torch_dtype.h"

namespace tensor_bridge {
namespace {

// Expanded here as well as in core/dtype.cc: an adapter links nothing of the library.
constexpr int8_t kScalarTypes[] = {
#define TB_DTYPE(id, name, tf, torch, ...) torch,
#include "core/dtype_table.def"
#undef TB_DTYPE
};

constexpr DLDataType kDataTypes[] = {
#define TB_DTYPE(id, name, tf, torch, torch_name, code, bits, ...) {code, bits, 1},
#include "core/dtype_table.def"
#undef TB_DTYPE
};

// The numbers are part of torch's serialization format and never reused; these check the column.
static_assert(static_cast<int>(c10::ScalarType::Byte) == 0);
static_assert(static_cast<int>(c10::ScalarType::Float) == 6);
static_assert(static_cast<int>(c10::ScalarType::Bool) == 11);
static_assert(static_cast<int>(c10::ScalarType::BFloat16) == 15);
static_assert(static_cast<int>(c10::ScalarType::Float8_e4m3fn) == 24);
static_assert(static_cast<int>(c10::ScalarType::UInt64) == 29);

}  // namespace

c10::ScalarType scalarType(Dtype dtype) noexcept {
  return static_cast<c10::ScalarType>(kScalarTypes[static_cast<size_t>(dtype)]);
}

Dtype dtypeFromScalarType(c10::ScalarType type) noexcept {
  for (size_t i = 0; i < static_cast<size_t>(Dtype::kCount); ++i) {
    if (kScalarTypes[i] == static_cast<int>(type)) return static_cast<Dtype>(i);
  }
  return Dtype::kUnknown;
}

DLDataType dlDataType(Dtype dtype) noexcept { return kDataTypes[static_cast<size_t>(dtype)]; }

}  // namespace tensor_bridge
