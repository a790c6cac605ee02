// FeatureList: the values of one tf.train.Feature (tensorflow/core/example/feature.proto), found
// and decoded as TensorFlow's own parser does. Not for: the maps of features (formats/example.h).
#ifndef TENSOR_BRIDGE_FORMATS_FEATURE_H_
#define TENSOR_BRIDGE_FORMATS_FEATURE_H_

#include <cstddef>
#include <cstdint>

namespace tensor_bridge {

/// The number of a Feature's field.
enum class FeatureType : int32_t { kNone = 0, kBytes = 1, kFloat = 2, kInt64 = 3 };

const char* featureTypeName(FeatureType type) noexcept;

/// Reads bytes forward and accepts what protobuf's CodedInputStream does, for TensorFlow parses
/// Examples with that: a varint of up to ten bytes loses the bits that do not fit, and a length
/// that reaches past the message around it ends with that message. formats/wire.h refuses both.
struct FeatureCursor {
  const uint8_t* next = nullptr;
  const uint8_t* end = nullptr;

  bool done() const noexcept { return next == end; }
  size_t left() const noexcept { return static_cast<size_t>(end - next); }

  /// Takes the byte if it comes next. Every tag of these messages has one byte.
  bool take(uint8_t byte) noexcept {
    if (next == end || *next != byte) return false;
    ++next;
    return true;
  }

  bool varint(uint64_t* out) noexcept {
    if (next != end && *next < 0x80) {
      *out = *next++;
      return true;
    }
    return longVarint(out);
  }

  bool varint32(uint32_t* out) noexcept {
    uint64_t value = 0;
    if (!varint(&value)) return false;
    *out = static_cast<uint32_t>(value);
    return true;
  }

  /// A length, and a cursor over that many bytes or those that are left. This one stays behind the
  /// length.
  bool message(FeatureCursor* out) noexcept {
    uint32_t size = 0;
    if (!varint32(&size)) return false;
    *out = {next, size < left() ? next + size : end};
    return true;
  }

  /// A length and exactly that many bytes, which are passed.
  bool string(FeatureCursor* out) noexcept {
    uint32_t size = 0;
    if (!varint32(&size) || size > left()) return false;
    *out = {next, next + size};
    next += size;
    return true;
  }

  /// Passes a field that the message does not have. Groups are refused.
  bool skipField() noexcept;

 private:
  bool longVarint(uint64_t* out) noexcept;
};

/// The values of a Feature: where they are, and how many. It refers to the record's memory.
struct FeatureList {
  const uint8_t* begin = nullptr;  // the packed numbers; else the tag of the first value
  const uint8_t* end = nullptr;
  int64_t count = 0;
  int64_t bytes = 0;  // of all strings
  bool packed = false;
  bool missing = false;  // no Feature, so defaults count
};

/// How strictly a list is read. TensorFlow has a parser of Examples and another one of
/// SequenceExamples, which differ in damaged lists.
enum class FeatureRules { kExample, kSequence };

/// Reads the list of `type` whose tag has been passed; `cursor` is left where that parser would go
/// on. False for what is no such list. Everything but the encoding of packed int64 is checked.
bool findFeatureList(FeatureCursor* cursor, FeatureType type, FeatureRules rules,
                     FeatureList* out) noexcept;

/// Writes `list.count` numbers to `out`; for a damaged varint returns false.
void decodeFloats(const FeatureList& list, float* out) noexcept;
bool decodeInt64s(const FeatureList& list, int64_t* out) noexcept;

/// Writes `list.count` strings to `out`, `list.bytes` bytes, and where each of them ends to `ends`,
/// counted from `begin`.
void decodeStrings(const FeatureList& list, int64_t begin, uint8_t* out, int64_t* ends) noexcept;

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_FORMATS_FEATURE_H_
