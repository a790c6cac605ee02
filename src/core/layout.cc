#include "core/layout.h"

namespace tensor_bridge {

bool elementCount(const int64_t* shape, int ndim, int64_t* count) noexcept {
  int64_t total = 1;
  bool empty = false;
  for (int i = 0; i < ndim; ++i) {
    if (shape[i] < 0) return false;
    // A zero makes the tensor empty, but its strides are still products of the other dimensions.
    if (shape[i] == 0) {
      empty = true;
    } else if (__builtin_mul_overflow(total, shape[i], &total)) {
      return false;
    }
  }
  *count = empty ? 0 : total;
  return true;
}

bool byteCount(int64_t count, int64_t itemsize, int64_t* bytes) noexcept {
  return !__builtin_mul_overflow(count, itemsize, bytes);
}

void rowMajorStrides(const int64_t* shape, int ndim, int64_t* strides) noexcept {
  int64_t step = 1;
  for (int i = ndim - 1; i >= 0; --i) {
    strides[i] = step;
    step *= shape[i] > 0 ? shape[i] : 1;
  }
}

bool isRowMajor(const int64_t* shape, const int64_t* strides, int ndim) noexcept {
  if (strides == nullptr) return true;
  for (int i = 0; i < ndim; ++i) {
    if (shape[i] == 0) return true;
  }
  int64_t step = 1;
  for (int i = ndim - 1; i >= 0; --i) {
    if (shape[i] == 1) continue;
    if (strides[i] != step) return false;
    step *= shape[i];
  }
  return true;
}

bool isAligned(const void* data, size_t alignment) noexcept {
  return reinterpret_cast<uintptr_t>(data) % alignment == 0;
}

}  // namespace tensor_bridge
