// libFuzzer over protobuf's encoding, and over shapes and slices, which several messages have:
// `make fuzz`. The first byte is the number of axes of a slice. Not for: whole messages
// (tensor_proto_fuzz.cc, graph_def_fuzz.cc).

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "formats/protobuf_reader.h"

namespace {

using tensor_bridge::WireReader;

class Reader : private tensor_bridge::ProtobufReader {
 public:
  using ProtobufReader::ProtobufReader;

  // Reads nested messages. Each must lie within the message around it.
  size_t walk(WireReader message, int depth) const {
    size_t fields = 0;
    const uint8_t* end = message.next() + message.left();
    eachField(message, "a message", [&](uint32_t, uint32_t type, WireReader* field) {
      ++fields;
      if (type != WireReader::kBytes) return field->skip(type);
      WireReader nested;
      if (!field->nested(&nested)) return false;
      if (nested.next() + nested.left() > end) std::abort();
      if (depth > 0) fields += tryWalk(nested, depth - 1);
      return true;
    });
    return fields;
  }

  void shapes(WireReader message, size_t axes) const {
    std::vector<int64_t> shape;
    readShape(message, &shape);
    if (shape.size() > 254) std::abort();
    for (const int64_t size : shape) {
      if (size < 0) std::abort();
    }
    shape.resize(axes, 7);
    std::vector<int64_t> slices;
    readSlice(message, shape, &slices);
    if (slices.size() != 2 * axes) std::abort();
    for (size_t axis = 0; axis < axes; ++axis) {
      const int64_t start = slices[2 * axis];
      const int64_t length = slices[2 * axis + 1];
      if (start < 0 || length < -1 || (length >= 0 && start + length > shape[axis])) std::abort();
    }
  }

 private:
  // The bytes may be something else than a message.
  size_t tryWalk(WireReader message, int depth) const {
    try {
      return walk(message, depth);
    } catch (const tensor_bridge::FormatError& e) {
      if (e.offset() < 0) std::abort();
      return 0;
    }
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const WireReader message(data + 1, size - 1);
  const Reader reader(data + 1, "");
  try {
    if (reader.walk(message, 4) > size) std::abort();
  } catch (const tensor_bridge::FormatError&) {  // anything else is a defect
  }
  try {
    reader.shapes(message, data[0] % 8);
  } catch (const tensor_bridge::FormatError&) {
  }
  return 0;
}
