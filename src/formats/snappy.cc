#include "formats/snappy.h"

#include <cstring>

#include "formats/wire.h"

namespace tensor_bridge {
namespace {

// The densest element: 64 bytes from three, a copy with an offset of two bytes.
constexpr uint64_t kMostBytes = 64;
constexpr uint64_t kFromBytes = 3;

// A little-endian number of `size` bytes, 1 to 4.
bool readNumber(WireReader* reader, size_t size, uint32_t* out) noexcept {
  const uint8_t* bytes = nullptr;
  if (!reader->bytes(size, &bytes)) return false;
  *out = 0;
  std::memcpy(out, bytes, size);
  return true;
}

struct Element {
  bool literal;
  uint64_t length;
  uint32_t offset;  // how far back a copy begins
};

// The element of `tag`, with the bytes after the tag, except those of a literal.
bool readElement(WireReader* reader, uint32_t tag, Element* out) noexcept {
  const uint32_t upper = tag >> 2;
  uint32_t number = 0;
  switch (tag & 3) {
    case 0:
      // From 60 on it says how many bytes the length has.
      if (upper >= 60 && !readNumber(reader, upper - 59, &number)) return false;
      *out = {true, uint64_t{upper < 60 ? upper : number} + 1, 0};
      return true;
    case 1:
      if (!readNumber(reader, 1, &number)) return false;
      *out = {false, uint64_t{upper & 7} + 4, (tag >> 5 << 8) | number};
      return true;
    default:
      if (!readNumber(reader, (tag & 3) == 2 ? 2 : 4, &number)) return false;
      *out = {false, uint64_t{upper} + 1, number};
      return true;
  }
}

// A copy may overlap its own output; then it repeats it.
void copyBack(uint8_t* to, uint32_t offset, uint64_t length) noexcept {
  const uint8_t* from = to - offset;
  if (offset >= length) {
    std::memcpy(to, from, length);
  } else {
    for (uint64_t i = 0; i < length; ++i) to[i] = from[i];
  }
}

}  // namespace

bool snappyLength(const uint8_t* data, size_t size, size_t* length) noexcept {
  WireReader reader(data, size);
  uint32_t declared = 0;
  if (!reader.varint32(&declared)) return false;
  if (declared * kFromBytes > reader.left() * kMostBytes) return false;
  *length = declared;
  return true;
}

bool snappyUnpack(const uint8_t* data, size_t size, uint8_t* out, size_t length) noexcept {
  WireReader reader(data, size);
  uint32_t declared = 0;
  if (!reader.varint32(&declared) || declared != length) return false;
  size_t done = 0;
  while (!reader.done()) {
    uint32_t tag = 0;
    Element element;
    if (!readNumber(&reader, 1, &tag) || !readElement(&reader, tag, &element)) return false;
    if (element.length > length - done) return false;
    if (element.literal) {
      const uint8_t* bytes = nullptr;
      if (!reader.bytes(element.length, &bytes)) return false;
      std::memcpy(out + done, bytes, element.length);
    } else {
      if (element.offset == 0 || element.offset > done) return false;
      copyBack(out + done, element.offset, element.length);
    }
    done += element.length;
  }
  return done == length;
}

}  // namespace tensor_bridge
