// A fake TensorFlow that a test controls: the TF_* and TFE_* functions that the bridge uses, in a
// separate library (support/fake_tensorflow.cc). It gives wrong shapes and sizes and fails on
// request. Not for: the behaviour of the real TensorFlow (tests/cpp/tensorflow).
#ifndef TENSOR_BRIDGE_TESTS_SUPPORT_FAKE_TENSORFLOW_H_
#define TENSOR_BRIDGE_TESTS_SUPPORT_FAKE_TENSORFLOW_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

struct TF_Tensor;
struct TFE_TensorHandle;

namespace tensor_bridge::testing {

/// The properties that a fake tensor or handle reports. They need not be true.
struct FakeSpec {
  int dtype = 1;
  int ndim = 0;
  const int64_t* dims = nullptr;
  size_t byte_size = 0;  // tensors only
  void* data = nullptr;  // not owned
  // Handles only. `fails_in` names the function that fails with `code` and `message`.
  const char* backing_device = "/job:localhost/replica:0/task:0/device:CPU:0";
  const char* device = "/job:localhost/replica:0/task:0/device:CPU:0";
  const char* fails_in = "";
  int code = 13;
  const char* message = "";
};

struct FakeTensorflow {
  TF_Tensor* (*tensor)(const FakeSpec* spec);
  TFE_TensorHandle* (*handle)(const FakeSpec* spec);

  // Settings; reset() clears them.
  std::atomic<bool> allocate_fails;
  std::atomic<const char*> bitcast_error;
  // Successive reads of a variable return these values in turn. Read number `read_fails_at` (from
  // 1) fails, in the function `read_fails_in`.
  FakeSpec reads[4];
  std::atomic<int> read_values;
  std::atomic<int> read_fails_at;
  std::atomic<const char*> read_fails_in;
  bool variable_is_assigned;

  // Counts of live objects and of calls.
  std::atomic<int> tensors;
  std::atomic<int> handles;
  std::atomic<int> statuses;
  std::atomic<int> ops;
  std::atomic<int> reads_done;
  std::atomic<int> device_pointer_calls;
  std::atomic<int> allocate_calls;

  void reset() {
    allocate_fails = false;
    bitcast_error = nullptr;
    read_values = 0;
    read_fails_at = 0;
    read_fails_in = nullptr;
    variable_is_assigned = true;
    reads_done = 0;
    device_pointer_calls = 0;
    allocate_calls = 0;
  }
};

/// The library's function that is not TensorFlow's.
using FakeTensorflowEntry = FakeTensorflow* (*)();
constexpr const char* kFakeTensorflowEntry = "fake_tensorflow";

}  // namespace tensor_bridge::testing

#endif  // TENSOR_BRIDGE_TESTS_SUPPORT_FAKE_TENSORFLOW_H_
