#include "formats/example.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "formats/format_error.h"
#include "formats/wire.h"

namespace tensor_bridge {
namespace {

constexpr uint8_t tagOf(uint32_t number) {
  return static_cast<uint8_t>(number << 3 | WireReader::kBytes);
}

// At most this many keys of a map are remembered from one record to the next.
constexpr size_t kRemembered = 1024;

size_t itemSize(FeatureType type) {
  return type == FeatureType::kFloat ? sizeof(float) : sizeof(int64_t);
}

void checkDefaults(const ExampleColumn& column) {
  const bool padded = column.kind == ColumnKind::kPadded;
  const int64_t count = padded ? 1 : column.stride;
  if (column.kind >= ColumnKind::kSparse || (column.required && !padded)) return;
  bool good = false;
  if (column.type == FeatureType::kBytes) {
    good = static_cast<int64_t>(column.default_ends.size()) == count &&
           std::is_sorted(column.default_ends.begin(), column.default_ends.end()) &&
           (count == 0 ||
            (column.default_ends.front() >= 0 &&
             column.default_ends.back() == static_cast<int64_t>(column.defaults.size())));
  } else {
    good = static_cast<int64_t>(column.defaults.size() / itemSize(column.type)) == count;
  }
  if (!good) {
    throwError(ErrorCode::kInvalidOption, "expected %lld default values of feature \"%s\"",
               static_cast<long long>(count), column.key.c_str());
  }
}

template <typename T>
class NumberWriter {
 public:
  NumberWriter(const ExampleColumn& column, const ColumnMemory& out)
      : next_(static_cast<T*>(out.values)), defaults_(column.defaults) {}

  bool put(const FeatureList& list) {
    bool good = true;
    if constexpr (std::is_same_v<T, float>) {
      decodeFloats(list, next_);
    } else {
      good = decodeInt64s(list, next_);
    }
    next_ += list.count;
    return good;
  }

  void putDefaults() {
    if (!defaults_.empty()) std::memcpy(next_, defaults_.data(), defaults_.size());
    next_ += defaults_.size() / sizeof(T);
  }

  void pad(int64_t count) {
    if (count == 0) return;
    T value{};
    std::memcpy(&value, defaults_.data(), sizeof(value));
    next_ = std::fill_n(next_, count, value);
  }

 private:
  T* next_;
  const std::string& defaults_;
};

class StringWriter {
 public:
  StringWriter(const ExampleColumn& column, const ColumnMemory& out)
      : column_(column),
        out_(static_cast<uint8_t*>(out.values)),
        ends_(out.offsets),
        at_(out.begin) {
    *ends_++ = at_;
  }

  bool put(const FeatureList& list) {
    decodeStrings(list, at_, out_ + at_, ends_);
    at_ += list.bytes;
    ends_ += list.count;
    return true;
  }

  void putDefaults() {
    const std::string& defaults = column_.defaults;
    if (!defaults.empty()) std::memcpy(out_ + at_, defaults.data(), defaults.size());
    for (const int64_t end : column_.default_ends) *ends_++ = at_ + end;
    at_ += static_cast<int64_t>(defaults.size());
  }

  void pad(int64_t count) {
    for (int64_t i = 0; i < count; ++i) putDefaults();
  }

 private:
  const ExampleColumn& column_;
  uint8_t* out_;
  int64_t* ends_;
  int64_t at_;
};

// Adds a * b to *sum.
bool addProduct(int64_t a, int64_t b, int64_t* sum) {
  int64_t product = 0;
  return !__builtin_mul_overflow(a, b, &product) && !__builtin_add_overflow(*sum, product, sum);
}

}  // namespace

// ---- the spec -----------------------------------------------------------------------------------

ExampleSpec::ExampleSpec(std::vector<ExampleColumn> columns, bool sequence)
    : columns_(std::move(columns)), sequence_(sequence) {
  for (size_t i = 0; i < columns_.size(); ++i) {
    const ExampleColumn& column = columns_[i];
    const bool rows = column.kind == ColumnKind::kPadded;
    const bool known = column.type >= FeatureType::kBytes && column.type <= FeatureType::kInt64 &&
                       column.kind >= ColumnKind::kFixed && column.kind <= ColumnKind::kRagged;
    // A SequenceExample has rows in its feature lists, and nowhere else.
    const bool fits =
        sequence ? column.kind >= ColumnKind::kSparse || column.in_lists == rows : !column.in_lists;
    if (!known || !fits || column.stride < (rows ? 1 : 0)) {
      throwError(ErrorCode::kInvalidOption, "expected a kind, a type and a size of feature \"%s\"",
                 column.key.c_str());
    }
    checkDefaults(column);
    auto& map = column.in_lists ? lists_ : features_;
    if (!map.emplace(column.key, static_cast<int32_t>(i)).second) {
      throwError(ErrorCode::kInvalidOption, "expected feature \"%s\" once", column.key.c_str());
    }
  }
}

int32_t ExampleSpec::find(std::string_view key, bool in_lists) const {
  const auto& map = in_lists ? lists_ : features_;
  const auto found = map.find(key);
  return found == map.end() ? -1 : found->second;
}

// ---- the first pass -----------------------------------------------------------------------------

// Scans the records of a batch, one after the other.
class ExampleBatch::Scanner {
 public:
  explicit Scanner(ExampleBatch* batch)
      : batch_(*batch), spec_(batch->spec_), found_(spec_.columns().size()) {}

  // Forgets keys in the memory of records that may no longer be there.
  void begin() {
    for (Map* map : {&features_, &lists_}) {
      for (Known& known : map->known) {
        if (known.column < 0) known.column = kForgotten;
      }
    }
  }

  void scan(int64_t number, FeatureCursor record) {
    number_ = number;
    for (Found& found : found_) found.there = false;
    const FeatureCursor whole = record;
    while (!record.done()) {
      const uint8_t* place = record.next;
      bool good = true;
      if (record.take(tagOf(1))) {
        good = readMap(&record, &features_);
      } else if (spec_.sequence() && record.take(tagOf(2))) {
        good = readMap(&record, &lists_);
      } else {
        good = record.skipField();
      }
      if (!good) fail(place, "expected %s, got something else", what());
    }
    for (size_t i = 0; i < found_.size(); ++i) {
      if (spec_.columns()[i].in_lists) {
        readLists(i, whole.next);
      } else {
        readFeature(i, whole.next);
      }
    }
  }

 private:
  // The message of a column's Feature or FeatureList.
  struct Found {
    FeatureCursor message;
    bool there = false;
  };
  static constexpr int32_t kForgotten = -2;
  struct Known {
    std::string_view key;  // the spec's, or in the record if no column has it
    int32_t column = kForgotten;
  };
  // The keys of the previous record. Most writers keep their order, so that one comparison finds
  // nearly every key.
  struct Map {
    bool in_lists = false;
    std::vector<Known> known;
  };

  const char* what() const {
    return spec_.sequence() ? "a tf.train.SequenceExample" : "a tf.train.Example";
  }

  [[noreturn]] __attribute__((format(printf, 3, 4))) void fail(const uint8_t* place,
                                                               const char* format, ...) const {
    va_list args;
    va_start(args, format);
    failAt(place, "", format, args);
  }

  [[noreturn]] __attribute__((format(printf, 4, 5))) void failOf(const ExampleColumn& column,
                                                                 const uint8_t* place,
                                                                 const char* format, ...) const {
    va_list args;
    va_start(args, format);
    failAt(place, column.key, format, args);
  }

  [[noreturn]] void failAt(const uint8_t* place, const std::string& key, const char* format,
                           va_list args) const {
    char text[256];
    std::vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    std::string where = "record " + std::to_string(number_);
    if (!key.empty()) where += ", feature \"" + key + "\"";
    throw FormatError(place - batch_.base_, key, where + ": " + text);
  }

  int32_t columnOf(Map* map, size_t index, FeatureCursor key) const {
    const std::string_view name(reinterpret_cast<const char*>(key.next), key.left());
    if (index < map->known.size()) {
      const Known& known = map->known[index];
      if (known.column != kForgotten && known.key == name) return known.column;
    }
    const int32_t column = spec_.find(name, map->in_lists);
    if (index >= map->known.size() && index < kRemembered) map->known.resize(index + 1);
    if (index < map->known.size()) {
      const auto at = static_cast<size_t>(column);
      map->known[index] = {column < 0 ? name : spec_.columns()[at].key, column};
    }
    return column;
  }

  // The entries of Features or FeatureLists.
  bool readMap(FeatureCursor* record, Map* map) {
    FeatureCursor entries;
    if (!record->message(&entries)) return false;
    record->next = entries.end;
    for (size_t index = 0; !entries.done(); ++index) {
      FeatureCursor entry;
      FeatureCursor key;
      FeatureCursor value;
      if (!entries.take(tagOf(1)) || !entries.message(&entry)) return false;
      entries.next = entry.end;
      if (!(spec_.sequence() ? readInOrder(&entry, &key, &value)
                             : readInAnyOrder(&entry, &key, &value))) {
        return false;
      }
      const int32_t column = columnOf(map, index, key);
      if (column >= 0 && !keep(column, value)) return false;
    }
    return true;
  }

  static bool readInOrder(FeatureCursor* entry, FeatureCursor* key, FeatureCursor* value) {
    return entry->take(tagOf(1)) && entry->string(key) && entry->take(tagOf(2)) &&
           entry->string(value) && entry->done();
  }

  // TensorFlow's parser of Examples requires two fields, but not that they differ.
  static bool readInAnyOrder(FeatureCursor* entry, FeatureCursor* key, FeatureCursor* value) {
    for (int i = 0; i < 2; ++i) {
      uint32_t tag = 0;
      if (!entry->varint32(&tag) || (tag != tagOf(1) && tag != tagOf(2))) return false;
      if (!entry->string(tag == tagOf(1) ? key : value)) return false;
    }
    return entry->done();
  }

  // Of several entries with the same key, the last is used.
  bool keep(int32_t column, FeatureCursor message) {
    Found& found = found_[static_cast<size_t>(column)];
    if (!spec_.sequence()) {
      const bool dense = spec_.columns()[static_cast<size_t>(column)].kind < ColumnKind::kSparse;
      if (message.done()) {
        // An empty Feature overrides earlier ones in sparse and ragged columns only.
        if (dense) return true;
      } else if (*message.next != tagOf(1) && *message.next != tagOf(2) &&
                 *message.next != tagOf(3)) {
        return false;
      }
    }
    found = {message, true};
    return true;
  }

  // Consumes the tag of the list.
  void takeType(const ExampleColumn& column, FeatureCursor* message, int64_t row) const {
    if (message->take(tagOf(static_cast<uint32_t>(column.type)))) return;
    const uint8_t tag = message->done() ? 0 : *message->next;
    const bool list = tag == tagOf(1) || tag == tagOf(2) || tag == tagOf(3);
    const char* got = list ? featureTypeName(static_cast<FeatureType>(tag >> 3)) : "something else";
    if (row < 0) {
      failOf(column, message->next, "expected %s, got %s", featureTypeName(column.type), got);
    }
    failOf(column, message->next, "expected %s in row %lld, got %s", featureTypeName(column.type),
           static_cast<long long>(row), got);
  }

  void findList(const ExampleColumn& column, FeatureCursor* message, FeatureList* list) const {
    const FeatureRules rules = spec_.sequence() ? FeatureRules::kSequence : FeatureRules::kExample;
    const uint8_t* place = message->next;
    if (!findFeatureList(message, column.type, rules, list)) {
      failOf(column, place, "expected a list of %s, got something else",
             featureTypeName(column.type));
    }
  }

  void readFeature(size_t index, const uint8_t* record) {
    const ExampleColumn& column = spec_.columns()[index];
    std::vector<FeatureList>& lists = batch_.columns_[index].lists;
    FeatureList& list = lists.emplace_back();
    Found& found = found_[index];
    if (!found.there) {
      list.missing = true;
      if (column.required) {
        failOf(column, record,
               "expected the feature, which is missing; give it a default_value, or ask for it as "
               "VarLenFeature");
      }
      return;
    }
    const uint8_t* place = found.message.next;
    if (!found.message.done()) {
      takeType(column, &found.message, -1);
      findList(column, &found.message, &list);
    }
    if (column.kind == ColumnKind::kFixed && list.count != column.stride) {
      failOf(column, place, "expected %lld values, got %lld", static_cast<long long>(column.stride),
             static_cast<long long>(list.count));
    }
    if (column.kind == ColumnKind::kPadded && list.count % column.stride != 0) {
      failOf(column, place, "expected a multiple of %lld values, got %lld",
             static_cast<long long>(column.stride), static_cast<long long>(list.count));
    }
  }

  void readLists(size_t index, const uint8_t* record) {
    const ExampleColumn& column = spec_.columns()[index];
    Column& found = batch_.columns_[index];
    const size_t before = found.lists.size();
    if (found_[index].there) {
      FeatureCursor rows = found_[index].message;
      while (!rows.done()) {
        readRow(column, &rows, static_cast<int64_t>(found.lists.size() - before),
                &found.lists.emplace_back());
      }
    } else if (column.required) {
      failOf(column, record, "expected the feature list, which is missing; use allow_missing=True");
    }
    found.row_ends.push_back(static_cast<int64_t>(found.lists.size()));
  }

  void readRow(const ExampleColumn& column, FeatureCursor* rows, int64_t row,
               FeatureList* list) const {
    const uint8_t* place = rows->next;
    uint32_t size = 0;
    bool good = rows->take(tagOf(1)) && rows->varint32(&size) && size != 1;
    if (good && size == 2) {
      uint32_t empty = 0;
      takeType(column, rows, row);
      good = rows->varint32(&empty) && empty == 0;
    } else if (good && size > 2) {
      // The next row begins where this list ends, even if the Feature is longer, as in TensorFlow.
      FeatureCursor feature{rows->next, size < rows->left() ? rows->next + size : rows->end};
      takeType(column, &feature, row);
      findList(column, &feature, list);
      rows->next = feature.next;
    }
    if (!good) {
      failOf(column, place, "expected a Feature as row %lld, got something else",
             static_cast<long long>(row));
    }
    if (column.kind == ColumnKind::kPadded && list->count != column.stride) {
      failOf(column, place, "expected %lld values in row %lld, got %lld",
             static_cast<long long>(column.stride), static_cast<long long>(row),
             static_cast<long long>(list->count));
    }
  }

  ExampleBatch& batch_;
  const ExampleSpec& spec_;
  std::vector<Found> found_;
  Map features_{false, {}};
  Map lists_{true, {}};
  int64_t number_ = 0;
};

ExampleBatch::ExampleBatch(const ExampleSpec& spec)
    : spec_(spec), columns_(spec.columns().size()), scanner_(std::make_unique<Scanner>(this)) {}

ExampleBatch::ExampleBatch(const ExampleSpec& spec, const uint8_t* base, const int64_t* begins,
                           const int64_t* sizes, int64_t count)
    : ExampleBatch(spec) {
  scan(base, begins, sizes, count);
}

ExampleBatch::~ExampleBatch() = default;

void ExampleBatch::scan(const uint8_t* base, const int64_t* begins, const int64_t* sizes,
                        int64_t count, int64_t first) {
  base_ = base;
  count_ = count;
  for (Column& column : columns_) {
    column.lists.clear();
    column.lists.reserve(static_cast<size_t>(count));
    column.row_ends.clear();
    column.size = {};
  }
  scanner_->begin();
  for (int64_t i = 0; i < count; ++i) {
    const uint8_t* record = base + begins[i];
    scanner_->scan(first + i, {record, record + sizes[i]});
  }
  for (size_t i = 0; i < columns_.size(); ++i) measure(static_cast<int32_t>(i));
}

template <typename Visit>
void ExampleBatch::eachRecord(const Column& column, Visit visit) const {
  const FeatureList* list = column.lists.data();
  const FeatureList* begin = list;
  for (int64_t i = 0; i < count_; ++i) {
    const FeatureList* end = column.row_ends.empty() ? list + 1 : begin + column.row_ends[i];
    visit(list, end);
    list = end;
  }
}

void ExampleBatch::measure(int32_t index) {
  Column& column = columns_[static_cast<size_t>(index)];
  const ExampleColumn& asked = spec_.columns()[static_cast<size_t>(index)];
  ColumnSize& size = column.size;
  const bool rows = asked.in_lists;
  const bool padded = asked.kind == ColumnKind::kPadded;
  const bool fixed = asked.kind == ColumnKind::kFixed;
  const auto default_bytes = static_cast<int64_t>(asked.defaults.size());
  bool good = true;
  eachRecord(column, [&](const FeatureList* list, const FeatureList* end) {
    int64_t record_rows = rows ? end - list : 0;
    for (; list != end; ++list) {
      size.values += list->count;
      size.bytes += list->bytes;
      size.max_values = std::max(size.max_values, list->count);
      if (padded && !rows) record_rows = list->count / asked.stride;
      if (fixed && list->missing) good = good && addProduct(1, default_bytes, &size.bytes);
    }
    size.rows += record_rows;
    size.max_rows = std::max(size.max_rows, record_rows);
  });
  if (fixed || padded) {
    const int64_t there = size.values;
    size.values = 0;
    int64_t row = 0;
    good = good && addProduct(fixed ? 1 : size.max_rows, asked.stride, &row) &&
           addProduct(count_, row, &size.values);
    if (padded) good = good && addProduct(size.values - there, default_bytes, &size.bytes);
  }
  int64_t memory = 0;  // bytes, at 8 per number
  if (!good || !addProduct(size.values, 8, &memory)) {
    throw FormatError(-1, asked.key,
                      "feature \"" + asked.key + "\": expected a batch that memory can hold");
  }
}

// ---- the second pass ----------------------------------------------------------------------------

void ExampleBatch::fill(int32_t column, const ColumnMemory& out) const {
  const ExampleColumn& asked = spec_.columns()[static_cast<size_t>(column)];
  switch (asked.type) {
    case FeatureType::kBytes:
      write(column, StringWriter(asked, out), out);
      break;
    case FeatureType::kFloat:
      write(column, NumberWriter<float>(asked, out), out);
      break;
    default:
      write(column, NumberWriter<int64_t>(asked, out), out);
  }
  if (out.index != nullptr) writeIndex(column, out);
}

template <typename Writer>
void ExampleBatch::write(int32_t index, Writer writer, const ColumnMemory& out) const {
  const Column& column = columns_[static_cast<size_t>(index)];
  const ExampleColumn& asked = spec_.columns()[static_cast<size_t>(index)];
  const bool padded = asked.kind == ColumnKind::kPadded;
  int64_t* lengths = out.lengths;
  eachRecord(column, [&](const FeatureList* list, const FeatureList* end) {
    if (lengths != nullptr) *lengths++ = end - list;
    int64_t values = 0;
    for (; list != end; ++list) {
      if (list->missing && asked.kind == ColumnKind::kFixed) {
        writer.putDefaults();
      } else if (!writer.put(*list)) {
        throw FormatError(
            list->begin - base_, asked.key,
            "feature \"" + asked.key + "\": expected a list of int64, got something else");
      }
      values += list->count;
    }
    if (padded) writer.pad(column.size.max_rows * asked.stride - values);
  });
}

void ExampleBatch::writeIndex(int32_t index, const ColumnMemory& out) const {
  const Column& column = columns_[static_cast<size_t>(index)];
  const ExampleColumn& asked = spec_.columns()[static_cast<size_t>(index)];
  const int64_t values = column.size.values;
  int64_t record = 0;
  if (asked.kind == ColumnKind::kSparse) {
    int64_t* records = out.index;
    int64_t* rows = asked.in_lists ? records + values : nullptr;
    int64_t* positions = records + (asked.in_lists ? 2 : 1) * values;
    eachRecord(column, [&](const FeatureList* list, const FeatureList* end) {
      for (int64_t row = 0; list != end; ++list, ++row) {
        for (int64_t i = 0; i < list->count; ++i) {
          *records++ = record;
          if (rows != nullptr) *rows++ = row;
          *positions++ = i;
        }
      }
      ++record;
    });
    return;
  }
  int64_t* splits = out.index;
  int64_t* inner = asked.in_lists ? splits + count_ + 1 : splits;
  int64_t value = 0;
  int64_t row = 0;
  *splits++ = 0;
  if (asked.in_lists) *inner++ = 0;
  eachRecord(column, [&](const FeatureList* list, const FeatureList* end) {
    for (; list != end; ++list, ++row) {
      value += list->count;
      if (asked.in_lists) *inner++ = value;
    }
    *splits++ = asked.in_lists ? row : value;
  });
}

}  // namespace tensor_bridge
