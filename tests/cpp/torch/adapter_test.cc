// The adapter's table of functions: its contract with the bridge, and the exception barrier.

#include <ATen/ops/empty.h>
#include <ATen/ops/imag.h>
#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/version.h>

#include <cstring>
#include <string>
#include <vector>

#include "torch/foreign.h"

namespace tensor_bridge::testing {
namespace {

using ::testing::HasSubstr;

// A handle like the bridge's, with one reference.
tb_torch_tensor* handleOf(const at::Tensor& tensor) {
  at::Tensor reference = tensor;
  return reinterpret_cast<tb_torch_tensor*>(reference.unsafeReleaseTensorImpl());
}

TEST(AdapterTable, IsRefusedToAnotherHost) {
  EXPECT_EQ(tb_torch_adapter_table(kTorchAdapterAbi + 1, Adapter::host()), nullptr);
  EXPECT_EQ(tb_torch_adapter_table(0, Adapter::host()), nullptr);
}

TEST(AdapterTable, SaysWhatItIs) {
  const TorchAdapter& table = Adapter::table();
  EXPECT_EQ(table.abi, kTorchAdapterAbi);
  EXPECT_EQ(table.struct_size, sizeof(TorchAdapter));
  EXPECT_EQ(table.group,
            std::to_string(TORCH_VERSION_MAJOR) + "." + std::to_string(TORCH_VERSION_MINOR));
  EXPECT_TRUE(table.protects);
  EXPECT_EQ(table.protects_gpu, TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 13);
}

TEST(AdapterTable, KnowsTheDevicesOfThisProcess) {
  const TorchAdapter& table = Adapter::table();
  EXPECT_TRUE(table.hasDevice(kDLCPU));
  for (int32_t type : {int{kDLCUDAHost}, int{kDLVulkan}, int{kDLMetal}, 0, -1, 999}) {
    EXPECT_FALSE(table.hasDevice(type)) << type;
  }
}

TEST(ResolveDevice, LeavesTheCpuAlone) {
  Foreign foreign = Foreign::floats(kSix, {6});
  EXPECT_EQ(Adapter::table().resolveDevice(&foreign.ref()), TB_OK);
  EXPECT_EQ(foreign.ref().dl.device.device_type, kDLCPU);
  EXPECT_EQ(foreign.ref().dl.device.device_id, 0);
}

TEST(ResolveDevice, OfAnEmptyTensorIsWhatItsProducerSays) {
  Foreign foreign = Foreign::floats({}, {0});
  foreign.ref().dl.device = DLDevice{kDLCUDA, 5};
  EXPECT_EQ(Adapter::table().resolveDevice(&foreign.ref()), TB_OK);
  EXPECT_EQ(foreign.ref().dl.device.device_id, 5);
}

TEST(ResolveDevice, OfHostMemoryCalledAGpusIsAnError) {
  if (Adapter::table().hasDevice(kDLCUDA)) GTEST_SKIP() << "this torch sees a GPU";
  Foreign foreign = Foreign::floats(kSix, {6});
  foreign.ref().dl.device = DLDevice{kDLCUDA, 0};
  EXPECT_EQ(Adapter::table().resolveDevice(&foreign.ref()), TB_TORCH);
  EXPECT_STRNE(Adapter::error().c_str(), "");
}

TEST(Release, DropsTheReference) {
  Foreign foreign = Foreign::floats(kSix, {6});
  tb_torch_tensor* handle = handleOf(shared(&foreign));
  EXPECT_EQ(foreign.released(), 0);
  Adapter::table().release(handle);
  EXPECT_EQ(foreign.released(), 1);
}

// --- view ---------------------------------------------------------------------------------------

struct Viewed {
  explicit Viewed(const at::Tensor& tensor) {
    tb_torch_tensor* handle = handleOf(tensor);
    status = Adapter::table().view(handle, shape, strides, &view);
    Adapter::table().release(handle);
  }

  int64_t shape[kMaxDims];
  int64_t strides[kMaxDims];
  TensorRef view;
  tb_status status;
};

TEST(View, MaterialisesNothingAndKeepsTheTensor) {
  Foreign foreign = Foreign::floats(kSix, {2, 3});
  const Viewed viewed(shared(&foreign));
  ASSERT_EQ(viewed.status, TB_OK);
  EXPECT_EQ(viewed.view.dl.data, foreign.data());
  EXPECT_EQ(viewed.view.dl.ndim, 2);
  EXPECT_EQ(viewed.shape[1], 3);
  EXPECT_EQ(viewed.strides[0], 3);
  EXPECT_EQ(viewed.view.dtype, Dtype::kFloat32);
  EXPECT_EQ(viewed.view.nbytes, 24);
  EXPECT_TRUE(viewed.view.read_only);
  EXPECT_EQ(foreign.released(), 0);
}

TEST(View, ShowsStridesAndOffset) {
  const at::Tensor base = at::ones({4, 6});
  const at::Tensor slice = base.t().narrow(0, 2, 3);
  const Viewed viewed(slice);
  ASSERT_EQ(viewed.status, TB_OK);
  EXPECT_EQ(viewed.view.dl.data, base.const_data_ptr<float>() + 2);
  EXPECT_EQ(viewed.view.dl.byte_offset, 0u);
  EXPECT_EQ(viewed.shape[0], 3);
  EXPECT_EQ(viewed.shape[1], 4);
  EXPECT_EQ(viewed.strides[0], 1);
  EXPECT_EQ(viewed.strides[1], 6);
  EXPECT_EQ(viewed.view.nbytes, 48);
}

TEST(View, RefusesTensorsWithoutDenseMemory) {
  const at::Tensor tensors[] = {
      at::ones({2, 2}).to_sparse(),
      at::empty({2, 2}, at::TensorOptions().device(at::kMeta)),
  };
  for (const at::Tensor& tensor : tensors) {
    const Viewed viewed(tensor);
    EXPECT_EQ(viewed.status, TB_TORCH);
    EXPECT_THAT(Adapter::error(), HasSubstr("dense tensor with memory"));
  }
}

TEST(View, RefusesDtypesWithoutARow) {
  const Viewed viewed(at::empty({2}, at::TensorOptions().dtype(c10::ScalarType::Bits8)));
  EXPECT_EQ(viewed.status, TB_TORCH);
  EXPECT_THAT(Adapter::error(), HasSubstr("no row"));
}

TEST(View, RefusesMoreDimensionsThanThereIsRoomFor) {
  const Viewed fits(at::empty(std::vector<int64_t>(254, 1)));
  EXPECT_EQ(fits.status, TB_OK);
  const Viewed viewed(at::empty(std::vector<int64_t>(300, 1)));
  EXPECT_EQ(viewed.status, TB_TORCH);
  EXPECT_THAT(Adapter::error(), HasSubstr("254"));
}

TEST(View, RefusesValuesThatAreNotInMemory) {
  // A lazy conjugate and a lazy negation share the memory of their source.
  const at::Tensor complex = at::ones({2}, at::TensorOptions().dtype(at::kComplexFloat));
  for (const at::Tensor& tensor : {complex.conj(), at::imag(complex.conj())}) {
    const Viewed viewed(tensor);
    EXPECT_EQ(viewed.status, TB_TORCH);
    EXPECT_THAT(Adapter::error(), HasSubstr("resolve_"));
  }
}

// --- mutableData --------------------------------------------------------------------------------

TEST(MutableData, MovesTheTensor) {
  auto [foreign, tensor] = SharedFloats(kSix, {6});
  tb_torch_tensor* handle = handleOf(tensor);
  void* data = nullptr;
  EXPECT_EQ(Adapter::table().mutableData(handle, &data), TB_OK);
  EXPECT_NE(data, foreign.data());
  EXPECT_EQ(tensor.const_data_ptr(), data);
  EXPECT_TRUE(foreign.unchanged());
  Adapter::table().release(handle);
}

TEST(MutableData, OfATensorThatMayNotBeWrittenIsAnError) {
  Foreign foreign = Foreign::floats(kSix, {6});
  tb_torch_tensor* handle = handleOf(shared(&foreign, TB_ON_WRITE_RAISE));
  void* data = nullptr;
  EXPECT_EQ(Adapter::table().mutableData(handle, &data), TB_TORCH);
  EXPECT_THAT(Adapter::error(), HasSubstr("on_write=\"raise\""));
  EXPECT_EQ(data, nullptr);
  EXPECT_EQ(foreign.released(), 0) << "the handle is still the caller's";
  Adapter::table().release(handle);
  EXPECT_EQ(foreign.released(), 1);
}

// --- Python's functions in a process without Python ---------------------------------------------

TEST(WithoutPython, SharingSaysSoAndTheOwnerIsReleasedWithItsReference) {
  Foreign foreign = Foreign::floats(kSix, {6});
  const WrapSpec spec = specFor(foreign.ref(), WrapAction::kShare);
  {
    TensorRef ref = std::move(foreign.ref());
    EXPECT_EQ(Adapter::table().sharePython(&ref, &spec), nullptr);
  }
  EXPECT_EQ(Adapter::status(), TB_FRAMEWORK);
  EXPECT_THAT(Adapter::error(), HasSubstr("import torch"));
  EXPECT_EQ(foreign.released(), 1);
}

TEST(WithoutPython, WrappingSaysSoAndTakesTheTensor) {
  Foreign foreign = Foreign::floats(kSix, {6});
  EXPECT_EQ(Adapter::table().toPython(handleOf(shared(&foreign))), nullptr);
  EXPECT_EQ(Adapter::status(), TB_FRAMEWORK);
  EXPECT_EQ(foreign.released(), 1);
}

}  // namespace
}  // namespace tensor_bridge::testing
