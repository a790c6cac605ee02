// Handles of Examples that two files of this folder share. Not for: their functions.
#ifndef TENSOR_BRIDGE_C_API_EXAMPLE_HANDLES_H_
#define TENSOR_BRIDGE_C_API_EXAMPLE_HANDLES_H_

#include "c_api/private_api.h"
#include "formats/example.h"

struct tb_example_spec {
  tensor_bridge::ExampleSpec spec;
};

namespace tensor_bridge {

inline void fillSize(const ColumnSize& size, tb_example_size* out) {
  out->values = size.values;
  out->bytes = size.bytes;
  out->rows = size.rows;
  out->max_rows = size.max_rows;
  out->max_values = size.max_values;
}

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_C_API_EXAMPLE_HANDLES_H_
