#include "device/race_detector.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <sstream>
#include <vector>

#include "device/memory.h"
#include "device/violations.h"

namespace gpu_emulator {
namespace {

/// Bytes up to `end` with the same accesses.
struct Segment {
  uintptr_t end;
  Access write;               // the last write
  std::vector<Access> reads;  // the last read of each stream since then
};

using Segments = std::map<uintptr_t, Segment>;

Segments& segments() {
  static auto* const made = new Segments;
  return *made;
}

/// Makes `at` a border between segments.
void splitAt(uintptr_t at) {
  auto it = segments().upper_bound(at);
  if (it == segments().begin()) return;
  --it;
  if (it->first == at || it->second.end <= at) return;
  Segment tail = it->second;
  it->second.end = at;
  segments().emplace(at, std::move(tail));
}

/// The segment that begins at `at`. If there is none, a new one up to the next segment or to `end`.
Segments::iterator segmentAt(uintptr_t at, uintptr_t end) {
  auto it = segments().lower_bound(at);
  if (it != segments().end() && it->first == at) return it;
  if (it != segments().end()) end = std::min(end, it->first);
  return segments().emplace(at, Segment{end, {}, {}}).first;
}

bool isBefore(const Access& earlier, const Access& later, const Clock& clock) {
  if (earlier.stream < 0 || earlier.stream == later.stream) return true;
  const auto stream = static_cast<size_t>(earlier.stream);
  return stream < clock.size() && clock[stream] >= earlier.sequence;
}

std::string described(const Access& access) {
  std::ostringstream text;
  text << access.name << " (stream " << access.stream << " #" << access.sequence << ", thread "
       << access.thread << ")";
  return text.str();
}

void check(const Access& earlier, const char* was, const Access& later, const char* is,
           const Clock& clock, uintptr_t begin, uintptr_t end) {
  if (isBefore(earlier, later, clock)) return;
  std::ostringstream text;
  text << "race: " << is << " by " << described(later) << " is not ordered after the " << was
       << " by " << described(earlier) << ", at " << std::hex << std::showbase << begin << ".."
       << end;
  addViolationLocked(std::string(is) + later.name + was + earlier.name, text.str());
}

void record(Segment* segment, uintptr_t begin, bool write, const Access& access,
            const Clock& clock) {
  const char* const is = write ? "write" : "read";
  check(segment->write, "write", access, is, clock, begin, segment->end);
  auto& reads = segment->reads;
  if (!write) {
    const auto same = [&](const Access& read) { return read.stream == access.stream; };
    reads.erase(std::remove_if(reads.begin(), reads.end(), same), reads.end());
    reads.push_back(access);
    return;
  }
  for (const Access& read : reads) check(read, "read", access, is, clock, begin, segment->end);
  reads.clear();
  segment->write = access;
}

bool isAllocated(const Range& range) {
  const Allocation found = allocationOfLocked(range.data);
  return found.kind == MemoryKind::kDevice &&
         reinterpret_cast<uintptr_t>(range.data) + range.size <= found.base + found.size;
}

}  // namespace

void recordAccessLocked(const Range& range, bool write, const Access& access, const Clock& clock) {
  if (range.size == 0 || !isDeviceAddress(range.data)) return;
  const auto begin = reinterpret_cast<uintptr_t>(range.data);
  const uintptr_t end = begin + range.size;
  if (!isAllocated(range)) {
    std::ostringstream text;
    text << access.name << " touches device memory that is not allocated, " << std::hex
         << std::showbase << begin << ".." << end;
    addViolationLocked("not allocated" + access.name, text.str());
    return;
  }
  splitAt(begin);
  splitAt(end);
  for (uintptr_t at = begin; at < end;) {
    const auto it = segmentAt(at, end);
    record(&it->second, at, write, access, clock);
    at = it->second.end;
  }
}

void forgetRangeLocked(const Range& range) {
  const auto begin = reinterpret_cast<uintptr_t>(range.data);
  const uintptr_t end = begin + range.size;
  splitAt(begin);
  splitAt(end);
  segments().erase(segments().lower_bound(begin), segments().lower_bound(end));
}

}  // namespace gpu_emulator
