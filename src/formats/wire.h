// WireReader reads bytes of a file, including protobuf's encoding, and never leaves them for any
// content. Not for: the meaning of the bytes.
#ifndef TENSOR_BRIDGE_FORMATS_WIRE_H_
#define TENSOR_BRIDGE_FORMATS_WIRE_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace tensor_bridge {

/// Every read returns whether the bytes were there. A failed read does not move.
class WireReader {
 public:
  enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

  WireReader() = default;
  WireReader(const uint8_t* data, size_t size) noexcept : next_(data), end_(data + size) {}

  bool done() const noexcept { return next_ == end_; }
  size_t left() const noexcept { return static_cast<size_t>(end_ - next_); }
  const uint8_t* next() const noexcept { return next_; }

  bool varint(uint64_t* out) noexcept {
    // Nearly all have one byte. The others are read in a function that takes values, because a
    // reader whose address is passed does not stay in registers.
    if (next_ != end_ && *next_ < 0x80) {
      *out = *next_++;
      return true;
    }
    uint64_t value = 0;
    const uint8_t* behind = longVarint(next_, end_, &value);
    if (behind == nullptr) return false;
    next_ = behind;
    *out = value;
    return true;
  }

  bool varint32(uint32_t* out) noexcept {
    const uint8_t* begin = next_;
    uint64_t value = 0;
    if (!varint(&value)) return false;
    if (value > UINT32_MAX) {
      next_ = begin;
      return false;
    }
    *out = static_cast<uint32_t>(value);
    return true;
  }

  bool fixed32(uint32_t* out) noexcept { return fixed(out); }
  bool fixed64(uint64_t* out) noexcept { return fixed(out); }

  bool bytes(uint64_t size, const uint8_t** out) noexcept {
    if (size > left()) return false;
    *out = next_;
    next_ += size;
    return true;
  }

  /// A length and that many bytes.
  bool nested(WireReader* out) noexcept {
    const uint8_t* begin = next_;
    uint64_t size = 0;
    const uint8_t* data = nullptr;
    if (varint(&size) && bytes(size, &data)) {
      *out = WireReader(data, static_cast<size_t>(size));
      return true;
    }
    next_ = begin;
    return false;
  }

  /// The tag of a protobuf field.
  bool field(uint32_t* number, uint32_t* type) noexcept {
    uint32_t tag = 0;
    if (!varint32(&tag) || tag >> 3 == 0) return false;
    *number = tag >> 3;
    *type = tag & 7;
    return true;
  }

  /// Skips the value of an unknown field. Groups, which no format here has, are refused.
  bool skip(uint32_t type) noexcept {
    uint64_t number = 0;
    uint32_t half = 0;
    WireReader ignored;
    switch (type) {
      case kVarint:
        return varint(&number);
      case kFixed64:
        return fixed64(&number);
      case kBytes:
        return nested(&ignored);
      case kFixed32:
        return fixed32(&half);
      default:
        return false;
    }
  }

 private:
  // Returns the byte after it, or null if there is none.
  __attribute__((noinline)) static const uint8_t* longVarint(const uint8_t* p, const uint8_t* end,
                                                             uint64_t* out) noexcept {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (p == end) return nullptr;
      const uint8_t byte = *p++;
      // The tenth byte holds the last bit of 64.
      if (shift == 63 && byte > 1) return nullptr;
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if ((byte & 0x80) == 0) {
        *out = value;
        return p;
      }
    }
    return nullptr;
  }

  // Little-endian, like every machine for which this library is built.
  template <typename T>
  bool fixed(T* out) noexcept {
    if (left() < sizeof(T)) return false;
    std::memcpy(out, next_, sizeof(T));
    next_ += sizeof(T);
    return true;
  }

  const uint8_t* next_ = nullptr;
  const uint8_t* end_ = nullptr;
};

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_FORMATS_WIRE_H_
