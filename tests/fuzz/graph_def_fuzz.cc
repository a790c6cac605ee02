// libFuzzer over the constants of graphs, and the values of each: `make fuzz`. Not for: the other
// formats.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "formats/graph_def.h"

namespace {

constexpr int64_t kMaxBytes = 1 << 16;

void readValues(const uint8_t* data, const tensor_bridge::TensorProto& tensor) {
  if (tensor.count > kMaxBytes / 16) return;  // callers check the size first
  std::vector<uint8_t> out(static_cast<size_t>(tensor.count) * 16);
  tensor_bridge::decodeTensorValues(data, tensor, "", out.data());
}

void readStrings(const uint8_t* data, const tensor_bridge::TensorProto& tensor) {
  const int64_t size = tensor_bridge::tensorStringsSize(data, tensor, "");
  if (size > kMaxBytes || tensor.count > kMaxBytes / 16) return;
  std::vector<int64_t> offsets(static_cast<size_t>(tensor.count) + 1);
  std::vector<uint8_t> out(static_cast<size_t>(size));
  tensor_bridge::decodeTensorStrings(data, tensor, "", offsets.data(), out.data());
  if (offsets.back() != size) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (!tensor_bridge::isGraph(data, size)) return 0;
  std::vector<tensor_bridge::GraphConstant> constants;
  try {
    constants = tensor_bridge::readGraphConstants(data, size);
  } catch (const tensor_bridge::FormatError&) {  // anything else is a defect
  }
  for (const tensor_bridge::GraphConstant& constant : constants) {
    // The values must lie within the input.
    const tensor_bridge::TensorExtent extent = constant.extent;
    if (extent.offset >= 0 && extent.offset + extent.size > static_cast<int64_t>(size)) {
      std::abort();
    }
    try {
      readStrings(data, constant.tensor);
      readValues(data, constant.tensor);
    } catch (const tensor_bridge::FormatError&) {
    }
  }
  return 0;
}
