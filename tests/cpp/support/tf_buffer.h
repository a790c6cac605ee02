// CountedBuffer: memory for TF_NewTensor that counts whether TensorFlow freed it.
// Not for: memory that TensorFlow allocates; tb_live_owners() counts its owners.
#ifndef TENSOR_BRIDGE_TESTS_SUPPORT_TF_BUFFER_H_
#define TENSOR_BRIDGE_TESTS_SUPPORT_TF_BUFFER_H_

#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace tensor_bridge::testing {

/// Aligned as TensorFlow requires, so that TF_NewTensor does not copy.
class CountedBuffer {
 public:
  explicit CountedBuffer(size_t bytes)
      : data_(std::aligned_alloc(64, (bytes + 63) / 64 * 64 + 64)), bytes_(bytes) {
    std::memset(data_, 0, bytes_ + 1);
  }
  template <typename T>
  explicit CountedBuffer(const std::vector<T>& values) : CountedBuffer(values.size() * sizeof(T)) {
    if (bytes_ > 0) std::memcpy(data_, values.data(), bytes_);
  }
  ~CountedBuffer() {
    EXPECT_EQ(freed(), given_ ? 1 : 0);
    std::free(data_);
  }
  CountedBuffer(const CountedBuffer&) = delete;
  CountedBuffer& operator=(const CountedBuffer&) = delete;

  void* data() { return data_; }
  size_t bytes() const { return bytes_; }
  template <typename T>
  T* as() {
    return static_cast<T*>(data_);
  }
  /// How often TensorFlow freed the memory; 1 at the end.
  int freed() const { return freed_.load(); }

  /// The argument of the deallocator for TF_NewTensor. From this call on TensorFlow owns the
  /// memory, and must free it once before the buffer ends.
  CountedBuffer* give() {
    given_ = true;
    return this;
  }
  static void deallocate(void*, size_t, void* buffer) {
    static_cast<CountedBuffer*>(buffer)->freed_.fetch_add(1);
  }

 private:
  void* data_;
  size_t bytes_;
  bool given_ = false;
  std::atomic<int> freed_{0};
};

}  // namespace tensor_bridge::testing

#endif  // TENSOR_BRIDGE_TESTS_SUPPORT_TF_BUFFER_H_
