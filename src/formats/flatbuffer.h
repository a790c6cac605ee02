// FlatBuffer reads tables, vectors and strings of a flatbuffer
// (https://flatbuffers.dev/internals/). It checks every offset before it follows it. Not for: the
// meaning of the tables.
#ifndef TENSOR_BRIDGE_FORMATS_FLATBUFFER_H_
#define TENSOR_BRIDGE_FORMATS_FLATBUFFER_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "core/error.h"
#include "formats/format_error.h"

namespace tensor_bridge {

class FlatBuffer;

/// Consecutive elements. Places are offsets from the first byte of the buffer.
struct FlatVector {
  uint64_t begin = 0;
  uint32_t count = 0;
};

/// A table. An absent table has no fields.
struct FlatTable {
  uint64_t begin = 0;
  uint64_t vtable = 0;
  uint16_t vtable_size = 0;
  uint16_t size = 0;
};

/// The buffer, and a budget. Tables and vectors may be shared, so a small file could refer to the
/// same ones any number of times. At most kMaxReads times the size of the buffer is read.
class FlatBuffer {
 public:
  FlatBuffer(const uint8_t* data, size_t size)
      : data_(data), size_(size), left_(kMaxReads * size) {}

  const uint8_t* data() const { return data_; }
  uint64_t size() const { return size_; }
  void setEntry(std::string entry) { entry_ = std::move(entry); }
  const std::string& entry() const { return entry_; }

  FlatTable root() { return tableAt(offsetAt(0)); }

  /// Returns the value of a field, or `missing`. Fields are counted from 0.
  template <typename T>
  T scalar(const FlatTable& table, unsigned field, T missing) const {
    const uint64_t place = fieldAt(table, field, sizeof(T));
    return place == 0 ? missing : at<T>(place);
  }

  FlatTable table(const FlatTable& parent, unsigned field) {
    const uint64_t place = fieldAt(parent, field, 4);
    return place == 0 ? FlatTable{} : tableAt(place + offsetAt(place));
  }

  bool has(const FlatTable& table, unsigned field) const { return fieldAt(table, field, 1) != 0; }

  /// Returns a vector of elements of `width` bytes; an absent one is empty.
  FlatVector vector(const FlatTable& table, unsigned field, uint64_t width) const {
    const uint64_t place = fieldAt(table, field, 4);
    if (place == 0) return {};
    const uint64_t begin = place + offsetAt(place);
    check(begin, 4, "the length of a vector");
    const FlatVector found{begin + 4, at<uint32_t>(begin)};
    check(found.begin, found.count * width, "the elements of a vector");
    return found;
  }

  /// Reads one element of a vector that was checked for its width.
  template <typename T>
  T element(const FlatVector& vector, uint32_t index) {
    spend(vector.begin, sizeof(T));
    return at<T>(vector.begin + uint64_t{index} * sizeof(T));
  }

  FlatTable tableOf(const FlatVector& vector, uint32_t index) {
    const uint64_t place = vector.begin + uint64_t{index} * 4;
    return tableAt(place + offsetAt(place));
  }

  std::string text(const FlatTable& table, unsigned field) {
    const FlatVector found = vector(table, field, 1);
    spend(found.begin, found.count);
    return std::string(reinterpret_cast<const char*>(data_ + found.begin), found.count);
  }

  /// Throws FormatError at `place` unless the buffer has `size` bytes there.
  void check(uint64_t place, uint64_t size, const char* what) const {
    if (place > size_ || size > size_ - place) {
      fail(place,
           formatted("expected %s inside the %llu bytes of the file, got %llu bytes at %llu", what,
                     static_cast<unsigned long long>(size_), static_cast<unsigned long long>(size),
                     static_cast<unsigned long long>(place)));
    }
  }

  /// Subtracts `bytes`, read at `place`, from the budget. Throws FormatError if it is used up.
  void spend(uint64_t place, uint64_t bytes) {
    if (bytes > left_) {
      fail(place, formatted("expected a file that stores each part once, got one that repeats "
                            "parts more than %llu times",
                            static_cast<unsigned long long>(kMaxReads)));
    }
    left_ -= bytes;
  }

  [[noreturn]] void fail(uint64_t place, const std::string& message) const {
    throw FormatError(static_cast<int64_t>(place < size_ ? place : size_), entry_, message);
  }

 private:
  static constexpr uint64_t kMaxReads = 4;
  static constexpr uint64_t kSmallestTable = 4;

  // Little-endian, like every machine for which this library is built.
  template <typename T>
  T at(uint64_t place) const {
    T value;
    std::memcpy(&value, data_ + place, sizeof(T));
    return value;
  }

  uint32_t offsetAt(uint64_t place) const {
    check(place, 4, "an offset");
    return at<uint32_t>(place);
  }

  FlatTable tableAt(uint64_t begin) {
    spend(begin, kSmallestTable);
    check(begin, 4, "a table");
    FlatTable table;
    table.begin = begin;
    // Signed, backwards from the table; it wraps around for one that begins before the file.
    table.vtable = begin - static_cast<uint64_t>(int64_t{at<int32_t>(begin)});
    check(table.vtable, 4, "the fields of a table");
    table.vtable_size = at<uint16_t>(table.vtable);
    table.size = at<uint16_t>(table.vtable + 2);
    check(table.vtable, table.vtable_size, "the fields of a table");
    check(table.begin, table.size, "a table");
    return table;
  }

  // The offset of a field; 0 if it is absent.
  uint64_t fieldAt(const FlatTable& table, unsigned field, uint64_t size) const {
    const unsigned slot = 4 + 2 * field;
    if (slot + 2 > table.vtable_size) return 0;
    const uint16_t offset = at<uint16_t>(table.vtable + slot);
    if (offset == 0) return 0;
    if (offset + size > table.size) fail(table.begin + offset, "expected a field inside its table");
    return table.begin + offset;
  }

  const uint8_t* data_;
  uint64_t size_;
  uint64_t left_;
  std::string entry_;
};

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_FORMATS_FLATBUFFER_H_
