// libFuzzer over the reader of checkpoints of the first format: `make fuzz`. The first two bytes
// choose the dtype and the number of values with which slices are read. Not for: tables
// (bundle_fuzz.cc).

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "formats/v1_checkpoint.h"

namespace {

using tensor_bridge::TableReader;
using tensor_bridge::V1Records;
using tensor_bridge::V1Slice;

// A record that iteration finds is also found by its key.
void find(V1Records* records, const uint8_t* data, size_t size, const TableReader& table) {
  const V1Records::Record found = records->find(data, size, table.key());
  const size_t length = table.value().left();
  if (found.value.left() != length) std::abort();
  if (length != 0 && std::memcmp(found.value.next(), table.value().next(), length) != 0) {
    std::abort();
  }
}

void readSlice(V1Records* records, const uint8_t* data, size_t size, const std::string& key,
               int32_t dtype, int64_t count) {
  const V1Slice slice(records, data, size, key, dtype, count);
  const tensor_bridge::TensorExtent extent = slice.extent();
  if (extent.offset >= 0 && extent.offset + extent.size > static_cast<int64_t>(size)) std::abort();
  tensor_bridge::TensorProto tensor;
  tensor.dtype = dtype;
  tensor.count = count;
  tensor.message = slice.message();
  const uint8_t* begin = tensor.message.next();
  if (tensor_bridge::dtypeFromTf(dtype) == tensor_bridge::Dtype::kString) {
    std::vector<int64_t> offsets(static_cast<size_t>(count) + 1);
    std::vector<uint8_t> bytes(
        static_cast<size_t>(tensor_bridge::tensorStringsSize(begin, tensor, "")));
    tensor_bridge::decodeTensorStrings(begin, tensor, "", offsets.data(), bytes.data());
    if (offsets.back() != static_cast<int64_t>(bytes.size())) std::abort();
    return;
  }
  std::vector<uint8_t> out(static_cast<size_t>(count) * 16);
  tensor_bridge::decodeTensorValues(begin, tensor, "", out.data());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const int32_t dtype = data[0] % 32;
  const int64_t count = data[1] % 32;
  try {
    tensor_bridge::readV1Index(data + 2, size - 2);
    TableReader table(data + 2, size - 2);
    V1Records records;
    // More look-ups than a packed block needs before it is kept unpacked.
    for (int i = 0; i < 12 && table.next(); ++i) {
      try {
        find(&records, data + 2, size - 2, table);
        readSlice(&records, data + 2, size - 2, table.key(), dtype, count);
      } catch (const tensor_bridge::FormatError&) {  // other records may be readable
      }
    }
  } catch (const tensor_bridge::FormatError&) {  // anything else is a defect
  }
  return 0;
}
