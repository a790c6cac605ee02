// tensorflow::Tensor in place. Reading one: dtype, shape and data in one call instead of three and
// one a dimension (25 ns each). Holding its buffer: one reference for 5 ns and no allocation, where
// TF_AllocateTensor and TF_TensorBitcastFrom take 250; and TensorFlow can be asked whether it is
// the last one. Used only where it was proved, at load, to agree with the C API. Not for: handles
// that are pending, remote or packed.
//
// Note [Layout of tensorflow::Tensor]
// tensorflow/core/framework/tensor.h and tensor_shape.h, the same in 2.12 to 2.21:
//   Tensor      { TensorShape shape_ (24 bytes); TensorBuffer* buf_; }
//   TensorShape { uint8 buf[16]; int64 num_elements_; }
//     buf[13] DataType, buf[14] number of dimensions, buf[15] how the sizes are kept:
//     0: uint16 each, 1: uint32 each, 2: elsewhere (not read here)
//   TensorBuffer { vtable; int64 reference count, atomic; void* data_; }
// tensorflow/c/tf_tensor_internal.h, tensorflow/core/common_runtime/... (TensorInterface),
// likewise:
//   TF_Tensor       { TensorInterface* tensor; }
//   TensorInterface { vtable; Tensor tensor_; }
// The compiler lays this out once for a build of TensorFlow, so agreement on a few tensors of each
// kind is agreement on all of them.
#ifndef TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_TENSOR_LAYOUT_H_
#define TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_TENSOR_LAYOUT_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace tensor_bridge {

/// Note [Layout of tensorflow::Tensor] as offsets in bytes, and what `kSizesKeptAt` says.
namespace tensor_layout {
constexpr size_t kDtypeAt = 13;
constexpr size_t kRankAt = 14;
constexpr size_t kSizesKeptAt = 15;
constexpr size_t kElementsAt = 16;
constexpr size_t kBufferAt = 24;
constexpr size_t kTensorBytes = 32;
enum SizesKept : uint8_t { kIn16Bits = 0, kIn32Bits = 1 };
constexpr int kMost16Bits = 6;
constexpr int kMost32Bits = 3;
}  // namespace tensor_layout

struct TensorFields {
  int tf_enum;
  int ndim;
  int64_t num_elements;
  void* data;  // null for a tensor without a buffer
};

/// A tensorflow::TensorBuffer, which counts its references. One of them is all that keeps memory
/// alive for torch.
struct TensorBuffer {
  const void* vtable;
  int64_t references;
  void* data;
};

/// The buffer of a tensorflow::Tensor; null for one without elements.
inline TensorBuffer* bufferOf(const void* tensor) noexcept {
  TensorBuffer* buffer;
  std::memcpy(&buffer, static_cast<const uint8_t*>(tensor) + tensor_layout::kBufferAt,
              sizeof(buffer));
  return buffer;
}

/// Reads `tensor`, a tensorflow::Tensor. False where the sizes are kept elsewhere.
[[gnu::always_inline]] inline bool readTensorFields(const void* tensor, int64_t* shape,
                                                    TensorFields* fields) noexcept {
  using namespace tensor_layout;  // NOLINT: the offsets of one struct
  const auto* bytes = static_cast<const uint8_t*>(tensor);
  const int ndim = bytes[kRankAt];
  switch (bytes[kSizesKeptAt]) {
    case kIn16Bits: {
      if (ndim > kMost16Bits) return false;
      uint16_t sizes[kMost16Bits];
      std::memcpy(sizes, bytes, sizeof(sizes));
      for (int i = 0; i < ndim; ++i) shape[i] = sizes[i];
      break;
    }
    case kIn32Bits: {
      if (ndim > kMost32Bits) return false;
      uint32_t sizes[kMost32Bits];
      std::memcpy(sizes, bytes, sizeof(sizes));
      for (int i = 0; i < ndim; ++i) shape[i] = sizes[i];
      break;
    }
    default:
      return false;
  }
  fields->tf_enum = bytes[kDtypeAt];
  fields->ndim = ndim;
  std::memcpy(&fields->num_elements, bytes + kElementsAt, sizeof(int64_t));
  const TensorBuffer* buffer = bufferOf(tensor);
  fields->data = buffer == nullptr ? nullptr : buffer->data;
  return true;
}

/// The tensorflow::Tensor inside a TF_Tensor.
inline const void* tensorInside(const void* tf_tensor) noexcept {
  const uint8_t* interface;
  std::memcpy(&interface, tf_tensor, sizeof(interface));
  return interface + sizeof(void*);
}

inline void retainBuffer(TensorBuffer* buffer) noexcept {
  __atomic_fetch_add(&buffer->references, 1, __ATOMIC_RELAXED);
}

struct TfApi;

/// Drops a reference: through a tensorflow::Tensor that has nothing but the buffer.
void dropBuffer(const TfApi& api, TensorBuffer* buffer) noexcept;

// Note [Who else may have the buffer]
// tensorflow::Tensor::RefCountIsOne() is what TensorFlow's own kernels ask before they write into
// an input (OpKernelContext::forward_input, framework/op_kernel.cc; PrepareToUpdateVariable,
// kernels/training_op_helpers.h). It is true if the buffer has one reference, the buffer that it is
// a part of has one, and the memory is TensorFlow's (framework/tensor.h). Why the answer holds for
// us, who have the one reference:
//
// - A reference comes into being only as a copy of another one (the copy constructor of Tensor; a
//   slice takes one to the root). Who has the last one is alone, and stays so until he copies it.
//   There are no weak references to a buffer (platform/refcount.h has them for resources only).
// - Everything of TensorFlow's that can show the bytes has a reference: a TF_Tensor, a handle
//   (two of them: forwarding_protection_tensor_, common_runtime/eager/tensor_handle.h, so a handle
//   that lives, cached scalars too, is never mistaken for none), a variable, a kernel's inputs and
//   outputs while it runs or waits, an element in a dataset's cache or queue, a variant or list
//   that has the tensor, a constant of a function, a capsule (TensorReference, c/eager/dlpack.cc),
//   an array over the buffer protocol (through its tf.Tensor).
// - Memory that others see without a reference says that it is not TensorFlow's
//   (OwnsMemory()): that of NumPy (lib/core/py_func.cc), of a DLPack producer and of TF_NewTensor
//   (c/tf_tensor_internal.h), of TF Lite. So does torch's own, which came by TF_NewTensor.
// - What they did with the bytes comes before the answer: RefCountIsOne() loads with acquire,
//   Unref() decrements with release (platform/refcount.h). On a GPU their kernels may still be
//   queued, so nothing is taken over there.
// - Of a part it asks whether the part owns its memory, and parts always say so (SubBuffer in
//   framework/tensor.cc passes OwnsMemory() on to nobody). So the whole is asked too: the slice of
//   a NumPy array whose whole is gone is still the array's.
//
// Not asked: TF_TensorMaybeMove() of the C API, which does not look at the root.

/// Whether nobody else has the buffer's memory, for good, and it may be written to. The caller has
/// one reference and copies it nowhere meanwhile. False where TensorFlow cannot be asked.
bool bufferLetGo(const TfApi& api, const TensorBuffer* buffer) noexcept;

/// A tensorflow::Tensor that borrows a buffer, laid out as a TF_Tensor is: the C API may read it as
/// one. Nothing of it is released.
struct BorrowedTensor {
  /// With this dtype and shape, where it can be written down here (readTensorFields()).
  static bool make(const TfApi& api, int tf_enum, const int64_t* shape, int ndim,
                   const TensorBuffer* buffer, BorrowedTensor* out) noexcept;
  /// A vector of `count` elements, of which only their number may be read.
  static void makeFlat(const TfApi& api, int tf_enum, int64_t count, const TensorBuffer* buffer,
                       BorrowedTensor* out) noexcept;

  BorrowedTensor() = default;
  BorrowedTensor(const BorrowedTensor&) = delete;
  BorrowedTensor& operator=(const BorrowedTensor&) = delete;

  const void* interface;  // the next field
  const void* interface_vtable;
  uint8_t tensor[tensor_layout::kTensorBytes];
};

/// The vtable that a TF_Tensor points to, through which the C API reads a BorrowedTensor. Null if a
/// TF_Tensor cannot be made.
const void* interfaceVtable(const TfApi& api) noexcept;

/// Whether a reference to a buffer keeps it alive on its own and lets it go, and whether the C API
/// reads a BorrowedTensor right. Called once, when the API is loaded.
bool tensorBufferAgrees(const TfApi& api) noexcept;

/// Returns tensorflow::Tensor::Slice(start, limit) of a tensor.
struct TensorBytes {
  uint8_t bytes[tensor_layout::kTensorBytes];
};
using TensorSlice = TensorBytes (*)(const void* tensor, int64_t start, int64_t limit);

/// Whether bufferLetGo() tells the last reference from others, on buffers of each kind made for the
/// purpose: slices, memory that is not TensorFlow's, handles where there are any. Called once, when
/// the API is loaded.
bool tensorLetGoAgrees(const TfApi& api, TensorSlice slice) noexcept;

/// Whether readTensorFields() agrees with the C API on tensors of every kind that it reads, made
/// for the purpose. Called once, when the API is loaded.
bool tensorLayoutAgrees(const TfApi& api) noexcept;

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_TENSOR_LAYOUT_H_
