// libFuzzer over models of TensorFlow Lite and the values of their tensors: `make fuzz`. Not for:
// the other formats.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "formats/tflite.h"

namespace {

void readValues(const uint8_t* data, const tensor_bridge::TfliteTensor& tensor) {
  const uint8_t* begin = data + tensor.data.offset;
  const auto size = static_cast<size_t>(tensor.data.size);
  int64_t count = 1;
  for (const int64_t extent : tensor.shape) {
    if (__builtin_mul_overflow(count, extent, &count)) return;
  }
  if (tensor.bits == 2 || tensor.bits == 4) {
    std::vector<uint8_t> out(static_cast<size_t>(count));
    tensor_bridge::unpackTflite(begin, tensor.bits, count, out.data());
  } else if (tensor.bits == 0) {
    // Callers check first whether that many strings fit.
    if (count > static_cast<int64_t>(size / 4)) return;
    std::vector<int64_t> offsets(static_cast<size_t>(count) + 1);
    tensor_bridge::readTfliteStrings(begin, size, count, offsets.data());
    if (offsets.back() > tensor.data.size) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<tensor_bridge::TfliteTensor> tensors;
  try {
    if (size >= 4) tensors = tensor_bridge::readTflite(data, size);
  } catch (const tensor_bridge::FormatError&) {  // anything else is a defect
  }
  for (const tensor_bridge::TfliteTensor& tensor : tensors) {
    if (tensor.scales.size() != tensor.zero_points.size()) std::abort();
    if (tensor.storage != tensor_bridge::TfliteStorage::kPlain) continue;
    // The values must lie within the input.
    if (tensor.data.offset < 0 ||
        tensor.data.offset + tensor.data.size > static_cast<int64_t>(size)) {
      std::abort();
    }
    try {
      readValues(data, tensor);
    } catch (const tensor_bridge::FormatError&) {
    }
  }
  return 0;
}
