// An application of the SDK, built outside our tree. It checks an installed package: headers that
// are complete by themselves, a library that finds its neighbours, and conversions of borrowed and
// of owned tensors. Prints "ok" and returns 0, or prints the error and exits with 1.

#include <tensor_bridge/tensor_bridge.h>

// After our headers, which must not need these.
#include <ATen/ATen.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <utility>
#include <vector>

#include "tensorflow/c/tf_tensor.h"

namespace {

void check(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "consumer: %s\n", what);
  std::exit(1);
}

TF_Tensor* makeTensor(const std::vector<float>& values) {
  const auto size = static_cast<int64_t>(values.size());
  TF_Tensor* tensor = TF_AllocateTensor(TF_FLOAT, &size, 1, values.size() * sizeof(float));
  std::memcpy(TF_TensorData(tensor), values.data(), values.size() * sizeof(float));
  return tensor;
}

void sharesAndProtects() {
  TF_Tensor* source = makeTensor({1, 2, 3});
  at::Tensor tensor = tensor_bridge::tfTensorToPyTorchTensor(source);
  check(tensor.const_data_ptr() == TF_TensorData(source), "the memory is not shared");
  check(tensor.sum().item<float>() == 6, "wrong values");
  tensor.add_(1);
  check(tensor.sum().item<float>() == 9, "the write did not happen");
  check(static_cast<const float*>(TF_TensorData(source))[0] == 1, "the write reached TensorFlow");
  TF_DeleteTensor(source);
}

void outlivesTheSource() {
  at::Tensor tensor;
  {
    tensor_bridge::OwnedTfTensor source(makeTensor({4, 5}), TF_DeleteTensor);
    tensor = tensor_bridge::tfTensorToPyTorchTensor(std::move(source));
  }
  check(tb_live_owners() == 1, "the buffer has no owner");
  check(tensor.sum().item<float>() == 9, "wrong values after the source is gone");
}

void reportsErrors() {
  const int64_t none = 0;
  TF_Tensor* strings = TF_AllocateTensor(TF_STRING, &none, 1, 0);
  try {
    tensor_bridge::ConvertOptions options;
    options.copy = false;
    tensor_bridge::tfTensorToPyTorchTensor(strings, options);
    check(false, "strings were converted");
  } catch (const tensor_bridge::Error& e) {
    check(e.code() == tensor_bridge::ErrorCode::kUnsupportedDtype, e.what());
  }
  TF_DeleteTensor(strings);
}

void goesBack() {
  at::Tensor tensor = at::arange(8, at::kFloat);
  TF_Tensor* result = tensor_bridge::pyTorchTensorToTfTensor(tensor);
  check(TF_TensorData(result) == tensor.const_data_ptr(), "torch's memory is not shared");
  tensor.zero_();
  check(static_cast<const float*>(TF_TensorData(result))[7] == 7, "TensorFlow's values changed");
  TF_DeleteTensor(result);
}

void worksWithoutTorchTypes() {
  TF_Tensor* source = makeTensor({1, 2});
  const tensor_bridge::ManagedTensor view = tensor_bridge::ManagedTensor::fromTf(source);
  check(view.data() == TF_TensorData(source), "the view copies");
  check(!tensor_bridge::dtypeTable().empty(), "no dtype table");
  TF_DeleteTensor(source);
}

}  // namespace

int main() {
  try {
    check(std::strcmp(tb_version(), TENSOR_BRIDGE_VERSION) == 0, "headers of another version");
    sharesAndProtects();
    outlivesTheSource();
    reportsErrors();
    goesBack();
    worksWithoutTorchTypes();
    check(tb_live_owners() == 0, "a buffer was leaked");
  } catch (const std::exception& e) {
    check(false, e.what());
  }
  std::puts("ok");
  return 0;
}
