// tb_tensor: read-only views of TF_Tensors, and the DLPack structures made from them.

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "c_api/fixture.h"
#include "dlpack/dlpack.h"

namespace tensor_bridge::testing {
namespace {

using ViewTest = CApiTest;

TEST_F(ViewTest, ShowsTheTensorAndKeepsItsMemory) {
  CountedBuffer buffer(std::vector<float>{1, 2, 3, 4, 5, 6});
  TfTensor tensor(TF_FLOAT, {2, 3}, &buffer);
  View view = viewOf(tensor);
  EXPECT_EQ(owners_.added(), 1);
  tensor.reset();
  EXPECT_EQ(buffer.freed(), 0);
  EXPECT_EQ(tb_tensor_data(view.get()), buffer.data());
  EXPECT_EQ(tb_tensor_ndim(view.get()), 2);
  EXPECT_EQ(tb_tensor_shape(view.get())[0], 2);
  EXPECT_EQ(tb_tensor_shape(view.get())[1], 3);
  EXPECT_EQ(tb_tensor_strides(view.get())[0], 3);
  EXPECT_EQ(tb_tensor_strides(view.get())[1], 1);
  EXPECT_STREQ(tb_tensor_dtype(view.get()), "float32");
  EXPECT_EQ(tb_tensor_nbytes(view.get()), 24);
  EXPECT_EQ(tb_tensor_flags(view.get()), static_cast<uint64_t>(TB_FLAG_READ_ONLY));
  int32_t type = -1;
  int32_t id = -1;
  tb_tensor_device(view.get(), &type, &id);
  EXPECT_EQ(type, kDLCPU);
  EXPECT_EQ(id, 0);
}

TEST_F(ViewTest, MayBeReleasedOnAnotherThread) {
  CountedBuffer buffer(std::vector<float>{1});
  View view = viewOf(TfTensor(TF_FLOAT, {1}, &buffer));
  std::thread([&view] { view.reset(); }).join();
}

TEST_F(ViewTest, OfAScalarAndOfNothing) {
  const TfTensor scalar(TF_INT64, {}, std::vector<int64_t>{7});
  View view = viewOf(scalar);
  EXPECT_EQ(tb_tensor_ndim(view.get()), 0);
  EXPECT_EQ(tb_tensor_nbytes(view.get()), 8);

  const TfTensor empty(TF_FLOAT, {3, 0, 2}, std::vector<float>{});
  view = viewOf(empty);
  EXPECT_EQ(tb_tensor_ndim(view.get()), 3);
  EXPECT_EQ(tb_tensor_nbytes(view.get()), 0);
}

TEST_F(ViewTest, OfStringsIsRefused) {
  const int64_t none = 0;
  const TfTensor strings(TF_AllocateTensor(TF_STRING, &none, 1, 0));
  tb_tensor* view = nullptr;
  expectStatus(tb_tensor_from_tf(strings.get(), &view), TB_UNSUPPORTED_DTYPE,
               {"string", "tf.strings"});
  EXPECT_EQ(view, nullptr);
}

TEST_F(ViewTest, NullsAreErrors) {
  tb_tensor* none = nullptr;
  expectStatus(tb_tensor_from_tf(nullptr, &none), TB_INVALID_HANDLE, {"TF_Tensor", "null"});
  const TfTensor tensor = TfTensor::floats({1});
  expectStatus(tb_tensor_from_tf(tensor.get(), nullptr), TB_INVALID_HANDLE, {"null"});
  const View view = viewOf(tensor);
  DLManagedTensorVersioned* managed = nullptr;
  expectStatus(tb_tensor_to_dlpack(nullptr, &managed), TB_INVALID_HANDLE, {"null"});
  expectStatus(tb_tensor_to_dlpack(view.get(), nullptr), TB_INVALID_HANDLE, {"null"});
  EXPECT_EQ(managed, nullptr);
}

TEST_F(ViewTest, GivesDlpackThatIsReadOnlyAndOutlivesIt) {
  CountedBuffer buffer(std::vector<float>{1, 2, 3, 4, 5, 6});
  DLManagedTensorVersioned* managed = nullptr;
  ASSERT_EQ(tb_tensor_to_dlpack(viewOf(TfTensor(TF_FLOAT, {2, 3}, &buffer)).get(), &managed), TB_OK)
      << tb_last_error();
  EXPECT_EQ(buffer.freed(), 0);
  EXPECT_EQ(owners_.added(), 1);
  EXPECT_EQ(managed->version.major, 1u);
  EXPECT_EQ(managed->flags, DLPACK_FLAG_BITMASK_READ_ONLY);
  EXPECT_EQ(managed->dl_tensor.data, buffer.data());
  EXPECT_EQ(managed->dl_tensor.shape[1], 3);
  std::thread([managed] { managed->deleter(managed); }).join();
}

TEST_F(ViewTest, WithoutADlpackDtypeSaysSo) {
  const TfTensor tensor(TF_INT4, {2}, std::vector<uint8_t>{1, 2});
  View view = viewOf(tensor);
  DLManagedTensorVersioned* managed = nullptr;
  expectStatus(tb_tensor_to_dlpack(view.get(), &managed), TB_UNSUPPORTED_DTYPE, {"DLPack", "int4"});
  EXPECT_EQ(managed, nullptr);
}

}  // namespace
}  // namespace tensor_bridge::testing
