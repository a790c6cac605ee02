// C++ functions of TensorFlow that are called through pointers: values are passed and returned by
// this processor's ABI. The stand-ins here have classes of the same kind, with a destructor. Such a
// class is returned through memory, and processors differ in how its address is passed.

#include <gtest/gtest.h>

#include <cstring>

#include "adapters/tensorflow/tensor_layout.h"
#include "adapters/tensorflow/tf_api.h"

namespace tensor_bridge::testing {
namespace {

// Stands for absl::Status: one word, which counts references.
struct Status {
  uintptr_t word = 1;
  Status() = default;
  Status(const Status& other) : word(other.word) {}
  ~Status() { ++destroyed; }
  static int destroyed;
};
int Status::destroyed = 0;

// Stands for tensorflow::Tensor: four words.
struct Tensor {
  int64_t words[4] = {};
  Tensor() = default;
  Tensor(const Tensor&) = default;
  ~Tensor() { words[0] = -1; }
};

struct Handle {
  int64_t number = 41;
};

Status tensorOf(const Handle* self, const void** tensor) {
  *tensor = &self->number;
  return {};
}

Tensor slice(const Tensor* self, int64_t start, int64_t limit) {
  Tensor part;
  part.words[0] = self->words[0];
  part.words[1] = start;
  part.words[3] = limit;
  return part;
}

template <typename Called, typename Function>
Called asCalled(Function* function) {
  // Opaque to the compiler, like an address from dlsym().
  void* volatile address = reinterpret_cast<void*>(function);
  return reinterpret_cast<Called>(address);
}

TEST(CallingConvention, AStatusIsReturnedBesideTheTensor) {
  TfApi api{};
  EXPECT_EQ(api.localTensor(nullptr), nullptr) << "no such function";
  api.TensorHandle_Tensor = asCalled<decltype(api.TensorHandle_Tensor)>(tensorOf);
  const Handle handle;
  const void* tensor = api.localTensor(reinterpret_cast<const TFE_TensorHandle*>(&handle));
  EXPECT_EQ(tensor, &handle.number);
  EXPECT_EQ(Status::destroyed, 0) << "an OK status has nothing to release";
}

TEST(CallingConvention, ASliceIsReturnedThroughMemory) {
  Tensor whole;
  whole.words[0] = 5;
  const TensorBytes part = asCalled<TensorSlice>(slice)(&whole, 7, 9);
  int64_t words[4];
  std::memcpy(words, part.bytes, sizeof(words));
  EXPECT_EQ(words[0], 5);
  EXPECT_EQ(words[1], 7);
  EXPECT_EQ(words[3], 9);
}

}  // namespace
}  // namespace tensor_bridge::testing
