// TfTensor: a TF_Tensor made with TensorFlow's own C API, owned by a test.
// Not for: code that includes adapters/tensorflow/tf_api.h, which names TF_Status itself.
#ifndef TENSOR_BRIDGE_TESTS_SUPPORT_TF_TENSOR_H_
#define TENSOR_BRIDGE_TESTS_SUPPORT_TF_TENSOR_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "support/tf_buffer.h"
#include "tensorflow/c/tf_tensor.h"

namespace tensor_bridge::testing {

class TfTensor {
 public:
  explicit TfTensor(TF_Tensor* tensor) : tensor_(tensor) { EXPECT_NE(tensor, nullptr); }
  /// A tensor in memory that TensorFlow allocates.
  template <typename T>
  TfTensor(TF_DataType dtype, const std::vector<int64_t>& shape, const std::vector<T>& values)
      : TfTensor(TF_AllocateTensor(dtype, shape.data(), static_cast<int>(shape.size()),
                                   values.size() * sizeof(T))) {
    if (!values.empty()) {
      std::memcpy(TF_TensorData(tensor_), values.data(), values.size() * sizeof(T));
    }
  }
  /// A tensor over the memory of `buffer`, which counts when TensorFlow frees it.
  TfTensor(TF_DataType dtype, const std::vector<int64_t>& shape, CountedBuffer* buffer)
      : TfTensor(TF_NewTensor(dtype, shape.data(), static_cast<int>(shape.size()), buffer->data(),
                              buffer->bytes(), CountedBuffer::deallocate, buffer->give())) {}
  static TfTensor floats(const std::vector<float>& values) {
    return TfTensor(TF_FLOAT, {static_cast<int64_t>(values.size())}, values);
  }
  TfTensor(TfTensor&& other) noexcept : tensor_(std::exchange(other.tensor_, nullptr)) {}
  TfTensor(const TfTensor&) = delete;
  ~TfTensor() { reset(); }

  TF_Tensor* get() const { return tensor_; }
  const void* data() const { return TF_TensorData(tensor_); }
  TF_Tensor* release() { return std::exchange(tensor_, nullptr); }
  void reset() {
    if (tensor_ != nullptr) TF_DeleteTensor(std::exchange(tensor_, nullptr));
  }
  template <typename T>
  std::vector<T> values() const {
    const T* data = static_cast<const T*>(TF_TensorData(tensor_));
    return std::vector<T>(data, data + TF_TensorByteSize(tensor_) / sizeof(T));
  }

 private:
  TF_Tensor* tensor_;
};

}  // namespace tensor_bridge::testing

#endif  // TENSOR_BRIDGE_TESTS_SUPPORT_TF_TENSOR_H_
