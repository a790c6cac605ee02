#include "core/dtype.h"

#include <array>

namespace tensor_bridge {

constexpr size_t kRows = static_cast<size_t>(Dtype::kCount);

constexpr DtypeInfo detail::kDtypeTable[] = {
#define TB_DTYPE(id, name, tf, torch, torch_name, code, bits, size, kind, nearest, reason)     \
  {name,           torch_name, reason, tf, torch, size, DtypeKind::k##kind, Dtype::k##nearest, \
   {code, bits, 1}},
#include "core/dtype_table.def"
#undef TB_DTYPE
};
static_assert(sizeof(detail::kDtypeTable) / sizeof(detail::kDtypeTable[0]) == kRows);

namespace {

// One reverse table per framework, derived from the rows.
template <typename Number>
constexpr std::array<Dtype, 64> reversed(Number number) {
  std::array<Dtype, 64> result{};
  for (auto& entry : result) entry = Dtype::kUnknown;
  for (size_t i = 0; i < kRows; ++i) {
    const int n = number(detail::kDtypeTable[i]);
    if (n >= 0) result[static_cast<size_t>(n)] = static_cast<Dtype>(i);
  }
  return result;
}

constexpr auto kFromTf =
    reversed([](const DtypeInfo& row) { return row.tf_enum > 0 ? row.tf_enum : -1; });
constexpr auto kFromTorch = reversed([](const DtypeInfo& row) { return int{row.torch_scalar}; });

}  // namespace

Dtype dtypeFromTf(int tf_enum) noexcept {
  return static_cast<unsigned>(tf_enum) < kFromTf.size() ? kFromTf[static_cast<size_t>(tf_enum)]
                                                         : Dtype::kUnknown;
}

Dtype dtypeFromTorch(int torch_scalar) noexcept {
  return static_cast<unsigned>(torch_scalar) < kFromTorch.size()
             ? kFromTorch[static_cast<size_t>(torch_scalar)]
             : Dtype::kUnknown;
}

const char* dtypeKindName(DtypeKind kind) noexcept {
  switch (kind) {
    case DtypeKind::kShared:
      return "shared";
    case DtypeKind::kViewed:
      return "viewed";
    case DtypeKind::kConverted:
      return "converted";
    case DtypeKind::kQuantized:
      return "quantized";
    case DtypeKind::kRefused:
      return "refused";
    case DtypeKind::kTorchOnly:
      return "torch only";
  }
  return "unknown";
}

}  // namespace tensor_bridge
