// libFuzzer over the footer, blocks, records and keys of tables: `make fuzz`. Not for: the contents
// of records (bundle_fuzz.cc, v1_checkpoint_fuzz.cc).

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "formats/table.h"

using tensor_bridge::TableReader;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    TableReader table(data, size);
    uint64_t values = 0;
    while (table.next()) {
      // A value is in the file, or in a block that was unpacked from it.
      const uint8_t* value = table.value().next();
      values += table.value().left();
      if (table.origin().packed_at < 0 && (value < data || value > data + size)) std::abort();
    }
    // Blocks do not overlap, so no byte belongs to two values.
    if (values > size + table.unpackedBytes()) std::abort();
    for (const tensor_bridge::TableBlock& block : table.blocks()) {
      if (block.offset < 0 || block.offset + block.size > static_cast<int64_t>(size)) std::abort();
    }
  } catch (const tensor_bridge::FormatError&) {  // anything else is a defect
  }
  return 0;
}
