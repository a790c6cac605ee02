// libFuzzer over files of records: `make fuzz`. The first byte says in which pieces the file is
// read, and whether damage is skipped. Not for: the contents of records (example_fuzz.cc).

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "formats/tfrecord.h"

using tensor_bridge::kRecordFooter;
using tensor_bridge::kRecordHeader;
using tensor_bridge::RecordFault;
using tensor_bridge::RecordScan;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* input, size_t input_size) {
  if (input_size == 0) return 0;
  const uint8_t* file = input + 1;
  const auto size = static_cast<int64_t>(input_size - 1);
  RecordScan scan;
  scan.skip = (input[0] & 1) != 0;
  scan.verify = (input[0] & 2) != 0;
  scan.budget = 1 << 16;
  // At most about 64 pieces, because each of them is copied.
  const int64_t piece = 1 + (input[0] >> 2) + size / 64;
  int64_t begins[3];
  int64_t sizes[3];
  int64_t dropped = 0;  // bytes before the memory
  int64_t end = 0;
  int64_t last = 0;
  int64_t delivered = 0;
  while (true) {
    end = end + piece > size ? size : end + piece;
    scan.final = end == size;
    // A separate block, so that AddressSanitizer sees reads outside of it.
    const std::vector<uint8_t> memory(file + dropped, file + end);
    const auto left = static_cast<int64_t>(memory.size());
    const int64_t count = scan.scan(memory.data(), left, 3, begins, sizes);
    if (count < 0 || count > 3 || scan.next < 0 || scan.next > left) std::abort();
    for (int64_t i = 0; i < count; ++i) {
      // Records lie within the memory, in order and without overlap.
      const int64_t begin = dropped + begins[i];
      if (begin - kRecordHeader < last || sizes[i] < 0) std::abort();
      last = begin + sizes[i] + kRecordFooter;
      if (last > end) std::abort();
      delivered += sizes[i] + kRecordHeader + kRecordFooter;
    }
    dropped += scan.next;
    scan.next = 0;
    if (!scan.skip && scan.fault != RecordFault::kNone) return 0;
    if (scan.final && count < 3) break;
  }
  // Each byte is delivered or skipped.
  if (dropped != size || delivered + scan.skipped_bytes != size) std::abort();
  return 0;
}
