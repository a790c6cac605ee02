// Batches of tf.train.Example and tf.train.SequenceExample, parsed into columns
// (tensorflow/core/example/example.proto). Not for: one list of values (formats/feature.h), files
// of records, what the columns become.
#ifndef TENSOR_BRIDGE_FORMATS_EXAMPLE_H_
#define TENSOR_BRIDGE_FORMATS_EXAMPLE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "formats/feature.h"

namespace tensor_bridge {

enum class ColumnKind : int32_t {
  kFixed = 0,   // as many values in every record
  kPadded = 1,  // rows of as many values, padded to the most rows of a record
  kSparse = 2,  // all values, and the index of each
  kRagged = 3,  // all values, and where each record's, or each row's, begin
};

/// What is asked for of one feature.
struct ExampleColumn {
  std::string key;
  bool in_lists = false;  // among a SequenceExample's feature lists
  FeatureType type = FeatureType::kNone;
  ColumnKind kind = ColumnKind::kFixed;
  int64_t stride = 1;     // values of a record (kFixed), of a row (kPadded)
  bool required = false;  // a record without it is an error
  // What a record without it gets (kFixed), `stride` values, or what is padded with, one. Numbers
  // are here as in memory; of strings here are the bytes, and where each of them ends.
  std::string defaults;
  std::vector<int64_t> default_ends;
};

/// The columns, and how they are found by their key.
class ExampleSpec {
 public:
  /// `sequence`: of SequenceExamples. Throws Error{kInvalidOption} for columns that mean nothing.
  ExampleSpec(std::vector<ExampleColumn> columns, bool sequence);

  const std::vector<ExampleColumn>& columns() const noexcept { return columns_; }
  bool sequence() const noexcept { return sequence_; }
  /// The column of a key, -1 if none is asked for.
  int32_t find(std::string_view key, bool in_lists) const;

 private:
  std::vector<ExampleColumn> columns_;
  bool sequence_;
  std::unordered_map<std::string_view, int32_t> features_;  // keys are those in columns_
  std::unordered_map<std::string_view, int32_t> lists_;
};

/// How much memory a column needs.
struct ColumnSize {
  int64_t values = 0;      // with defaults and padding
  int64_t bytes = 0;       // of these, if they are strings
  int64_t rows = 0;        // of all records, where a record has rows
  int64_t max_rows = 0;    // of a record
  int64_t max_values = 0;  // of a record, or of a row where it has rows
};

/// Where a column is written to; only what its kind and type need.
struct ColumnMemory {
  void* values = nullptr;      // ColumnSize::values numbers, or ColumnSize::bytes bytes
  int64_t* offsets = nullptr;  // of strings: one more than there are
  // kSparse: [rank, values] with rank 2, or 3 where a record has rows. kRagged: one more than there
  // are records, and, where they have rows, then one more than there are rows.
  int64_t* index = nullptr;
  int64_t* lengths = nullptr;  // kPadded: rows of each record
};

/// Some records, looked through once: what they have of each column and how much that is. It refers
/// to the spec and to the records' memory, and can be used by several threads.
class ExampleBatch {
 public:
  /// Record i is `sizes[i]` bytes at `base + begins[i]`. Throws FormatError, with the offset from
  /// `base` and the key as its entry, for records that TensorFlow's parser refuses. Memory stays in
  /// proportion to the records' size and the columns times the records.
  ExampleBatch(const ExampleSpec& spec, const uint8_t* base, const int64_t* begins,
               const int64_t* sizes, int64_t count);

  const ExampleSpec& spec() const noexcept { return spec_; }
  const ColumnSize& size(int32_t column) const { return columns_[column].size; }
  /// Decodes a column to memory of that size. Throws FormatError.
  void fill(int32_t column, const ColumnMemory& out) const;

 private:
  class Scanner;

  // What the records have of a column.
  struct Column {
    std::vector<FeatureList> lists;  // one for each record, or each row of a record
    std::vector<int64_t> row_ends;   // of feature lists: where each record's rows end in `lists`
    ColumnSize size;
  };

  void measure(int32_t column);
  template <typename Writer>
  void write(int32_t column, Writer writer, const ColumnMemory& out) const;
  void writeIndex(int32_t column, const ColumnMemory& out) const;
  // Calls visit(first list, behind the last) for each record.
  template <typename Visit>
  void eachRecord(const Column& column, Visit visit) const;

  const ExampleSpec& spec_;
  const uint8_t* base_;
  int64_t count_;
  std::vector<Column> columns_;
};

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_FORMATS_EXAMPLE_H_
