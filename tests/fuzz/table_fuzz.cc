// libFuzzer over tables: their footer, blocks, records and keys: `make fuzz`. Not for: what the
// records say (bundle_fuzz.cc, v1_checkpoint_fuzz.cc).

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "formats/table.h"

namespace {

using tensor_bridge::TableReader;

// What a walk finds is found by its key too, unless keys are not in order.
void seekAll(const uint8_t* data, size_t size, const std::vector<std::string>& keys) {
  TableReader table(data, size);
  for (const std::string& key : keys) {
    if (table.seek(key) && table.key() != key) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr size_t kMaxKeys = 32;
  std::vector<std::string> keys;
  try {
    TableReader table(data, size);
    uint64_t values = 0;
    while (table.next()) {
      // A value is in the file, or in what was unpacked from it.
      const uint8_t* value = table.value().next();
      values += table.value().left();
      if (table.origin().packed_at < 0 && (value < data || value > data + size)) std::abort();
      if (keys.size() < kMaxKeys && table.key().size() < size) keys.push_back(table.key());
    }
    // Blocks lie one behind the other, so no byte is a value twice.
    if (values > size + table.unpackedBytes()) std::abort();
    for (const tensor_bridge::TableBlock& block : table.blocks()) {
      if (block.offset < 0 || block.offset + block.size > static_cast<int64_t>(size)) std::abort();
    }
  } catch (const tensor_bridge::FormatError&) {  // anything else is a defect
  }
  try {
    seekAll(data, size, keys);
  } catch (const tensor_bridge::FormatError&) {
  }
  return 0;
}
