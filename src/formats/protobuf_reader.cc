#include "formats/protobuf_reader.h"

#include <cstdarg>
#include <cstdio>

#include "core/error.h"
#include "core/tensor_ref.h"

namespace tensor_bridge {

void ProtobufReader::fail(const uint8_t* place, const char* format, ...) const {
  char text[512];
  va_list args;
  va_start(args, format);
  std::vsnprintf(text, sizeof(text), format, args);
  va_end(args);
  throw FormatError(Origin{data_, packed_at_}.offsetOf(place), entry_, text);
}

void ProtobufReader::failUnsupported(const uint8_t* place, const std::string& message) const {
  throw FormatError(Origin{data_, packed_at_}.offsetOf(place), entry_, message,
                    ErrorCode::kUnsupportedFile);
}

void ProtobufReader::checkVersion(WireReader message, uint64_t known) const {
  uint64_t needed = 0;  // min_consumer of tensorflow/core/framework/versions.proto
  eachField(message, "versions", [&](uint32_t number, uint32_t type, WireReader* field) {
    if (number == 2 && type == WireReader::kVarint) return field->varint(&needed);
    return field->skip(type);
  });
  if (needed > known) {
    failUnsupported(
        message.next(),
        formatted("expected a checkpoint for readers of version %llu, got one for %llu; a newer "
                  "tensor_bridge may read it",
                  static_cast<unsigned long long>(known), static_cast<unsigned long long>(needed)));
  }
}

void ProtobufReader::readShape(WireReader message, std::vector<int64_t>* shape) const {
  eachField(message, "a shape", [&](uint32_t number, uint32_t type, WireReader* field) {
    if (number == 3 && type == WireReader::kVarint) {
      const uint8_t* place = field->next();
      uint64_t unknown = 0;
      if (!field->varint(&unknown)) return false;
      if (unknown != 0) fail(place, "expected a shape, got one of unknown rank");
      return true;
    }
    if (number != 2 || type != WireReader::kBytes) return field->skip(type);
    WireReader dim;
    if (!field->nested(&dim)) return false;
    uint64_t size = 0;
    eachField(dim, "a dimension", [&](uint32_t part, uint32_t part_type, WireReader* value) {
      return part == 1 && part_type == WireReader::kVarint ? value->varint(&size)
                                                           : value->skip(part_type);
    });
    if (size > INT64_MAX || shape->size() == kMaxDims) {
      fail(dim.next(), "expected at most %d dimensions of at least 0, got size %lld", kMaxDims,
           static_cast<long long>(size));
    }
    shape->push_back(static_cast<int64_t>(size));
    return true;
  });
  static_cast<void>(elements(*shape, message.next()));
}

void ProtobufReader::readSlice(WireReader message, const std::vector<int64_t>& shape,
                               std::vector<int64_t>* slices) const {
  size_t axis = 0;
  const uint8_t* place = message.next();
  eachField(message, "a slice", [&](uint32_t number, uint32_t type, WireReader* field) {
    if (number != 1 || type != WireReader::kBytes) return field->skip(type);
    WireReader extent;
    if (!field->nested(&extent)) return false;
    uint64_t start = 0;
    uint64_t length = 0;
    bool whole = true;
    eachField(extent, "an extent", [&](uint32_t part, uint32_t part_type, WireReader* value) {
      if (part == 1 && part_type == WireReader::kVarint) return value->varint(&start);
      if (part == 2 && part_type == WireReader::kVarint) {
        if (!value->varint(&length)) return false;
        whole = length == UINT64_MAX;  // -1
        return true;
      }
      return value->skip(part_type);
    });
    const uint64_t bound = axis < shape.size() ? static_cast<uint64_t>(shape[axis]) : 0;
    if (axis == shape.size() || start > bound || (!whole && length > bound - start) ||
        (whole && start != 0)) {
      fail(extent.next(), "expected a slice inside the shape, got %lld from %lld on axis %zu",
           whole ? -1LL : static_cast<long long>(length), static_cast<long long>(start), axis);
    }
    slices->push_back(static_cast<int64_t>(start));
    slices->push_back(whole ? -1 : static_cast<int64_t>(length));
    ++axis;
    return true;
  });
  if (axis != shape.size()) {
    fail(place, "expected a slice with %zu extents, got %zu", shape.size(), axis);
  }
}

int64_t ProtobufReader::elements(const std::vector<int64_t>& shape, const uint8_t* place) const {
  int64_t count = 1;
  bool empty = false;
  for (const int64_t size : shape) {
    // Zero sizes are left out of the product: an empty tensor's strides must not overflow either.
    empty |= size == 0;
    if (size != 0 && (__builtin_mul_overflow(count, size, &count) || count > INT64_MAX / 64)) {
      fail(place, "expected a shape that memory can hold, got one with too many elements");
    }
  }
  return empty ? 0 : count;
}

}  // namespace tensor_bridge
