// tfTensorToPyTorchTensor() and pyTorchTensorToTfTensor(), called like by an application.

#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "support/expect_error.h"
#include "support/owner_scope.h"
#include "support/tf_tensor.h"
#include "tensor_bridge/tensor_bridge.h"

namespace tensor_bridge::testing {
namespace {

class Sdk : public ::testing::Test {
 protected:
  OwnerScope owners_{tb_live_owners};
};

OwnedTfTensor owned(TfTensor tensor) { return OwnedTfTensor(tensor.release(), TF_DeleteTensor); }

// --- TensorFlow to torch ------------------------------------------------------------------------

TEST_F(Sdk, SharesAndOutlivesTheCallersTensor) {
  CountedBuffer buffer(std::vector<float>{1, 2, 3, 4, 5, 6});
  at::Tensor tensor;
  {
    const TfTensor source(TF_FLOAT, {2, 3}, &buffer);
    tensor = tfTensorToPyTorchTensor(source.get());
    EXPECT_EQ(owners_.added(), 1);
  }
  EXPECT_EQ(tensor.const_data_ptr(), buffer.data());
  EXPECT_EQ(tensor.sizes(), (c10::IntArrayRef{2, 3}));
  EXPECT_EQ(tensor.sum().item<float>(), 21.0f);
  EXPECT_EQ(buffer.freed(), 0);
}

TEST_F(Sdk, WritesNeverReachTensorFlow) {
  const TfTensor source = TfTensor::floats({1, 2, 3});
  at::Tensor tensor = tfTensorToPyTorchTensor(source.get());
  const at::Tensor view = tensor.narrow(0, 1, 2);
  view.mul_(10);
  EXPECT_EQ(tensor.sum().item<float>(), 51.0f);
  EXPECT_NE(tensor.const_data_ptr(), source.data());
  EXPECT_EQ(source.values<float>(), (std::vector<float>{1, 2, 3}));
}

TEST_F(Sdk, TakesAnOwnedTensorOver) {
  CountedBuffer buffer(std::vector<float>{1, 2});
  OwnedTfTensor source = owned(TfTensor(TF_FLOAT, {2}, &buffer));
  at::Tensor tensor = tfTensorToPyTorchTensor(std::move(source));
  EXPECT_FALSE(source);
  EXPECT_EQ(tensor.const_data_ptr(), buffer.data());
  EXPECT_EQ(buffer.freed(), 0);
}

TEST_F(Sdk, TakesAnOwnedTensorOverWithOptions) {
  CountedBuffer buffer(std::vector<float>{1, 2});
  OwnedTfTensor source = owned(TfTensor(TF_FLOAT, {2}, &buffer));
  ConvertOptions options;
  options.copy = true;
  const at::Tensor tensor = tfTensorToPyTorchTensor(std::move(source), options);
  EXPECT_FALSE(source);
  EXPECT_EQ(buffer.freed(), 1);
  EXPECT_EQ(tensor.sum().item<float>(), 3.0f);
}

TEST_F(Sdk, FailureLeavesAnOwnedTensorToItsOwner) {
  CountedBuffer buffer(std::vector<uint8_t>{1, 2});
  OwnedTfTensor source = owned(TfTensor(TF_INT4, {2}, &buffer));
  ConvertOptions options;
  options.copy = false;
  expectError(ErrorCode::kCopyRequired, {"copy=False"},
              [&] { tfTensorToPyTorchTensor(std::move(source), options); });
  EXPECT_TRUE(source) << "still the caller's";
  EXPECT_EQ(buffer.freed(), 0);
  expectError(ErrorCode::kInvalidHandle, {"null"},
              [] { tfTensorToPyTorchTensor(OwnedTfTensor(nullptr, TF_DeleteTensor)); });
}

TEST_F(Sdk, ErrorsAreStdExceptionsWithACode) {
  const int64_t none = 0;
  const TfTensor strings(TF_AllocateTensor(TF_STRING, &none, 1, 0));
  try {
    tfTensorToPyTorchTensor(strings.get());
    ADD_FAILURE();
  } catch (const std::runtime_error& e) {
    EXPECT_NE(std::string(e.what()).find("string"), std::string::npos);
  }
  expectError(ErrorCode::kUnsupportedDtype, {"string", "tf.strings"},
              [&] { tfTensorToPyTorchTensor(strings.get()); });
  expectError(ErrorCode::kInvalidHandle, {"null"}, [] { tfTensorToPyTorchTensor(nullptr); });
}

TEST_F(Sdk, OnWriteRaiseThrowsTorchsBufferError) {
  const TfTensor source = TfTensor::floats({1, 2});
  ConvertOptions options;
  options.on_write = OnWrite::kRaise;
  const at::Tensor tensor = tfTensorToPyTorchTensor(source.get(), options);
  EXPECT_THROW(tensor.add_(1), c10::BufferError);
  EXPECT_THROW(tensor.data_ptr(), c10::BufferError);
  EXPECT_EQ(tensor.const_data_ptr(), source.data());
  EXPECT_EQ(tensor.clone().add_(1).sum().item<float>(), 5.0f);
}

TEST_F(Sdk, OnWriteAliasWritesThrough) {
  const TfTensor source = TfTensor::floats({1, 2});
  ConvertOptions options;
  options.on_write = OnWrite::kAlias;
  tfTensorToPyTorchTensor(source.get(), options).add_(1);
  EXPECT_EQ(source.values<float>(), (std::vector<float>{2, 3}));
}

TEST_F(Sdk, OptionsReachTheBridge) {
  ConvertOptions options;
  options.raw = true;
  options.copy = false;
  options.device = Device{DeviceType::kCpu, -1};
  const TfTensor packed(TF_INT4, {2}, std::vector<uint8_t>{0x0f, 0x01});
  const at::Tensor raw = tfTensorToPyTorchTensor(packed.get(), options);
  EXPECT_EQ(raw.scalar_type(), at::kByte);
  EXPECT_EQ(raw.const_data_ptr(), packed.data());

  const TfTensor quantized(TF_QUINT8, {2, 2}, std::vector<uint8_t>{10, 20, 11, 21});
  ConvertOptions channels;
  channels.scale = {1, 2};
  channels.zero_point = {10, 20};
  channels.axis = 1;
  const at::Tensor tensor = tfTensorToPyTorchTensor(quantized.get(), channels);
  EXPECT_EQ(tensor.scalar_type(), at::kQUInt8);
  EXPECT_EQ(tensor.const_data_ptr(), quantized.data());
  EXPECT_EQ(tensor.dequantize().sum().item<float>(), 3.0f);

  channels.zero_point = {10};
  expectError(ErrorCode::kInvalidOption, {"same number of values", "2 and 1"},
              [&] { tfTensorToPyTorchTensor(quantized.get(), channels); });
  ConvertOptions gpu;
  gpu.device = Device{DeviceType::kRocm, 7};
  expectError(ErrorCode::kUnsupportedDevice, {"cuda:7"},
              [&] { tfTensorToPyTorchTensor(packed.get(), gpu); });
}

TEST_F(Sdk, DefaultOptionsAreThoseOfTheCInterface) {
  const tb_convert_options c = detail::toC(ConvertOptions{});
  tb_convert_options defaults;
  tb_convert_options_init(&defaults);
  EXPECT_EQ(c.struct_size, defaults.struct_size);
  EXPECT_EQ(c.copy, defaults.copy);
  EXPECT_EQ(c.on_write, defaults.on_write);
  EXPECT_EQ(c.raw, defaults.raw);
  EXPECT_EQ(c.has_device, defaults.has_device);
  EXPECT_EQ(c.has_axis, defaults.has_axis);
  EXPECT_EQ(c.num_scales, defaults.num_scales);
}

TEST_F(Sdk, InferenceModeGivesInferenceTensors) {
  const TfTensor source = TfTensor::floats({1, 2});
  const c10::InferenceMode mode;
  const at::Tensor tensor = tfTensorToPyTorchTensor(source.get());
  EXPECT_TRUE(tensor.is_inference());
  EXPECT_EQ(tensor.const_data_ptr(), source.data());
}

TEST_F(Sdk, ResultTakesPartInAutograd) {
  const TfTensor source = TfTensor::floats({1, 2, 3});
  const at::Tensor tensor = tfTensorToPyTorchTensor(source.get()).requires_grad_();
  tensor.mul(tensor).sum().backward();
  EXPECT_EQ(tensor.grad().sum().item<float>(), 12.0f);
  EXPECT_EQ(tensor.const_data_ptr(), source.data()) << "the gradient only read the tensor";
}

TEST_F(Sdk, ReleasePreviousGivesTensorFlowsBufferBack) {
  TfTensor source = TfTensor::floats({1, 2, 3});
  at::Tensor tensor = tfTensorToPyTorchTensor(source.get());
  EXPECT_FALSE(releasePrevious(tensor)) << "it did not move";
  EXPECT_EQ(owners_.added(), 1);
  tensor.add_(1);
  EXPECT_EQ(owners_.added(), 1) << "kept for kernels that read it";
  EXPECT_TRUE(releasePrevious(tensor));
  EXPECT_EQ(owners_.added(), 0);
  EXPECT_FALSE(releasePrevious(tensor));
  EXPECT_EQ(source.values<float>(), (std::vector<float>{1, 2, 3}));
  EXPECT_EQ(tensor[2].item<float>(), 4.0f);
  expectError(ErrorCode::kUnsupportedType, {"dense", "x.values()"},
              [] { releasePrevious(at::ones({2, 2}).to_sparse()); });
}

// --- torch to TensorFlow ------------------------------------------------------------------------

TEST_F(Sdk, TorchTensorIsSharedWithTensorFlow) {
  at::Tensor tensor = at::arange(6, at::kFloat).view({2, 3});
  TfTensor back(pyTorchTensorToTfTensor(tensor));
  EXPECT_EQ(back.data(), tensor.const_data_ptr());
  EXPECT_EQ(TF_NumDims(back.get()), 2);
  EXPECT_EQ(TF_TensorType(back.get()), TF_FLOAT);
  EXPECT_EQ(owners_.added(), 1);
  tensor.add_(100);
  EXPECT_NE(back.data(), tensor.const_data_ptr()) << "the write moved torch away";
  EXPECT_EQ(back.values<float>(), (std::vector<float>{0, 1, 2, 3, 4, 5}));
  tensor.reset();
  EXPECT_EQ(back.values<float>()[5], 5.0f);
}

TEST_F(Sdk, RoundTripComesBackToTheSameMemory) {
  const TfTensor source = TfTensor::floats({1, 2, 3});
  const TfTensor back(pyTorchTensorToTfTensor(tfTensorToPyTorchTensor(source.get())));
  EXPECT_EQ(back.data(), source.data());
}

TEST_F(Sdk, ToTfHasOptions) {
  ConvertBackOptions options;
  options.copy = true;
  const at::Tensor tensor = at::ones({3});
  const TfTensor copy(pyTorchTensorToTfTensor(tensor, options));
  EXPECT_NE(copy.data(), tensor.const_data_ptr());
  options.copy = false;
  expectError(ErrorCode::kCopyRequired, {"copy=False"},
              [&] { pyTorchTensorToTfTensor(at::ones({4, 4}).t(), options); });
  options = ConvertBackOptions{};
  options.grad = Grad::kRaise;
  expectError(ErrorCode::kInvalidOption, {"requires grad"},
              [&] { pyTorchTensorToTfTensor(at::ones({2}).requires_grad_(), options); });
}

}  // namespace
}  // namespace tensor_bridge::testing
