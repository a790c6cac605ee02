// The common part of the two targets of Examples: columns of every kind and type, and checks of
// their values.
#ifndef TENSOR_BRIDGE_TESTS_FUZZ_EXAMPLE_FUZZING_H_
#define TENSOR_BRIDGE_TESTS_FUZZ_EXAMPLE_FUZZING_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "formats/example.h"
#include "formats/example_keys.h"
#include "formats/format_error.h"

namespace tensor_bridge {

inline std::vector<ExampleColumn> columnsOf(bool sequence) {
  std::vector<ExampleColumn> columns;
  char name = 'a';
  for (const bool in_lists : {false, true}) {
    if (in_lists && !sequence) continue;
    name = 'a';
    for (int kind = 0; kind <= 3; ++kind) {
      if (sequence && kind < 2 && (kind == 1) != in_lists) continue;
      for (int type = 1; type <= 3; ++type) {
        ExampleColumn column;
        column.key = std::string(1, name++);
        column.in_lists = in_lists;
        column.type = static_cast<FeatureType>(type);
        column.kind = static_cast<ColumnKind>(kind);
        column.stride = 2;
        const int64_t defaults = kind == 0 ? 2 : 1;
        if (type == 1) {
          column.defaults = "ab";
          column.default_ends = {1, 2};
          column.default_ends.resize(static_cast<size_t>(defaults));
          column.defaults.resize(static_cast<size_t>(defaults));
        } else {
          column.defaults.resize(static_cast<size_t>(defaults * (type == 2 ? 4 : 8)));
        }
        columns.push_back(std::move(column));
      }
    }
  }
  return columns;
}

inline void require(bool holds) {
  if (!holds) std::abort();
}

// Allocates exactly the memory of ColumnSize, so that a sanitizer sees writes beyond it.
inline void fillColumn(const ExampleBatch& batch, int32_t number, int64_t count) {
  const ExampleColumn& asked = batch.spec().columns()[static_cast<size_t>(number)];
  const ColumnSize& size = batch.size(number);
  const bool strings = asked.type == FeatureType::kBytes;
  const int64_t item = asked.type == FeatureType::kFloat ? 4 : 8;
  require(size.values >= 0 && size.bytes >= 0 && size.rows >= 0);
  const auto room = static_cast<size_t>(strings ? size.bytes : item * size.values);
  const std::unique_ptr<uint8_t[]> values(new uint8_t[room]);
  std::vector<int64_t> offsets(static_cast<size_t>(size.values) + 1, -1);
  const bool sparse = asked.kind == ColumnKind::kSparse;
  const int64_t rank = asked.in_lists ? 3 : 2;
  const int64_t splits = count + 1 + (asked.in_lists ? size.rows + 1 : 0);
  std::vector<int64_t> index(static_cast<size_t>(sparse ? rank * size.values : splits), -1);
  std::vector<int64_t> lengths(static_cast<size_t>(count), -1);
  ColumnMemory memory;
  memory.values = values.get();
  if (strings) memory.offsets = offsets.data();
  if (asked.kind >= ColumnKind::kSparse) memory.index = index.data();
  if (asked.kind == ColumnKind::kPadded && asked.in_lists) memory.lengths = lengths.data();
  batch.fill(number, memory);
  if (strings) {
    require(offsets.front() == 0 && offsets.back() == size.bytes);
    for (size_t i = 1; i < offsets.size(); ++i) require(offsets[i - 1] <= offsets[i]);
  }
  if (sparse) {
    for (int64_t i = 0; i < size.values; ++i) {
      require(index[static_cast<size_t>(i)] >= 0 && index[static_cast<size_t>(i)] < count);
    }
  } else if (asked.kind == ColumnKind::kRagged) {
    require(index[static_cast<size_t>(count)] == (asked.in_lists ? size.rows : size.values));
    require(index.back() == size.values);
  }
}

// The first byte says where the input is cut into records.
inline int fuzzExamples(const uint8_t* data, size_t size, bool sequence) {
  static const ExampleSpec example(columnsOf(false), false);
  static const ExampleSpec of_lists(columnsOf(true), true);
  const ExampleSpec& spec = sequence ? of_lists : example;
  if (size == 0) return 0;
  const auto all = static_cast<int64_t>(size - 1);
  const int64_t cut = all * data[0] / 256;
  const std::vector<int64_t> begins = {0, cut, cut};
  const std::vector<int64_t> sizes = {cut, all - cut, 0};
  // A separate block, so that a sanitizer sees reads beyond it.
  const std::vector<uint8_t> records(data + 1, data + size);
  try {
    const ExampleBatch batch(spec, records.data(), begins.data(), sizes.data(), 3);
    for (size_t i = 0; i < spec.columns().size(); ++i) {
      fillColumn(batch, static_cast<int32_t>(i), 3);
    }
  } catch (const FormatError& e) {
    require(e.offset() >= -1 && e.offset() <= all);
  }
  try {
    for (const ExampleKey& key : readExampleKeys(records.data(), records.size())) {
      require(key.count >= 0 && key.count <= all);
    }
  } catch (const FormatError&) {
  }
  return 0;
}

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_TESTS_FUZZ_EXAMPLE_FUZZING_H_
