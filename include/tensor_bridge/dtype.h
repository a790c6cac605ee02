// The dtype table in C++: one row for each dtype, read from the library.
// Not for: changing it; the table is src/core/dtype_table.def.
#ifndef TENSOR_BRIDGE_DTYPE_H_
#define TENSOR_BRIDGE_DTYPE_H_

#include <vector>

#include "tensor_bridge/c_api.h"

namespace tensor_bridge {

using DtypeRow = tb_dtype_row;

/// Returns every row of the dtype table, in its order. The strings are static.
inline std::vector<DtypeRow> dtypeTable() {
  std::vector<DtypeRow> rows;
  DtypeRow row;
  row.struct_size = sizeof(row);
  for (int32_t i = 0; tb_dtype_row_get(i, &row) == TB_OK; ++i) rows.push_back(row);
  return rows;
}

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_DTYPE_H_
