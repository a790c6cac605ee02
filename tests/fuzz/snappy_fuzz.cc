// libFuzzer over the decoder of Snappy: `make fuzz`. Not for: the blocks that are compressed
// (bundle_fuzz.cc).

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "formats/snappy.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  size_t length = 0;
  if (!tensor_bridge::snappyLength(data, size, &length)) return 0;
  if (length > size * 64 / 3) std::abort();
  std::vector<uint8_t> out(length);
  static_cast<void>(tensor_bridge::snappyUnpack(data, size, out.data(), length));
  return 0;
}
