// Times both directions in a process without Python, compared with an application's own code:
// at::from_blob() with a deleter, and TF_NewTensor() over torch's memory, neither of which protects
// the memory. Every case is checked once before it is timed.

#include <ATen/ops/from_blob.h>
#include <ATen/ops/ones.h>
#include <benchmark/benchmark.h>
#include <tensorflow/c/tf_tensor.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <utility>
#include <vector>

#include "tensor_bridge/tensor_bridge.h"

namespace {

using tensor_bridge::OwnedTfTensor;
using tensor_bridge::pyTorchTensorToTfTensor;
using tensor_bridge::tfTensorToPyTorchTensor;

// Tensors made before the timing, for cases that use up one per call.
constexpr int kBatch = 256;
constexpr float kValue = 7;

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "wrong result: %s\n", what);
  std::exit(1);
}

std::vector<int64_t> shapeOf(const benchmark::State& state) {
  return std::vector<int64_t>(static_cast<size_t>(state.range(0)), 2);
}

TF_Tensor* makeTensor(const std::vector<int64_t>& shape) {
  size_t elements = 1;
  for (const int64_t size : shape) elements *= static_cast<size_t>(size);
  TF_Tensor* tensor = TF_AllocateTensor(TF_FLOAT, shape.data(), static_cast<int>(shape.size()),
                                        elements * sizeof(float));
  std::fill_n(static_cast<float*>(TF_TensorData(tensor)), elements, kValue);
  return tensor;
}

void checkTorch(const at::Tensor& tensor, const void* data, const std::vector<int64_t>& shape) {
  require(tensor.const_data_ptr() == data, "not the same memory");
  require(tensor.sizes() == c10::IntArrayRef(shape), "another shape");
  require(tensor.max().item<float>() == kValue && tensor.min().item<float>() == kValue, "values");
}

// --- TensorFlow to torch, the TF_Tensor stays the caller's
// ----------------------------------------

void fromBlob(benchmark::State& state) {
  const std::vector<int64_t> shape = shapeOf(state);
  TF_Tensor* tensor = makeTensor(shape);
  void* data = TF_TensorData(tensor);
  int64_t deleted = 0;
  const auto convert = [&] {
    return at::from_blob(data, shape, [&deleted](void*) { ++deleted; }, at::kFloat);
  };
  checkTorch(convert(), data, shape);
  require(deleted == 1, "the deleter was not called");
  for (auto _ : state) benchmark::DoNotOptimize(convert());
  TF_DeleteTensor(tensor);
}

void share(benchmark::State& state) {
  const std::vector<int64_t> shape = shapeOf(state);
  TF_Tensor* tensor = makeTensor(shape);
  checkTorch(tfTensorToPyTorchTensor(tensor), TF_TensorData(tensor), shape);
  for (auto _ : state) benchmark::DoNotOptimize(tfTensorToPyTorchTensor(tensor));
  TF_DeleteTensor(tensor);
}

// --- the TF_Tensor goes to torch
// ------------------------------------------------------------------

// Makes the tensors outside of the time; their release is in it.
template <typename Convert>
void useUp(benchmark::State& state, Convert convert) {
  const std::vector<int64_t> shape = shapeOf(state);
  {
    TF_Tensor* tensor = makeTensor(shape);
    const void* data = TF_TensorData(tensor);
    checkTorch(convert(tensor, shape), data, shape);
  }
  std::array<TF_Tensor*, kBatch> tensors;
  while (state.KeepRunningBatch(kBatch)) {
    state.PauseTiming();
    for (TF_Tensor*& tensor : tensors) tensor = makeTensor(shape);
    state.ResumeTiming();
    for (TF_Tensor* tensor : tensors) benchmark::DoNotOptimize(convert(tensor, shape));
  }
}

void fromBlobTakingOver(benchmark::State& state) {
  useUp(state, [](TF_Tensor* tensor, const std::vector<int64_t>& shape) {
    return at::from_blob(
        TF_TensorData(tensor), shape, [tensor](void*) { TF_DeleteTensor(tensor); }, at::kFloat);
  });
}

void takeOver(benchmark::State& state) {
  useUp(state, [](TF_Tensor* tensor, const std::vector<int64_t>&) {
    return tfTensorToPyTorchTensor(OwnedTfTensor(tensor, TF_DeleteTensor));
  });
}

// --- torch to TensorFlow
// --------------------------------------------------------------------------

template <typename Convert>
void toTensorFlow(benchmark::State& state, Convert convert) {
  const at::Tensor source = at::ones(shapeOf(state)).mul_(kValue);
  TF_Tensor* checked = convert(source);
  require(TF_TensorData(checked) == source.const_data_ptr(), "not the same memory");
  require(TF_NumDims(checked) == source.dim(), "another shape");
  TF_DeleteTensor(checked);
  for (auto _ : state) {
    TF_Tensor* tensor = convert(source);
    benchmark::DoNotOptimize(tensor);
    TF_DeleteTensor(tensor);
  }
}

void newTensor(benchmark::State& state) {
  toTensorFlow(state, [](const at::Tensor& source) {
    const auto release = [](void*, size_t, void* kept) { delete static_cast<at::Tensor*>(kept); };
    return TF_NewTensor(TF_FLOAT, source.sizes().data(), static_cast<int>(source.dim()),
                        const_cast<void*>(source.const_data_ptr()), source.nbytes(), release,
                        new at::Tensor(source));
  });
}

void shareToTf(benchmark::State& state) {
  toTensorFlow(state, [](const at::Tensor& source) { return pyTorchTensorToTfTensor(source); });
}

BENCHMARK(fromBlob)->Name("to_torch/at::from_blob")->DenseRange(0, 4, 2);
BENCHMARK(share)->Name("to_torch/tfTensorToPyTorchTensor(t)")->DenseRange(0, 4, 2);
BENCHMARK(fromBlobTakingOver)->Name("taking over/at::from_blob")->DenseRange(0, 4, 2);
BENCHMARK(takeOver)->Name("taking over/tfTensorToPyTorchTensor(owned)")->DenseRange(0, 4, 2);
BENCHMARK(newTensor)->Name("to_tf/TF_NewTensor")->DenseRange(0, 4, 2);
BENCHMARK(shareToTf)->Name("to_tf/pyTorchTensorToTfTensor(x)")->DenseRange(0, 4, 2);

}  // namespace

BENCHMARK_MAIN();
