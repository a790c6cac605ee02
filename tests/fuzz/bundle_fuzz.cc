// libFuzzer over the readers of checkpoint indices and of strings: `make fuzz`. The first byte of
// an input chooses the reader. Not for: the other formats; h5py and Python read those.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "formats/bundle.h"

namespace {

void readStrings(const uint8_t* data, size_t size) {
  if (size == 0) return;
  const int64_t count = data[0] % 64;
  std::vector<int64_t> offsets(static_cast<size_t>(count) + 1);
  const int64_t begin = tensor_bridge::readBundleStrings(data + 1, size - 1, count, offsets.data());
  // The strings must lie within the input.
  if (begin < 4 || begin + offsets.back() != static_cast<int64_t>(size) - 1) std::abort();
}

void readIndex(const uint8_t* data, size_t size) {
  const tensor_bridge::BundleIndex index = tensor_bridge::readBundleIndex(data, size);
  for (const tensor_bridge::BundleEntry& entry : index.entries) {
    if (entry.shard >= index.num_shards || entry.offset < 0 || entry.size < 0) std::abort();
    if (entry.offset > INT64_MAX - entry.size) std::abort();
  }
  for (const tensor_bridge::TableBlock& block : index.blocks) {
    if (block.offset < 0 || block.offset + block.size > static_cast<int64_t>(size)) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  try {
    if (data[0] == 's') {
      readStrings(data + 1, size - 1);
    } else {
      readIndex(data + 1, size - 1);
    }
  } catch (const tensor_bridge::FormatError&) {  // anything else is a defect
  }
  return 0;
}
