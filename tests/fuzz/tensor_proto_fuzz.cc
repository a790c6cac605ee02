// libFuzzer over the values of TensorProtos: `make fuzz`. Not for: the graphs and tables that hold
// them (graph_def_fuzz.cc, v1_checkpoint_fuzz.cc).

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "core/dtype.h"
#include "formats/tensor_proto.h"

namespace {

using tensor_bridge::TensorProto;

constexpr int64_t kMaxElements = 1 << 12;
constexpr int64_t kMaxBytes = 1 << 16;

void readNumbers(const uint8_t* data, size_t size, const TensorProto& tensor) {
  const tensor_bridge::TensorExtent extent = tensor_bridge::findTensorValues(data, tensor, "");
  if (extent.offset >= 0 && extent.offset + extent.size > static_cast<int64_t>(size)) std::abort();
  if (tensor_bridge::countTensorValues(data, tensor, "") < 0) std::abort();
  std::vector<uint8_t> out(static_cast<size_t>(tensor.count) * 16);
  tensor_bridge::decodeTensorValues(data, tensor, "", out.data());
}

void readStrings(const uint8_t* data, const TensorProto& tensor) {
  const int64_t size = tensor_bridge::tensorStringsSize(data, tensor, "");
  if (size < 0) std::abort();
  if (size > kMaxBytes) return;  // callers check the size first
  std::vector<int64_t> offsets(static_cast<size_t>(tensor.count) + 1);
  std::vector<uint8_t> out(static_cast<size_t>(size));
  tensor_bridge::decodeTensorStrings(data, tensor, "", offsets.data(), out.data());
  if (offsets.back() != size) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const TensorProto tensor =
        tensor_bridge::readTensorProto(data, tensor_bridge::WireReader(data, size), "");
    if (tensor.count > kMaxElements) return 0;
    if (tensor_bridge::dtypeFromTf(tensor.dtype) == tensor_bridge::Dtype::kString) {
      readStrings(data, tensor);
    } else {
      readNumbers(data, size, tensor);
    }
  } catch (const tensor_bridge::FormatError&) {  // anything else is a defect
  }
  return 0;
}
