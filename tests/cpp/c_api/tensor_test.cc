// tb_tensor: read-only views of TF_Tensors, and the DLPack structures made from them.

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "c_api/fixture.h"
#include "dlpack/dlpack.h"

namespace tensor_bridge::testing {
namespace {

class View : public CApiTest {};

TEST_F(View, ShowsTheTensorAndKeepsItsMemory) {
  CountedBuffer buffer(std::vector<float>{1, 2, 3, 4, 5, 6});
  TfTensor tensor(TF_FLOAT, {2, 3}, &buffer);
  tb_tensor* view = nullptr;
  ASSERT_EQ(tb_tensor_from_tf(tensor.get(), &view), TB_OK) << tb_last_error();
  EXPECT_EQ(owners_.added(), 1);
  tensor.reset();
  EXPECT_EQ(buffer.freed(), 0);
  EXPECT_EQ(tb_tensor_data(view), buffer.data());
  EXPECT_EQ(tb_tensor_ndim(view), 2);
  EXPECT_EQ(tb_tensor_shape(view)[0], 2);
  EXPECT_EQ(tb_tensor_shape(view)[1], 3);
  EXPECT_EQ(tb_tensor_strides(view)[0], 3);
  EXPECT_EQ(tb_tensor_strides(view)[1], 1);
  EXPECT_STREQ(tb_tensor_dtype(view), "float32");
  EXPECT_EQ(tb_tensor_nbytes(view), 24);
  EXPECT_EQ(tb_tensor_flags(view), static_cast<uint64_t>(TB_FLAG_READ_ONLY));
  int32_t type = -1;
  int32_t id = -1;
  tb_tensor_device(view, &type, &id);
  EXPECT_EQ(type, kDLCPU);
  EXPECT_EQ(id, 0);
  tb_tensor_release(view);
  EXPECT_EQ(buffer.freed(), 1);
}

TEST_F(View, MayBeReleasedOnAnotherThread) {
  CountedBuffer buffer(std::vector<float>{1});
  tb_tensor* view = nullptr;
  {
    const TfTensor tensor(TF_FLOAT, {1}, &buffer);
    ASSERT_EQ(tb_tensor_from_tf(tensor.get(), &view), TB_OK);
  }
  std::thread([view] { tb_tensor_release(view); }).join();
  EXPECT_EQ(buffer.freed(), 1);
}

TEST_F(View, OfAScalarAndOfNothing) {
  const TfTensor scalar(TF_INT64, {}, std::vector<int64_t>{7});
  tb_tensor* view = nullptr;
  ASSERT_EQ(tb_tensor_from_tf(scalar.get(), &view), TB_OK);
  EXPECT_EQ(tb_tensor_ndim(view), 0);
  EXPECT_EQ(tb_tensor_nbytes(view), 8);
  tb_tensor_release(view);

  const TfTensor empty(TF_FLOAT, {3, 0, 2}, std::vector<float>{});
  ASSERT_EQ(tb_tensor_from_tf(empty.get(), &view), TB_OK);
  EXPECT_EQ(tb_tensor_ndim(view), 3);
  EXPECT_EQ(tb_tensor_nbytes(view), 0);
  tb_tensor_release(view);
}

TEST_F(View, OfStringsIsRefused) {
  const int64_t none = 0;
  const TfTensor strings(TF_AllocateTensor(TF_STRING, &none, 1, 0));
  tb_tensor* view = nullptr;
  expectStatus(tb_tensor_from_tf(strings.get(), &view), TB_UNSUPPORTED_DTYPE,
               {"string", "tf.strings"});
  EXPECT_EQ(view, nullptr);
}

TEST_F(View, NullsAreErrors) {
  tb_tensor* view = nullptr;
  expectStatus(tb_tensor_from_tf(nullptr, &view), TB_INVALID_HANDLE, {"TF_Tensor", "null"});
  const TfTensor tensor = TfTensor::floats({1});
  expectStatus(tb_tensor_from_tf(tensor.get(), nullptr), TB_INVALID_HANDLE, {"null"});
  ASSERT_EQ(tb_tensor_from_tf(tensor.get(), &view), TB_OK);
  DLManagedTensorVersioned* managed = nullptr;
  expectStatus(tb_tensor_to_dlpack(nullptr, &managed), TB_INVALID_HANDLE, {"null"});
  expectStatus(tb_tensor_to_dlpack(view, nullptr), TB_INVALID_HANDLE, {"null"});
  EXPECT_EQ(managed, nullptr);
  tb_tensor_release(view);
}

TEST_F(View, GivesDlpackThatIsReadOnlyAndOutlivesIt) {
  CountedBuffer buffer(std::vector<float>{1, 2, 3, 4, 5, 6});
  DLManagedTensorVersioned* managed = nullptr;
  {
    const TfTensor tensor(TF_FLOAT, {2, 3}, &buffer);
    tb_tensor* view = nullptr;
    ASSERT_EQ(tb_tensor_from_tf(tensor.get(), &view), TB_OK);
    ASSERT_EQ(tb_tensor_to_dlpack(view, &managed), TB_OK) << tb_last_error();
    tb_tensor_release(view);
  }
  EXPECT_EQ(buffer.freed(), 0);
  EXPECT_EQ(owners_.added(), 1);
  EXPECT_EQ(managed->version.major, 1u);
  EXPECT_EQ(managed->flags, DLPACK_FLAG_BITMASK_READ_ONLY);
  EXPECT_EQ(managed->dl_tensor.data, buffer.data());
  EXPECT_EQ(managed->dl_tensor.shape[1], 3);
  std::thread([managed] { managed->deleter(managed); }).join();
  EXPECT_EQ(buffer.freed(), 1);
}

TEST_F(View, WithoutADlpackDtypeSaysSo) {
  const TfTensor tensor(TF_INT4, {2}, std::vector<uint8_t>{1, 2});
  tb_tensor* view = nullptr;
  ASSERT_EQ(tb_tensor_from_tf(tensor.get(), &view), TB_OK);
  DLManagedTensorVersioned* managed = nullptr;
  expectStatus(tb_tensor_to_dlpack(view, &managed), TB_UNSUPPORTED_DTYPE, {"DLPack", "int4"});
  EXPECT_EQ(managed, nullptr);
  tb_tensor_release(view);
}

}  // namespace
}  // namespace tensor_bridge::testing
