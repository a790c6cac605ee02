// The handles of Examples that several files of this folder use. Not for: their functions.
#ifndef TENSOR_BRIDGE_C_API_EXAMPLE_HANDLES_H_
#define TENSOR_BRIDGE_C_API_EXAMPLE_HANDLES_H_

#include <atomic>
#include <memory>
#include <mutex>

#include "c_api/private_api.h"
#include "formats/example.h"
#include "formats/parsed_batch.h"

struct tb_example_spec {
  tensor_bridge::ExampleSpec spec;
  // For tb_example_parse(): one call reuses the memory of the call before. Nobody waits for the
  // mutex: in a forked child, a thread of the parent may have held it.
  mutable std::mutex mutex{};
  mutable std::unique_ptr<tensor_bridge::ExampleBatch> scratch{};
  std::shared_ptr<tensor_bridge::BlockPool> pool = std::make_shared<tensor_bridge::BlockPool>();
};

struct tb_parsed_batch {
  std::unique_ptr<tensor_bridge::ParsedBatch> batch;
  std::atomic<int64_t> references{1};
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
