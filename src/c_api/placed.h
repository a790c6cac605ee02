// The exception barrier around entries that read a file's bytes: a failure has its place in the
// file. Not for: entries that do not read a file (c_api/barrier.h).
#ifndef TENSOR_BRIDGE_C_API_PLACED_H_
#define TENSOR_BRIDGE_C_API_PLACED_H_

#include <algorithm>
#include <cstring>

#include "c_api/barrier.h"
#include "c_api/private_api.h"
#include "formats/format_error.h"

namespace tensor_bridge {

/// guarded(), with the place of a FormatError in `place`, which may be null.
template <typename Body>
tb_status placed(tb_bundle_place* place, Body&& body) noexcept {
  return guarded([&] {
    if (place != nullptr) checkStructSize(place, "tb_bundle_place");
    try {
      body();
    } catch (const FormatError& e) {
      if (place != nullptr) {
        const size_t size = std::min(e.entry().size(), sizeof(place->entry));
        std::memcpy(place->entry, e.entry().data(), size);
        place->entry_size = static_cast<int32_t>(size);
        place->offset = e.offset();
      }
      throw;
    }
  });
}

/// Throws Error{kInvalidOption} for a count below zero.
inline void checkCount(int64_t count) {
  if (count < 0) {
    throwError(ErrorCode::kInvalidOption, "expected a count of at least 0, got %lld",
               static_cast<long long>(count));
  }
}

/// Throws Error{kInvalidOption} for an index past the end.
inline void checkIndex(int64_t index, size_t count) {
  if (index < 0 || static_cast<uint64_t>(index) >= count) {
    throwError(ErrorCode::kInvalidOption, "expected an index below %zu, got %lld", count,
               static_cast<long long>(index));
  }
}

/// Throws Error{kInvalidOption} for records in memory that is not there, or with a place or a size
/// below zero.
inline void checkRecords(const void* base, const int64_t* begins, const int64_t* sizes,
                         int64_t count) {
  checkCount(count);
  if (count == 0) return;
  require(base, "the bytes of records");
  require(begins, "where records begin");
  require(sizes, "the sizes of records");
  for (int64_t i = 0; i < count; ++i) {
    checkCount(begins[i]);
    checkCount(sizes[i]);
  }
}

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_C_API_PLACED_H_
