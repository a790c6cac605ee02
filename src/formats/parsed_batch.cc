#include "formats/parsed_batch.h"

#include <cstring>
#include <new>

namespace tensor_bridge {
namespace {

// As torch aligns its own memory, and TensorFlow requires it.
constexpr int64_t kAlignment = 64;

int64_t aligned(int64_t size) { return (size + kAlignment - 1) / kAlignment * kAlignment; }

int64_t itemSize(FeatureType type) {
  return type == FeatureType::kBytes ? 1 : type == FeatureType::kFloat ? 4 : 8;
}

int64_t partBytes(const ParsedBatch::Column& column, int part) {
  return aligned(column.elements[part] * (part == 0 ? itemSize(column.type) : 8));
}

// One block for all columns: a batch is one allocation, and one release.
void allocate(ParsedBatch* batch) {
  const auto each = [&](auto visit) {
    for (ParsedBatch::Column& column : batch->columns) {
      for (int part = 0; part < 4; ++part) visit(&column, part, partBytes(column, part));
    }
  };
  each([&](ParsedBatch::Column*, int, int64_t size) {
    if (__builtin_add_overflow(batch->bytes, size, &batch->bytes)) throw std::bad_alloc();
  });
  const size_t needed = static_cast<size_t>(batch->bytes) + kAlignment;
  batch->memory = batch->pool != nullptr
                      ? batch->pool->take(needed)
                      : BlockPool::Block{std::unique_ptr<uint8_t[]>(new uint8_t[needed]), needed};
  uint8_t* at = batch->memory.data.get();
  at += (kAlignment - reinterpret_cast<uintptr_t>(at) % kAlignment) % kAlignment;
  each([&](ParsedBatch::Column* column, int part, int64_t size) {
    void* place = column->elements[part] == 0 && part > 0 ? nullptr : at;
    at += size;
    auto* numbers = static_cast<int64_t*>(place);
    if (part == 0) column->memory.values = place;
    if (part == 1) column->memory.offsets = numbers;
    if (part == 2) column->memory.index = numbers;
    if (part == 3) column->memory.lengths = numbers;
  });
}

}  // namespace

BlockPool::Block BlockPool::take(size_t size) {
  {
    const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
    // Looks at the latest blocks only, which may be in the processor's cache.
    constexpr size_t kLooked = 8;
    const size_t count = lock ? free_.size() : 0;
    for (size_t i = count; i > 0 && count - i < kLooked;) {
      --i;
      Block& block = free_[i];
      // A much larger block would hold memory that no batch needs.
      if (block.size < size || block.size / 2 > size) continue;
      std::swap(block, free_.back());
      Block found = std::move(free_.back());
      free_.pop_back();
      free_bytes_ -= found.size;
      return found;
    }
    // No block fits. Free the oldest one, which may never fit again.
    if (count > 0) {
      free_bytes_ -= free_.front().size;
      free_.erase(free_.begin());
    }
  }
  const size_t rounded = size + size / 8;  // the next one may be a little larger
  return {std::unique_ptr<uint8_t[]>(new uint8_t[rounded]), rounded};
}

void BlockPool::give(Block block) noexcept {
  constexpr size_t kKept = 4;                     // of any size
  constexpr size_t kKeptBytes = size_t{1} << 20;  // small ones, which are many
  if (block.data == nullptr) return;
  try {
    const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
    if (!lock) return;
    if (free_.size() >= kKept && free_bytes_ + block.size > kKeptBytes) return;
    const size_t size = block.size;
    free_.push_back(std::move(block));
    free_bytes_ += size;
  } catch (const std::exception&) {
    // The block is freed, as without a pool.
  }
}

void parseRecords(ExampleBatch* scratch, const uint8_t* base, const int64_t* begins,
                  const int64_t* sizes, int64_t count, ParsedBatch* batch) {
  const std::vector<ExampleColumn>& columns = scratch->spec().columns();
  scratch->scan(base, begins, sizes, count);
  batch->count = count;
  batch->columns.reserve(columns.size());
  for (size_t i = 0; i < columns.size(); ++i) {
    const ExampleColumn& asked = columns[i];
    ParsedBatch::Column& column = batch->columns.emplace_back();
    column.type = asked.type;
    column.size = scratch->size(static_cast<int32_t>(i));
    const ColumnSize& size = column.size;
    const bool strings = asked.type == FeatureType::kBytes;
    column.elements[0] = strings ? size.bytes : size.values;
    if (strings) column.elements[1] = size.values + 1;
    if (asked.kind == ColumnKind::kSparse) {
      column.elements[2] = (asked.in_lists ? 3 : 2) * size.values;
    } else if (asked.kind == ColumnKind::kRagged) {
      column.elements[2] = count + 1 + (asked.in_lists ? size.rows + 1 : 0);
    } else if (asked.in_lists) {
      column.elements[3] = count;
    }
  }
  allocate(batch);
  for (size_t i = 0; i < columns.size(); ++i) {
    scratch->fill(static_cast<int32_t>(i), batch->columns[i].memory);
  }
}

bool BatchBuilder::fits(const ExampleSpec* spec, int64_t bytes, int64_t count) {
  if (spec == nullptr) return true;
  // Strings may take all bytes of the records, numbers what the spec says: memory in proportion to
  // the records' size, even for a spec that does not fit them.
  constexpr int64_t kMostStrings = 2;
  int64_t strings = 0;
  int64_t numbers = 0;
  for (const ExampleColumn& column : spec->columns()) {
    const bool is_strings = column.type == FeatureType::kBytes;
    if (is_strings) ++strings;
    // A default value per record would need room that is not counted here.
    if (column.kind != ColumnKind::kFixed || (is_strings && !column.required)) return false;
    int64_t size = 0;
    if (__builtin_mul_overflow(column.stride, 8 * count, &size) ||
        __builtin_add_overflow(numbers, size, &numbers)) {
      return false;
    }
  }
  return strings <= kMostStrings && numbers / 16 <= bytes + 4096;
}

BatchBuilder::BatchBuilder(ExampleBatch* scratch, int64_t bytes, int64_t count, ParsedBatch* batch)
    : scratch_(scratch), batch_(*batch) {
  const size_t columns = scratch == nullptr ? 1 : scratch->spec().columns().size();
  batch->columns.resize(columns);
  for (size_t i = 0; i < columns; ++i) {
    ParsedBatch::Column& column = batch->columns[i];
    const ExampleColumn* asked = scratch == nullptr ? nullptr : &scratch->spec().columns()[i];
    if (asked != nullptr) column.type = asked->type;
    const int64_t values = asked == nullptr ? count : asked->stride * count;
    const bool strings = column.type == FeatureType::kBytes;
    column.elements[0] = strings ? bytes : values;
    if (strings) column.elements[1] = values + 1;
  }
  allocate(batch);
  for (ParsedBatch::Column& column : batch->columns) {
    if (column.memory.offsets != nullptr) *column.memory.offsets = 0;
  }
}

void BatchBuilder::add(const uint8_t* base, const int64_t* begins, const int64_t* sizes,
                       int64_t count) {
  if (scratch_ == nullptr) {
    addRaw(base, begins, sizes, count);
    return;
  }
  scratch_->scan(base, begins, sizes, count, batch_.count);
  for (size_t i = 0; i < batch_.columns.size(); ++i) {
    ParsedBatch::Column& column = batch_.columns[i];
    const auto index = static_cast<int32_t>(i);
    ColumnMemory out = column.memory;
    if (column.type == FeatureType::kBytes) {
      out.offsets += column.size.values;
      out.begin = column.size.bytes;
    } else {
      out.values = static_cast<uint8_t*>(out.values) + column.size.values * itemSize(column.type);
    }
    scratch_->fill(index, out);
    column.size.values += scratch_->size(index).values;
    column.size.bytes += scratch_->size(index).bytes;
  }
  batch_.count += count;
}

void BatchBuilder::addRaw(const uint8_t* base, const int64_t* begins, const int64_t* sizes,
                          int64_t count) {
  ParsedBatch::Column& column = batch_.columns[0];
  auto* out = static_cast<uint8_t*>(column.memory.values);
  for (int64_t i = 0; i < count; ++i) {
    const auto size = static_cast<size_t>(sizes[i]);
    if (size > 0) std::memcpy(out + column.size.bytes, base + begins[i], size);
    column.size.bytes += sizes[i];
    column.memory.offsets[++column.size.values] = column.size.bytes;
  }
  batch_.count += count;
}

void BatchBuilder::finish() {
  batch_.bytes = 0;
  for (ParsedBatch::Column& column : batch_.columns) {
    const bool strings = column.type == FeatureType::kBytes;
    column.elements[0] = strings ? column.size.bytes : column.size.values;
    if (strings) column.elements[1] = column.size.values + 1;
    for (int part = 0; part < 2; ++part) batch_.bytes += partBytes(column, part);
  }
}

}  // namespace tensor_bridge
