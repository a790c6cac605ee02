// TensorFlow tensors in torch, in a C++ program without Python.
//
// TensorFlow's C API makes a tensor (in a real program: the output of a model), torch computes with
// it, and no element is copied until somebody writes. Run it:
//
//   shared: true, sum 21
//   after add_(100): torch sum 621, TensorFlow still holds 1 2 3 4 5 6
//   TensorFlow's tensor deleted, torch still reads 1 2 3
//   gradient of sum(w * x): 1 2 3
//   refused: copy=False, but a copy is needed: ...
//   back in TensorFlow: shared true, 6 elements

#include <tensor_bridge/tensor_bridge.h>
#include <torch/torch.h>

#include <cstdint>
#include <cstring>
#include <iostream>
#include <utility>
#include <vector>

#include "tensorflow/c/tf_tensor.h"

namespace {

// A TF_Tensor of dtype float32 or of raw bytes. The caller owns it.
template <typename T>
TF_Tensor* makeTensor(TF_DataType dtype, const std::vector<int64_t>& shape,
                      const std::vector<T>& values) {
  TF_Tensor* tensor = TF_AllocateTensor(dtype, shape.data(), static_cast<int>(shape.size()),
                                        values.size() * sizeof(T));
  std::memcpy(TF_TensorData(tensor), values.data(), values.size() * sizeof(T));
  return tensor;
}

void print(const char* label, const float* values, int64_t count) {
  std::cout << label;
  for (int64_t i = 0; i < count; ++i) std::cout << ' ' << values[i];
  std::cout << '\n';
}

}  // namespace

int main() {
  std::cout << std::boolalpha;

  // 1. Convert. The torch tensor shows TensorFlow's memory and keeps it alive. Compare addresses
  //    through const_data_ptr(): data_ptr() asks for a pointer to write through, which counts as a
  //    write.
  TF_Tensor* source = makeTensor<float>(TF_FLOAT, {2, 3}, {1, 2, 3, 4, 5, 6});
  torch::Tensor x = tensor_bridge::tfTensorToPyTorchTensor(source);
  std::cout << "shared: " << (x.const_data_ptr() == TF_TensorData(source)) << ", sum "
            << x.sum().item<float>() << '\n';

  // 2. Write. TensorFlow takes its tensors to be constants, so the first write moves the torch
  //    tensor, and every view of it, onto memory of torch's own.
  x.add_(100);
  std::cout << "after add_(100): torch sum " << x.sum().item<float>();
  print(", TensorFlow still holds", static_cast<const float*>(TF_TensorData(source)), 6);
  TF_DeleteTensor(source);

  // 3. Hand over. OwnedTfTensor says that the bridge may have the tensor itself; that saves a
  // second
  //    reference to the buffer. If the call throws, the tensor is still ours.
  tensor_bridge::OwnedTfTensor owned(makeTensor<float>(TF_FLOAT, {3}, {1, 2, 3}), TF_DeleteTensor);
  const torch::Tensor input = tensor_bridge::tfTensorToPyTorchTensor(std::move(owned));
  print("TensorFlow's tensor deleted, torch still reads", input.const_data_ptr<float>(),
        input.numel());

  // 4. Compute. It is an ordinary torch tensor: autograd, modules, devices.
  torch::Tensor weight = torch::ones({3}, torch::requires_grad());
  (weight * input).sum().backward();
  print("gradient of sum(w * x):", weight.grad().const_data_ptr<float>(), 3);

  // 5. Say what may happen. copy = false never copies; a dtype that torch lacks then is an error
  //    with a code, and a text that says what to do.
  TF_Tensor* int4 = makeTensor<uint8_t>(TF_INT4, {2}, {0x0f, 0x07});
  tensor_bridge::ConvertOptions options;
  options.copy = false;
  try {
    tensor_bridge::tfTensorToPyTorchTensor(int4, options);
  } catch (const tensor_bridge::Error& error) {
    std::cout << "refused: " << error.what() << '\n';
  }
  TF_DeleteTensor(int4);

  // 6. The way back shares too: the next write on torch's side leaves TensorFlow's values alone.
  torch::Tensor result = torch::arange(6, torch::kFloat);
  TF_Tensor* back = tensor_bridge::pyTorchTensorToTfTensor(result);
  std::cout << "back in TensorFlow: shared " << (TF_TensorData(back) == result.const_data_ptr())
            << ", " << TF_TensorElementCount(back) << " elements\n";
  TF_DeleteTensor(back);
}
