// Protobuf messages made byte by byte. Not for: reading them (formats/wire.h).
#ifndef TENSOR_BRIDGE_TESTS_SUPPORT_PROTOBUF_BYTES_H_
#define TENSOR_BRIDGE_TESTS_SUPPORT_PROTOBUF_BYTES_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace tensor_bridge::testing {

inline std::string varint(uint64_t value) {
  std::string out;
  for (; value > 0x7f; value >>= 7) out.push_back(static_cast<char>((value & 0x7f) | 0x80));
  out.push_back(static_cast<char>(value));
  return out;
}

inline std::string number(uint32_t field, uint64_t value) {
  return varint(field << 3) + varint(value);
}

inline std::string bytes(uint32_t field, const std::string& value) {
  return varint(field << 3 | 2) + varint(value.size()) + value;
}

inline std::string fixed32(uint32_t value) {
  std::string out(4, '\0');
  std::memcpy(out.data(), &value, 4);
  return out;
}

inline std::string shapeOf(const std::vector<uint64_t>& sizes) {
  std::string out;
  for (const uint64_t size : sizes) out += bytes(2, number(1, size));
  return out;
}

}  // namespace tensor_bridge::testing

#endif  // TENSOR_BRIDGE_TESTS_SUPPORT_PROTOBUF_BYTES_H_
