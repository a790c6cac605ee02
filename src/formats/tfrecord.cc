#include "formats/tfrecord.h"

#include <algorithm>
#include <cstring>

#include "formats/crc32c.h"

namespace tensor_bridge {
namespace {

constexpr uintptr_t kWalkedAhead = 4;  // records

// Both processors that the package is built for are little-endian, as the format is.
template <typename Number>
Number load(const uint8_t* data) noexcept {
  Number value = 0;
  std::memcpy(&value, data, sizeof value);
  return value;
}

template <typename Number>
uint8_t* store(uint8_t* out, Number value) noexcept {
  std::memcpy(out, &value, sizeof value);
  return out + sizeof value;
}

uint32_t masked(const uint8_t* data, int64_t size) noexcept {
  return maskedCrc32c(crc32c(data, static_cast<size_t>(size)));
}

bool lengthChecks(const uint8_t* header) noexcept {
  return masked(header, 8) == load<uint32_t>(header + 8);
}

}  // namespace

RecordAt recordAt(const uint8_t* data, int64_t size, int64_t at) noexcept {
  RecordAt record;
  const int64_t left = size - at;
  if (left < kRecordHeader) {
    record.fault = RecordFault::kTruncated;
    record.end = at + kRecordHeader;
    return record;
  }
  const uint8_t* header = data + at;
  if (!lengthChecks(header)) {
    record.fault = RecordFault::kLengthCheck;
    return record;
  }
  const auto length = load<uint64_t>(header);
  // The margin of 32 bytes keeps `end` within int64_t.
  const auto most = static_cast<uint64_t>(INT64_MAX - 32 - at);
  record.size = static_cast<int64_t>(std::min(length, most));
  record.end = at + kRecordHeader + record.size + kRecordFooter;
  if (length > static_cast<uint64_t>(left) || record.end > size) {
    record.fault = RecordFault::kTruncated;
  }
  return record;
}

void checkBytes(const uint8_t* data, const void* ahead, RecordAt* record) noexcept {
  const uint8_t* footer = data + record->end - kRecordFooter;
  const auto size = static_cast<size_t>(record->size);
  if (maskedCrc32c(crc32cAhead(footer - size, size, ahead)) != load<uint32_t>(footer)) {
    record->fault = RecordFault::kDataCheck;
  }
}

int64_t RecordScan::scan(const uint8_t* data, int64_t size, int64_t most, int64_t* begins,
                         int64_t* sizes) noexcept {
  fault = RecordFault::kNone;
  fault_at = -1;
  int64_t count = 0;
  while (count < most && next < size) {
    if (searching && !search(data, size)) break;
    RecordAt record = recordAt(data, size, next);
    if (verify && record.fault == RecordFault::kNone) checkBytes(data, data + record.end, &record);
    if (record.fault == RecordFault::kNone) {
      begins[count] = next + kRecordHeader;
      sizes[count] = record.size;
      ++count;
      next = record.end;
      continue;
    }
    if (record.fault == RecordFault::kTruncated && !final) break;
    if (fault == RecordFault::kNone) {
      fault = record.fault;
      fault_at = next;
    }
    if (!skip || !passDamage(data, size, record)) break;
  }
  return count;
}

// Moves past a damaged record, or begins a search. False if later bytes are needed.
bool RecordScan::passDamage(const uint8_t* data, int64_t size, RecordAt record) noexcept {
  if (record.fault == RecordFault::kDataCheck) {
    // The length can be trusted if a record or the end of the file follows. It cannot if bytes were
    // lost or added.
    const bool follows = size - record.end >= kRecordHeader && lengthChecks(data + record.end);
    if (follows || (final && record.end == size)) {
      skipped_records += 1;
      skipped_bytes += record.end - next;
      next = record.end;
      return true;
    }
    if (!final && size - record.end < kRecordHeader) {
      fault = RecordFault::kNone;  // reported when the following bytes are there
      fault_at = -1;
      return false;
    }
  }
  skipped_records += 1;
  skipped_bytes += 1;
  next += 1;
  searching = true;
  return true;
}

// Moves to the next intact record. False if there is none in this memory.
bool RecordScan::search(const uint8_t* data, int64_t size) noexcept {
  const int64_t from = next;
  for (; next + kRecordHeader <= size && budget > 0; ++next) {
    if (!lengthChecks(data + next)) continue;
    RecordAt record = recordAt(data, size, next);
    if (record.fault == RecordFault::kNone) checkBytes(data, nullptr, &record);
    if (record.fault == RecordFault::kTruncated && !final) {
      skipped_bytes += next - from;
      return false;
    }
    if (record.fault == RecordFault::kNone) {
      searching = false;
      break;
    }
    if (record.fault == RecordFault::kDataCheck) budget -= record.size;
  }
  if (searching && (final || budget <= 0)) next = size;
  skipped_bytes += next - from;
  return !searching;
}

RecordPlace placeOf(const RecordFiles& files, int64_t number) noexcept {
  return {std::upper_bound(files.ends, files.ends + files.count, number) - files.ends,
          files.offsets[number]};
}

RecordAt recordAt(const RecordFiles& files, RecordPlace place, bool verify,
                  const void* ahead) noexcept {
  const uint8_t* data = files.data[place.file];
  const int64_t size = files.sizes[place.file];
  if (place.offset < 0 || place.offset > size) return {RecordFault::kTruncated, 0, 0};
  RecordAt record = recordAt(data, size, place.offset);
  if (verify && record.fault == RecordFault::kNone) checkBytes(data, ahead, &record);
  return record;
}

bool RecordWalk::next(RecordPlace* place, RecordFault* fault) noexcept {
  while (at_.file < files_.count && at_.offset >= files_.sizes[at_.file]) at_ = {at_.file + 1, 0};
  if (at_.file >= files_.count) return false;
  const uint8_t* data = files_.data[at_.file];
  const RecordAt record = recordAt(data, files_.sizes[at_.file], at_.offset);
  *place = {at_.file, at_.offset, record.size};
  *fault = record.fault;
  if (record.fault != RecordFault::kNone) {
    at_.offset = files_.sizes[at_.file];
    return true;
  }
  // Prefetches the length of a later record, on the guess that records are as long as this one.
  // Otherwise each step would wait for memory.
  const auto guess = reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(record.end) +
                     kWalkedAhead * static_cast<uintptr_t>(record.end - at_.offset);
  for (const uintptr_t line : {guess - 64, guess}) {
    __builtin_prefetch(reinterpret_cast<const void*>(line));
  }
  at_.offset = record.end;
  return true;
}

void frameRecords(const uint8_t* base, const int64_t* begins, const int64_t* sizes, int64_t count,
                  uint8_t* out) noexcept {
  for (int64_t i = 0; i < count; ++i) {
    const uint8_t* data = base + begins[i];
    const uint8_t* header = out;
    out = store(out, static_cast<uint64_t>(sizes[i]));
    out = store(out, masked(header, 8));
    if (sizes[i] > 0) std::memcpy(out, data, static_cast<size_t>(sizes[i]));
    out = store(out + sizes[i], masked(data, sizes[i]));
  }
}

}  // namespace tensor_bridge
