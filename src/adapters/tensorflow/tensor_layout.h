// tensorflow::Tensor in place. Reading one: dtype, shape and data in one call instead of three and
// one a dimension (25 ns each). Aliasing one: another reference to its buffer for 30 ns, where
// TF_AllocateTensor and TF_TensorBitcastFrom take 250. Used only where it was proved, at load, to
// agree with the C API. Not for: handles that are pending, remote, packed or off the host.
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

#include <cstdint>
#include <cstring>

namespace tensor_bridge {

struct TensorFields {
  int tf_enum;
  int ndim;
  int64_t num_elements;
  void* data;  // null for a tensor without a buffer
};

/// Reads `tensor`, a tensorflow::Tensor. False where the sizes are kept elsewhere.
[[gnu::always_inline]] inline bool readTensorFields(const void* tensor, int64_t* shape,
                                                    TensorFields* fields) noexcept {
  const auto* bytes = static_cast<const uint8_t*>(tensor);
  const int ndim = bytes[14];
  switch (bytes[15]) {
    case 0: {
      if (ndim > 6) return false;
      uint16_t sizes[6];
      std::memcpy(sizes, bytes, sizeof(sizes));
      for (int i = 0; i < ndim; ++i) shape[i] = sizes[i];
      break;
    }
    case 1: {
      if (ndim > 3) return false;
      uint32_t sizes[3];
      std::memcpy(sizes, bytes, sizeof(sizes));
      for (int i = 0; i < ndim; ++i) shape[i] = sizes[i];
      break;
    }
    default:
      return false;
  }
  fields->tf_enum = bytes[13];
  fields->ndim = ndim;
  std::memcpy(&fields->num_elements, bytes + 16, sizeof(int64_t));
  const uint8_t* buffer;
  std::memcpy(&buffer, bytes + 24, sizeof(buffer));
  fields->data = nullptr;
  if (buffer != nullptr) std::memcpy(&fields->data, buffer + 16, sizeof(void*));
  return true;
}

/// The tensorflow::Tensor inside a TF_Tensor.
inline const void* tensorInside(const void* tf_tensor) noexcept {
  const uint8_t* interface;
  std::memcpy(&interface, tf_tensor, sizeof(interface));
  return interface + sizeof(void*);
}

/// A reference to the buffer of a TF_Tensor, laid out as a TF_Tensor is: the C API may read it as
/// one. It is released with releaseAlias(), never with TF_DeleteTensor().
struct TensorAlias {
  const void* interface;  // the next field
  const void* interface_vtable;
  uint8_t tensor[32];
  void (*destroy)(void* tensor);
};

struct TfApi;

/// A new alias of a tensor that readTensorFields() can read, or null without memory. `destroy` is
/// the Tensor_destroy of the table that proved the layout.
TensorAlias* makeAlias(const void* tf_tensor, void (*destroy)(void* tensor)) noexcept;
void releaseAlias(TensorAlias* alias) noexcept;

/// Whether an alias shows what the C API shows, keeps the buffer alive on its own, and lets it go.
/// Called once, when the API is loaded.
bool tensorAliasAgrees(const TfApi& api) noexcept;

/// Whether readTensorFields() agrees with the C API on tensors of every kind that it reads, made
/// for the purpose. Called once, when the API is loaded.
bool tensorLayoutAgrees(const TfApi& api) noexcept;

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_TENSOR_LAYOUT_H_
