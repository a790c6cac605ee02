// exportTensor() with the real TensorFlow.

#include "adapters/tensorflow/reader.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "adapters/tensorflow/owner.h"
#include "core/layout.h"
#include "core/owner_counter.h"
#include "support/expect_error.h"
#include "support/exported.h"
#include "support/owner_scope.h"
#include "support/tf_buffer.h"

namespace tensor_bridge::testing {
namespace {

TF_Tensor* tensorOver(CountedBuffer* buffer, int dtype, const Dims& dims) {
  return requireTfApi().TF_NewTensor(dtype, dims.data(), static_cast<int>(dims.size()),
                                     buffer->data(), buffer->bytes(), CountedBuffer::deallocate,
                                     buffer->give());
}

TF_Tensor* allocated(int dtype, const Dims& dims, size_t bytes) {
  return requireTfApi().TF_AllocateTensor(dtype, dims.data(), static_cast<int>(dims.size()), bytes);
}

TEST(TensorFlow, IsFoundInTheProcess) {
  void* library = dlopen("libtensorflow_framework.so.2", RTLD_NOLOAD | RTLD_LAZY | RTLD_LOCAL);
  ASSERT_NE(library, nullptr);
  EXPECT_EQ(reinterpret_cast<void*>(requireTfApi().TF_NewTensor), dlsym(library, "TF_NewTensor"));
  dlclose(library);
}

TEST(TensorFlow, WithoutItsEagerPartSaysSo) {
  expectError(ErrorCode::kFramework, {"TFE_*", "import tensorflow"}, [] { requireEagerApi(); });
}

TEST(ExportTensor, SharesTheBufferAndKeepsItAlive) {
  OwnerScope owners(liveOwners);
  CountedBuffer buffer(std::vector<float>{1, 2, 3, 4, 5, 6});
  TF_Tensor* tensor = tensorOver(&buffer, kFloat, {2, 3});
  Exported exported(tensor, /*take=*/false);
  EXPECT_EQ(exported.view.dl.data, buffer.data());
  EXPECT_EQ(exported.dims(), Dims({2, 3}));
  EXPECT_TRUE(exported.view.read_only);
  EXPECT_EQ(owners.added(), 1);
  requireTfApi().TF_DeleteTensor(tensor);
  EXPECT_EQ(buffer.freed(), 0) << "the view has its own reference";
  EXPECT_EQ(static_cast<const float*>(exported.view.dl.data)[5], 6.0f);
}

// An owner holds the buffer if the layout was proved, and a TF_Tensor otherwise.
TEST(ExportTensor, HoldsTheBufferWhereTheLayoutWasProvedAndATensorElsewhere) {
  TfApi slow = requireTfApi();
  ASSERT_NE(slow.Tensor_destroy, nullptr) << "the layout of tensorflow::Tensor is unknown";
  slow.Tensor_destroy = nullptr;
  for (const TfApi* api : {&requireTfApi(), static_cast<const TfApi*>(&slow)}) {
    OwnerScope owners(liveOwners);
    CountedBuffer buffer(std::vector<float>{1, 2, 3, 4, 5, 6});
    TF_Tensor* tensor = tensorOver(&buffer, kFloat, {2, 3});
    int64_t shape[kMaxDims];
    TensorRef view;
    exportTensor(*api, tensor, /*take=*/false, shape, &view);
    EXPECT_EQ(view.release, api == &slow ? releaseTensor : releaseBuffer);
    EXPECT_EQ(view.dl.data, buffer.data());
    EXPECT_EQ(Dims(shape, shape + view.dl.ndim), Dims({2, 3}));
    const OwnerTag tag = kindOf(view.release).tag;
    EXPECT_TRUE(isTensorFlowOwner(tag));
    EXPECT_TRUE(ownerShows(*api, tag, view.owner, view, view.nbytes));
    void* more = kindOf(view.release).retain(view.owner);
    countOwner(1);
    TfTensor back = tensorOfOwner(*api, tag, view.owner, view);
    requireTfApi().TF_DeleteTensor(tensor);
    view.reset();
    EXPECT_EQ(requireTfApi().TF_TensorData(back.get()), buffer.data());
    EXPECT_EQ(requireTfApi().TF_Dim(back.get(), 1), 3);
    back.reset();
    EXPECT_EQ(buffer.freed(), 0);
    view.release(more);
    EXPECT_EQ(buffer.freed(), 1);
  }
}

TEST(ExportTensor, LeavesTheTensorToItsOwner) {
  OwnerScope owners(liveOwners);
  CountedBuffer buffer(std::vector<float>{1, 2});
  TF_Tensor* tensor = tensorOver(&buffer, kFloat, {2});
  Exported exported(tensor, /*take=*/false);
  exported.release();
  EXPECT_EQ(buffer.freed(), 0);
  EXPECT_EQ(requireTfApi().TF_TensorData(tensor), buffer.data());
  requireTfApi().TF_DeleteTensor(tensor);
}

TEST(ExportTensor, TakesTheTensorOver) {
  OwnerScope owners(liveOwners);
  CountedBuffer buffer(std::vector<float>{1, 2});
  Exported exported(tensorOver(&buffer, kFloat, {2}), /*take=*/true);
  EXPECT_EQ(exported.view.dl.data, buffer.data());
  EXPECT_EQ(owners.added(), 1);
}

TEST(ExportTensor, IsReleasedOnAnyThread) {
  OwnerScope owners(liveOwners);
  CountedBuffer buffer(std::vector<float>{1, 2});
  Exported exported(tensorOver(&buffer, kFloat, {2}), /*take=*/true);
  std::thread([&] { exported.release(); }).join();
}

TEST(ExportTensor, SharesOneBufferManyTimes) {
  OwnerScope owners(liveOwners);
  CountedBuffer buffer(std::vector<float>{1, 2});
  TF_Tensor* tensor = tensorOver(&buffer, kFloat, {2});
  std::vector<Exported> all;
  for (int i = 0; i < 10; ++i) all.emplace_back(tensor, /*take=*/false);
  requireTfApi().TF_DeleteTensor(tensor);
  EXPECT_EQ(owners.added(), 10);
  for (Exported& exported : all) {
    EXPECT_EQ(exported.view.dl.data, buffer.data());
    EXPECT_EQ(buffer.freed(), 0);
    exported.release();
  }
}

TEST(ExportTensor, MisalignedMemoryWasCopiedByTensorFlow) {
  OwnerScope owners(liveOwners);
  CountedBuffer buffer(std::vector<float>{1, 2, 3});
  const int64_t two = 2;
  TF_Tensor* tensor = requireTfApi().TF_NewTensor(kFloat, &two, 1, buffer.as<float>() + 1, 8,
                                                  CountedBuffer::deallocate, buffer.give());
  EXPECT_EQ(buffer.freed(), 1);
  Exported exported(tensor, /*take=*/true);
  EXPECT_NE(exported.view.dl.data, buffer.as<float>() + 1);
  EXPECT_TRUE(isAligned(exported.view.dl.data, kTensorFlowAlignment));
  EXPECT_EQ(static_cast<const float*>(exported.view.dl.data)[1], 3.0f);
  exported.release();
}

TEST(ExportTensor, ScalarHasNoDimensions) {
  OwnerScope owners(liveOwners);
  CountedBuffer buffer(std::vector<float>{42});
  TF_Tensor* tensor = tensorOver(&buffer, kFloat, {});
  for (bool take : {false, true}) {
    Exported exported(tensor, take);
    EXPECT_EQ(exported.view.dl.ndim, 0);
    EXPECT_EQ(exported.view.nbytes, 4);
    EXPECT_EQ(*static_cast<const float*>(exported.view.dl.data), 42.0f);
    exported.release();
  }
}

TEST(ExportTensor, HasUpTo254Dimensions) {
  OwnerScope owners(liveOwners);
  Dims dims(254, 1);
  dims[100] = 3;
  CountedBuffer buffer(std::vector<float>{1, 2, 3});
  TF_Tensor* tensor = tensorOver(&buffer, kFloat, dims);
  for (bool take : {false, true}) {
    Exported exported(tensor, take);
    EXPECT_EQ(exported.dims(), dims);
    EXPECT_EQ(exported.view.dl.data, buffer.data());
    exported.release();
  }
}

TEST(ExportTensor, MayHaveNoElements) {
  for (const Dims& dims : {Dims{0}, Dims{3, 0, 2}, Dims{0, int64_t{1} << 40}}) {
    OwnerScope owners(liveOwners);
    TF_Tensor* tensor = allocated(kFloat, dims, 0);
    for (bool take : {false, true}) {
      Exported exported(tensor, take);
      EXPECT_EQ(exported.dims(), dims);
      EXPECT_EQ(exported.view.nbytes, 0);
      exported.release();
    }
  }
}

TEST(ExportTensor, RefusesAnEmptyShapeThatTorchCannotHold) {
  OwnerScope owners(liveOwners);
  TF_Tensor* tensor = allocated(kFloat, {0, int64_t{1} << 40, int64_t{1} << 40}, 0);
  ASSERT_NE(tensor, nullptr);
  expectError(ErrorCode::kInvalidHandle, {"overflows"}, [&] { Exported(tensor, false); });
  requireTfApi().TF_DeleteTensor(tensor);
}

TEST(ExportTensor, RefusesDtypesWithoutElements) {
  const struct {
    int dtype;
    const char* name;
    const char* advice;
  } cases[] = {{7, "string", "tf.strings.to_number"},
               {20, "resource", "tf.Variable"},
               {21, "variant", "TensorListStack"}};
  for (const auto& c : cases) {
    OwnerScope owners(liveOwners);
    TF_Tensor* tensor = allocated(c.dtype, {0}, 0);
    ASSERT_NE(tensor, nullptr) << c.name;
    for (bool take : {false, true}) {
      expectError(ErrorCode::kUnsupportedDtype, {c.name, c.advice},
                  [&] { Exported(tensor, take); });
    }
    requireTfApi().TF_DeleteTensor(tensor);
  }
}

class EveryDtype : public ::testing::TestWithParam<int> {};

TEST_P(EveryDtype, IsSharedByItsTensorFlowNumber) {
  OwnerScope owners(liveOwners);
  const DtypeInfo& row = dtypeInfo(static_cast<Dtype>(GetParam()));
  std::vector<uint8_t> bytes(6u * row.itemsize);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i & 1);
  CountedBuffer buffer(bytes);
  TF_Tensor* tensor = tensorOver(&buffer, row.tf_enum, {2, 3});
  Exported exported(tensor, /*take=*/false);
  requireTfApi().TF_DeleteTensor(tensor);
  EXPECT_EQ(exported.view.dl.data, buffer.data());
  EXPECT_EQ(exported.view.dtype, static_cast<Dtype>(GetParam()));
  EXPECT_EQ(exported.view.nbytes, static_cast<int64_t>(bytes.size()));
  EXPECT_EQ(std::memcmp(exported.view.dl.data, bytes.data(), bytes.size()), 0);
}

std::vector<int> dtypesWithElements() {
  std::vector<int> result;
  for (int i = 0; i < static_cast<int>(Dtype::kCount); ++i) {
    const DtypeInfo& row = dtypeInfo(static_cast<Dtype>(i));
    if (row.tf_enum > 0 && row.kind != DtypeKind::kRefused) result.push_back(i);
  }
  return result;
}

std::string rowName(const ::testing::TestParamInfo<int>& info) {
  return dtypeInfo(static_cast<Dtype>(info.param)).name;
}

INSTANTIATE_TEST_SUITE_P(Table, EveryDtype, ::testing::ValuesIn(dtypesWithElements()), rowName);

}  // namespace
}  // namespace tensor_bridge::testing
