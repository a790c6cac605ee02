// Layout arithmetic: element counts with overflow checks, strides, contiguity, alignment.
// Not for: anything that looks at elements.
#ifndef TENSOR_BRIDGE_CORE_LAYOUT_H_
#define TENSOR_BRIDGE_CORE_LAYOUT_H_

#include <cstddef>
#include <cstdint>

namespace tensor_bridge {

/// Number of elements. False if a dimension is negative or the product of those that are not zero
/// overflows int64: the row-major strides would not fit.
bool elementCount(const int64_t* shape, int ndim, int64_t* count) noexcept;

/// count * itemsize. False on overflow.
bool byteCount(int64_t count, int64_t itemsize, int64_t* bytes) noexcept;

/// Row-major strides in elements; dimensions of size 0 count as 1, as in torch.
void rowMajorStrides(const int64_t* shape, int ndim, int64_t* strides) noexcept;

/// Null strides are row-major. Strides of size-1 dimensions do not matter, nor does any stride
/// when there are no elements.
bool isRowMajor(const int64_t* shape, const int64_t* strides, int ndim) noexcept;

/// TensorFlow requires 64 bytes (EIGEN_MAX_ALIGN_BYTES of its builds) and aborts below that.
constexpr size_t kTensorFlowAlignment = 64;
bool isAligned(const void* data, size_t alignment) noexcept;

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_CORE_LAYOUT_H_
