// FeatureList: the values of one tf.train.Feature (tensorflow/core/example/feature.proto), found
// and decoded as by TensorFlow's own parser. Not for: the maps of features (formats/example.h).
#ifndef TENSOR_BRIDGE_FORMATS_FEATURE_H_
#define TENSOR_BRIDGE_FORMATS_FEATURE_H_

#include <cstddef>
#include <cstdint>

namespace tensor_bridge {

/// The field number of a list in a Feature.
enum class FeatureType : int32_t { kNone = 0, kBytes = 1, kFloat = 2, kInt64 = 3 };

const char* featureTypeName(FeatureType type) noexcept;

/// Reads bytes forward and accepts the same input as protobuf's CodedInputStream, with which
/// TensorFlow parses Examples: a varint of up to ten bytes loses the bits that do not fit, and a
/// length that reaches past the enclosing message is cut off at its end. formats/wire.h refuses
/// both.
struct FeatureCursor {
  const uint8_t* next = nullptr;
  const uint8_t* end = nullptr;

  bool done() const noexcept { return next == end; }
  size_t left() const noexcept { return static_cast<size_t>(end - next); }

  /// Consumes the byte if it comes next. Every tag of these messages has one byte.
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

  /// A varint of at most 8 bytes, if at least 8 bytes are left. Otherwise false, nothing consumed.
  bool shortVarint(uint64_t* out) noexcept;

  bool varint32(uint32_t* out) noexcept {
    uint64_t value = 0;
    if (!varint(&value)) return false;
    *out = static_cast<uint32_t>(value);
    return true;
  }

  /// Reads a length and sets `out` to that many of the following bytes, or to all that are left.
  /// This cursor moves past the length only.
  bool message(FeatureCursor* out) noexcept {
    uint32_t size = 0;
    if (!varint32(&size)) return false;
    *out = {next, size < left() ? next + size : end};
    return true;
  }

  /// Reads a length and exactly that many bytes, and moves past them.
  bool string(FeatureCursor* out) noexcept {
    uint32_t size = 0;
    if (!varint32(&size) || size > left()) return false;
    *out = {next, next + size};
    next += size;
    return true;
  }

  /// Skips an unknown field. Groups are refused.
  bool skipField() noexcept;

 private:
  bool longVarint(uint64_t* out) noexcept;
};

/// The place and the number of a Feature's values. It refers to the record's memory.
struct FeatureList {
  const uint8_t* begin = nullptr;  // packed: the first number; else the tag of the first value
  const uint8_t* end = nullptr;
  int64_t count = 0;
  int64_t bytes = 0;  // of all strings
  bool packed = false;
  bool missing = false;  // no Feature, so the defaults are used
};

/// Which of TensorFlow's two parsers to follow. The parser of Examples and the parser of
/// SequenceExamples differ in damaged lists.
enum class FeatureRules { kExample, kSequence };

/// Reads the list of `type` after its tag. `cursor` is left where TensorFlow's parser would
/// continue. False if it is not such a list. Checks everything except the encoding of packed int64.
bool findFeatureList(FeatureCursor* cursor, FeatureType type, FeatureRules rules,
                     FeatureList* out) noexcept;

/// Writes `list.count` numbers to `out`. False for a damaged varint.
void decodeFloats(const FeatureList& list, float* out) noexcept;
bool decodeInt64s(const FeatureList& list, int64_t* out) noexcept;

/// Writes the `list.bytes` bytes of `list.count` strings to `out`, and each string's end to `ends`.
/// The first string begins at `begin`.
void decodeStrings(const FeatureList& list, int64_t begin, uint8_t* out, int64_t* ends) noexcept;

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_FORMATS_FEATURE_H_
