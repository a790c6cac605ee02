#include "formats/feature.h"

#include <algorithm>
#include <cstring>

#include "formats/wire.h"

namespace tensor_bridge {
namespace {

// The tags of `value` in the three lists.
constexpr uint8_t kDelimited = 1 << 3 | WireReader::kBytes;
constexpr uint8_t kFixed32 = 1 << 3 | WireReader::kFixed32;
constexpr uint8_t kVarint = 1 << 3 | WireReader::kVarint;

bool findStrings(FeatureCursor* list, FeatureList* out) noexcept {
  out->begin = list->next;
  while (!list->done()) {
    FeatureCursor string;
    if (!list->take(kDelimited) || !list->string(&string)) return false;
    ++out->count;
    out->bytes += static_cast<int64_t>(string.left());
  }
  out->end = list->next;
  return true;
}

bool findPackedFloats(FeatureCursor* list, FeatureRules rules, FeatureList* out) noexcept {
  uint32_t size = 0;
  if (!list->varint32(&size)) return false;
  size_t there = size;
  if (rules == FeatureRules::kSequence) {
    // At most to the end of the list, and only whole floats.
    there = std::min<size_t>(size, list->left());
    if (there % sizeof(float) != 0) return false;
  }
  // The parser of Examples ignores an incomplete float at the end.
  there -= there % sizeof(float);
  if (there > list->left()) return false;
  out->begin = list->next;
  out->count = static_cast<int64_t>(there / sizeof(float));
  list->next += there;
  out->end = list->next;
  return true;
}

bool findFloats(FeatureCursor* list, FeatureRules rules, FeatureList* out) noexcept {
  if (list->take(kDelimited)) {
    out->packed = true;
    return findPackedFloats(list, rules, out);
  }
  constexpr size_t kUnit = 1 + sizeof(float);
  out->begin = list->next;
  for (; !list->done(); list->next += kUnit) {
    if (list->left() < kUnit || *list->next != kFixed32) return false;
    ++out->count;
  }
  out->end = list->next;
  return true;
}

bool findInt64s(FeatureCursor* list, FeatureList* out) noexcept {
  if (list->take(kDelimited)) {
    FeatureCursor packed;
    if (!list->message(&packed)) return false;
    out->packed = true;
    out->begin = packed.next;
    out->end = packed.end;
    // The last byte of each varint is below 128. Decoding finds varints that are too long.
    out->count = std::count_if(packed.next, packed.end, [](uint8_t b) { return b < 0x80; });
    list->next = packed.end;
    return packed.done() || packed.end[-1] < 0x80;
  }
  out->begin = list->next;
  while (!list->done()) {
    uint64_t value = 0;
    if (!list->take(kVarint) || !list->varint(&value)) return false;
    ++out->count;
  }
  out->end = list->next;
  return true;
}

}  // namespace

const char* featureTypeName(FeatureType type) noexcept {
  switch (type) {
    case FeatureType::kBytes:
      return "bytes";
    case FeatureType::kFloat:
      return "float32";
    case FeatureType::kInt64:
      return "int64";
    default:
      return "nothing";
  }
}

bool FeatureCursor::longVarint(uint64_t* out) noexcept {
  uint64_t value = 0;
  const uint8_t* p = next;
  for (int shift = 0; shift < 70; shift += 7) {
    if (p == end) return false;
    const uint8_t byte = *p++;
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) {
      next = p;
      *out = value;
      return true;
    }
  }
  return false;
}

// Has no branch on the length: processors predict it badly where lengths differ.
bool FeatureCursor::shortVarint(uint64_t* out) noexcept {
  constexpr uint64_t kMore = 0x8080808080808080;
  if (left() < sizeof(uint64_t)) return false;
  uint64_t value = 0;
  std::memcpy(&value, next, sizeof value);
  const uint64_t ends = ~value & kMore;
  if (ends == 0) return false;
  // Keep the bytes up to the first one whose continuation bit is clear.
  value &= ends ^ (ends - 1);
  value &= ~kMore;
  value = (value & 0x007f007f007f007f) | (value & 0x7f007f007f007f00) >> 1;
  value = (value & 0x00003fff00003fff) | (value & 0x3fff00003fff0000) >> 2;
  value = (value & 0x000000000fffffff) | (value & 0x0fffffff00000000) >> 4;
  next += __builtin_ctzll(ends) / 8 + 1;
  *out = value;
  return true;
}

bool FeatureCursor::skipField() noexcept {
  uint32_t tag = 0;
  uint64_t value = 0;
  uint32_t size = 0;
  if (!varint32(&tag)) return false;
  switch (tag & 7) {
    case WireReader::kVarint:
      return varint(&value);
    case WireReader::kFixed64:
      size = 8;
      break;
    case WireReader::kFixed32:
      size = 4;
      break;
    case WireReader::kBytes:
      if (!varint32(&size)) return false;
      // protobuf's Skip() takes an int: it does nothing with a negative one, and stops at the end
      // with one that is too large.
      if (size > INT32_MAX) return true;
      next += std::min<size_t>(size, left());
      return true;
    default:
      return false;
  }
  if (size > left()) return false;
  next += size;
  return true;
}

bool findFeatureList(FeatureCursor* cursor, FeatureType type, FeatureRules rules,
                     FeatureList* out) noexcept {
  FeatureCursor list;
  uint32_t size = 0;
  if (!cursor->varint32(&size)) return false;
  list = {cursor->next, size < cursor->left() ? cursor->next + size : cursor->end};
  // The parser of SequenceExamples refuses a list of numbers that has a length but no bytes.
  const bool numbers = type != FeatureType::kBytes;
  if (list.done()) return !(rules == FeatureRules::kSequence && numbers && size > 0);
  bool found = false;
  if (type == FeatureType::kBytes) {
    found = findStrings(&list, out);
  } else if (type == FeatureType::kFloat) {
    found = findFloats(&list, rules, out);
  } else {
    found = findInt64s(&list, out);
  }
  cursor->next = list.next;
  return found;
}

void decodeFloats(const FeatureList& list, float* out) noexcept {
  if (list.packed) {
    if (list.count != 0) std::memcpy(out, list.begin, list.count * sizeof(float));
    return;
  }
  const uint8_t* p = list.begin;
  for (int64_t i = 0; i < list.count; ++i, p += 1 + sizeof(float)) {
    std::memcpy(out + i, p + 1, sizeof(float));
  }
}

bool decodeInt64s(const FeatureList& list, int64_t* out) noexcept {
  FeatureCursor cursor{list.begin, list.end};
  for (int64_t i = 0; i < list.count; ++i) {
    uint64_t value = 0;
    if (!list.packed) ++cursor.next;  // the tag
    if (!cursor.shortVarint(&value) && !cursor.varint(&value)) return false;
    out[i] = static_cast<int64_t>(value);
  }
  return true;
}

void decodeStrings(const FeatureList& list, int64_t begin, uint8_t* out, int64_t* ends) noexcept {
  FeatureCursor cursor{list.begin, list.end};
  for (int64_t i = 0; i < list.count; ++i) {
    FeatureCursor string;
    ++cursor.next;  // the tag
    // Cannot fail: findFeatureList() has checked it.
    if (!cursor.string(&string)) return;
    if (!string.done()) std::memcpy(out, string.next, string.left());
    out += string.left();
    begin += static_cast<int64_t>(string.left());
    ends[i] = begin;
  }
}

}  // namespace tensor_bridge
