// Batches of tf.train.Example and tf.train.SequenceExample, parsed into columns
// (tensorflow/core/example/example.proto). Not for: one list of values (formats/feature.h), files
// of records, the tensors that columns become.
#ifndef TENSOR_BRIDGE_FORMATS_EXAMPLE_H_
#define TENSOR_BRIDGE_FORMATS_EXAMPLE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "formats/feature.h"

namespace tensor_bridge {

enum class ColumnKind : int32_t {
  kFixed = 0,   // the same number of values in every record
  kPadded = 1,  // rows of the same number of values, padded to the most rows of any record
  kSparse = 2,  // all values, and the index of each
  kRagged = 3,  // all values, and where those of each record, or of each row, begin
};

/// The request for one feature.
struct ExampleColumn {
  std::string key;
  bool in_lists = false;  // in a SequenceExample's feature lists
  FeatureType type = FeatureType::kNone;
  ColumnKind kind = ColumnKind::kFixed;
  int64_t stride = 1;     // number of values in a record (kFixed) or in a row (kPadded)
  bool required = false;  // a record without it is an error
  // kFixed: the `stride` values of a record without the feature. kPadded: one value, the padding.
  // Numbers are stored as in memory; strings as their bytes, with each string's end in
  // `default_ends`.
  std::string defaults;
  std::vector<int64_t> default_ends;
};

/// The columns, and the map from keys to them.
class ExampleSpec {
 public:
  /// `sequence`: records are SequenceExamples. Throws Error{kInvalidOption} for invalid columns.
  ExampleSpec(std::vector<ExampleColumn> columns, bool sequence);

  const std::vector<ExampleColumn>& columns() const noexcept { return columns_; }
  bool sequence() const noexcept { return sequence_; }
  /// The column of a key; -1 if the spec does not have it.
  int32_t find(std::string_view key, bool in_lists) const;

 private:
  std::vector<ExampleColumn> columns_;
  bool sequence_;
  std::unordered_map<std::string_view, int32_t> features_;  // keys refer to columns_
  std::unordered_map<std::string_view, int32_t> lists_;
};

/// The memory that a column needs.
struct ColumnSize {
  int64_t values = 0;      // number of values, with defaults and padding
  int64_t bytes = 0;       // bytes of all values, if they are strings
  int64_t rows = 0;        // rows of all records, if records have rows
  int64_t max_rows = 0;    // most rows of a record
  int64_t max_values = 0;  // most values of a record, or of a row if records have rows
};

/// The memory that a column is written to. Only what its kind and type need is set.
struct ColumnMemory {
  void* values = nullptr;      // ColumnSize::values numbers, or ColumnSize::bytes bytes
  int64_t* offsets = nullptr;  // strings: ColumnSize::values + 1
  // kSparse: [rank, values], with rank 2, or 3 if records have rows. kRagged: one more than there
  // are records; if they have rows, then one more than there are rows.
  int64_t* index = nullptr;
  int64_t* lengths = nullptr;  // kPadded: rows of each record
  int64_t begin = 0;           // strings: where in `values` the first one goes
};

/// Records after the first pass: the place and the size of each column's values. It refers to the
/// spec and to the records' memory. Several threads may use what is const at once.
class ExampleBatch {
 public:
  explicit ExampleBatch(const ExampleSpec& spec);
  /// With scan().
  ExampleBatch(const ExampleSpec& spec, const uint8_t* base, const int64_t* begins,
               const int64_t* sizes, int64_t count);
  ~ExampleBatch();
  ExampleBatch(const ExampleBatch&) = delete;
  ExampleBatch& operator=(const ExampleBatch&) = delete;

  /// Goes through these records instead of those before. Record i is `sizes[i]` bytes at
  /// `base + begins[i]`; messages call it `first + i`. Throws FormatError, with the offset from
  /// `base` and the key as its entry, for records that TensorFlow's parser refuses. Memory is in
  /// proportion to the records' size, and to the number of columns times the number of records.
  void scan(const uint8_t* base, const int64_t* begins, const int64_t* sizes, int64_t count,
            int64_t first = 0);

  const ExampleSpec& spec() const noexcept { return spec_; }
  const ColumnSize& size(int32_t column) const { return columns_[column].size; }
  /// Decodes a column to memory of that size. Throws FormatError.
  void fill(int32_t column, const ColumnMemory& out) const;

 private:
  class Scanner;

  // A column's values in the records.
  struct Column {
    std::vector<FeatureList> lists;  // one for each record, or for each row of each record
    std::vector<int64_t> row_ends;   // feature lists: where each record's rows end in `lists`
    ColumnSize size;
  };

  void measure(int32_t column);
  template <typename Writer>
  void write(int32_t column, Writer writer, const ColumnMemory& out) const;
  void writeIndex(int32_t column, const ColumnMemory& out) const;
  // Calls visit(begin, end) with each record's lists.
  template <typename Visit>
  void eachRecord(const Column& column, Visit visit) const;

  const ExampleSpec& spec_;
  const uint8_t* base_ = nullptr;
  int64_t count_ = 0;
  std::vector<Column> columns_;
  std::unique_ptr<Scanner> scanner_;
};

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_FORMATS_EXAMPLE_H_
