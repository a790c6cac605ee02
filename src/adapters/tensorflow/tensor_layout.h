// tensorflow::Tensor in place. Reading a tensor: dtype, shape and data in one call instead of three
// plus one per dimension (25 ns each). Holding its buffer: one reference in 5 ns without
// allocation, where TF_AllocateTensor and TF_TensorBitcastFrom take 250 ns; and TensorFlow can tell
// whether the reference is the last one. Used only if a proof at load shows that it agrees with the
// C API. Not for: handles that are pending, remote or packed.
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
// The layout is the same for all tensors of a build of TensorFlow, so agreement on a few tensors of
// each kind proves agreement on all.
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

/// A tensorflow::TensorBuffer, which counts its references. A single reference keeps the memory
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

/// Drops a reference, through a tensorflow::Tensor that has only the buffer.
void dropBuffer(const TfApi& api, TensorBuffer* buffer) noexcept;

// Note [Who else may have the buffer]
// tensorflow::Tensor::RefCountIsOne() is what TensorFlow's own kernels ask before they write into
// an input (OpKernelContext::forward_input, framework/op_kernel.cc; PrepareToUpdateVariable,
// kernels/training_op_helpers.h). It is true if the buffer has one reference, the buffer that it is
// a part of has one, and the memory is TensorFlow's (framework/tensor.h). Why the answer stays true
// while we hold that reference:
//
// - A new reference is always a copy of another one (the copy constructor of Tensor; a slice takes
//   one to the root). So the holder of the last reference stays alone until it copies it. There are
//   no weak references to a buffer (platform/refcount.h has them only for resources).
// - Every object of TensorFlow that can read the bytes has a reference: a TF_Tensor, a handle
//   (two of them: forwarding_protection_tensor_, common_runtime/eager/tensor_handle.h, so a handle
//   that lives, cached scalars too, is never mistaken for none), a variable, a kernel's inputs and
//   outputs while it runs or waits, an element in a dataset's cache or queue, a variant or list
//   that has the tensor, a constant of a function, a capsule (TensorReference, c/eager/dlpack.cc),
//   an array over the buffer protocol (through its tf.Tensor).
// - Memory that others use without a reference is marked as not TensorFlow's (OwnsMemory()): that
//   of NumPy (lib/core/py_func.cc), of a DLPack producer, of TF_NewTensor
//   (c/tf_tensor_internal.h) and of TF Lite. torch's own memory, which came by TF_NewTensor, too.
// - All earlier uses of the bytes happen before the answer: RefCountIsOne() loads with acquire,
//   Unref() decrements with release (platform/refcount.h). On a GPU their kernels may still be
//   queued, so nothing is taken over there.
// - For a part, RefCountIsOne() asks whether the part owns its memory, and the answer is always yes
//   (SubBuffer in framework/tensor.cc does not forward OwnsMemory() to the root). So the whole is
//   asked too: the slice of a NumPy array still belongs to the array after the whole is gone.
//
// TF_TensorMaybeMove() of the C API is not used, because it does not look at the root.

/// Whether nobody else has, or can get, the buffer's memory, and it may be written to. The caller
/// has one reference and does not copy it meanwhile. False if TensorFlow cannot be asked.
bool bufferLetGo(const TfApi& api, const TensorBuffer* buffer) noexcept;

/// A tensorflow::Tensor that borrows a buffer, with the layout of a TF_Tensor, so that the C API
/// can read it as one. It releases nothing.
struct BorrowedTensor {
  /// With this dtype and shape, if they can be stored in place (readTensorFields()).
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

/// Whether a single reference keeps a buffer alive and dropping it releases the buffer, and whether
/// the C API reads a BorrowedTensor correctly. Called once, when the API is loaded.
bool tensorBufferAgrees(const TfApi& api) noexcept;

/// Returns tensorflow::Tensor::Slice(start, limit) of a tensor. See Note [Calling C++ by its
/// mangled name] in tf_api.h.
struct TensorBytes {
  uint8_t bytes[tensor_layout::kTensorBytes];
};
using TensorSlice = TensorBytes (*)(const void* tensor, int64_t start, int64_t limit);

/// Whether bufferLetGo() distinguishes the last reference from others, on test buffers of each
/// kind: slices, memory that is not TensorFlow's, handles if there are any. Called once, when the
/// API is loaded.
bool tensorLetGoAgrees(const TfApi& api, TensorSlice slice) noexcept;

/// Whether readTensorFields() agrees with the C API on test tensors of every kind that it reads.
/// Called once, when the API is loaded.
bool tensorLayoutAgrees(const TfApi& api) noexcept;

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_TENSOR_LAYOUT_H_
