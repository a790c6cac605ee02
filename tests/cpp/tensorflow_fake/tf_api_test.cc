// The choice of the TensorFlow that is used, and the errors if there is none. Only fake TensorFlows
// are loaded here. The suites named Alone* run in separate processes.

#include "adapters/tensorflow/tf_api.h"

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "adapters/tensorflow/reader.h"
#include "support/expect_error.h"
#include "support/fake_library.h"

namespace tensor_bridge::testing {
namespace {

TEST(AloneNoTensorflow, ErrorListsEveryAttempt) {
  EXPECT_EQ(findTfApi(), nullptr);
  expectError(ErrorCode::kFramework,
              {"no TensorFlow is loaded", "import tensorflow", "libtensorflow_framework.so.2",
               "useTensorFlow(handle)", "lib_pywrap_tensorflow_common.so: not loaded",
               "_pywrap_tensorflow_internal.so: not loaded", "libtensorflow_cc.so.2: not loaded",
               "libtensorflow_framework.so.2: not loaded", "libtensorflow.so.2: not loaded"},
              [] { requireTfApi(); });
  expectError(ErrorCode::kFramework, {"no TensorFlow is loaded"}, [] { requireEagerApi(); });
}

TEST(AloneNoTensorflow, LibraryThatLacksAFunctionIsNamedWithIt) {
  // Its SONAME is libtensorflow.so.2.
  openFake(TB_FAKE_TENSORFLOW_WITHOUT_BITCAST);
  EXPECT_EQ(findTfApi(), nullptr);
  expectError(ErrorCode::kFramework,
              {"libtensorflow.so.2: lacks TF_TensorBitcastFrom",
               "libtensorflow_framework.so.2: not loaded"},
              [] { requireTfApi(); });
}

TEST(AloneLoadedLater, IsFoundByItsSonameAtTheNextCall) {
  EXPECT_EQ(findTfApi(), nullptr);
  // Its SONAME is libtensorflow_framework.so.2.
  void* library = openFake(TB_FAKE_TENSORFLOW);
  const TfApi* api = findTfApi();
  ASSERT_NE(api, nullptr);
  EXPECT_EQ(reinterpret_cast<void*>(api->TF_NewTensor), dlsym(library, "TF_NewTensor"));
  EXPECT_EQ(&requireTfApi(), api);
  EXPECT_EQ(findTfApi(), api) << "the result is kept";
  EXPECT_NE(requireEagerApi().TFE_Execute, nullptr);
}

TEST(AloneWithoutEager, TensorsWorkAndHandlesAreRefused) {
  // Its SONAME is not that of TensorFlow, so it must be named.
  void* library = openFake(TB_FAKE_TENSORFLOW_WITHOUT_EXECUTE);
  EXPECT_EQ(findTfApi(), nullptr);
  useTensorFlowHandle(library);
  EXPECT_NE(requireTfApi().TF_NewTensor, nullptr);
  EXPECT_EQ(requireTfApi().TFE_TensorHandleDataType, nullptr) << "all of the group or nothing";
  for (int i = 0; i < 3; ++i) {
    expectError(ErrorCode::kFramework, {"TFE_*", "libtensorflow_cc.so.2"},
                [] { requireEagerApi(); });
  }
}

TEST(AloneWithoutEager, RestIsFoundWhenItIsLoadedLater) {
  useTensorFlowHandle(openFake(TB_FAKE_TENSORFLOW_WITHOUT_EXECUTE));
  expectError(ErrorCode::kFramework, {"TFE_*"}, [] { requireEagerApi(); });
  openFake(TB_FAKE_TENSORFLOW);
  EXPECT_NE(requireEagerApi().TFE_Execute, nullptr);
}

TEST(AloneSecondTensorFlow, IsRefusedWhileTensorsOfTheFirstAreAlive) {
  useTensorFlowHandle(openFake(TB_FAKE_TENSORFLOW));
  const TfApi* first = findTfApi();
  const int64_t dims = 4;
  int64_t shape[kMaxDims];
  TensorRef view;
  exportTensor(*first, first->TF_AllocateTensor(1, &dims, 1, 16), /*take=*/true, shape, &view);
  void* second = openFake(TB_FAKE_TENSORFLOW_WITHOUT_EXECUTE);
  expectError(ErrorCode::kFramework, {"1 tensors of another TensorFlow", "first conversion"},
              [&] { useTensorFlowHandle(second); });
  EXPECT_EQ(findTfApi(), first);
  view.reset();
  useTensorFlowHandle(second);
  EXPECT_NE(findTfApi(), first);
  EXPECT_EQ(reinterpret_cast<void*>(findTfApi()->TF_NewTensor), dlsym(second, "TF_NewTensor"));
}

class UseTensorFlow : public FakeTensorflowTest {};

TEST_F(UseTensorFlow, RefusesNull) {
  expectError(ErrorCode::kInvalidHandle, {"dlopen", "null"}, [] { useTensorFlowHandle(nullptr); });
}

TEST_F(UseTensorFlow, NamesTheFunctionThatALibraryLacks) {
  const TfApi* before = findTfApi();
  void* libm = dlopen("libm.so.6", RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(libm, nullptr);
  expectError(ErrorCode::kFramework, {"lacks TF_NewTensor", "libtensorflow_framework.so.2"},
              [&] { useTensorFlowHandle(libm); });
  expectError(ErrorCode::kFramework, {"lacks TF_TensorBitcastFrom"},
              [] { useTensorFlowHandle(openFake(TB_FAKE_TENSORFLOW_WITHOUT_BITCAST)); });
  EXPECT_EQ(findTfApi(), before) << "the library in use stays in use";
  dlclose(libm);
}

TEST_F(UseTensorFlow, NamingTheSameLibraryAgainChangesNothing) {
  const TfApi* before = findTfApi();
  useTensorFlowHandle(library_);
  EXPECT_EQ(findTfApi(), before);
}

TEST_F(UseTensorFlow, ResolvesEveryFunctionOnTheHandle) {
  const TfApi& api = requireEagerApi();
#define TB_CHECK(result, name, arguments) \
  EXPECT_EQ(reinterpret_cast<void*>(api.name), dlsym(library_, #name)) << #name;
  TB_TF_TENSOR_FUNCTIONS(TB_CHECK)
  TB_TF_EAGER_FUNCTIONS(TB_CHECK)
#undef TB_CHECK
}

TEST_F(UseTensorFlow, WithoutThePythonExtensionHasNeitherOfItsFunctions) {
  EXPECT_EQ(api().EagerTensor_CheckExact, nullptr);
  EXPECT_EQ(api().EagerTensor_Handle, nullptr);
  EXPECT_EQ(api().tensor_handle_vtable, nullptr);
}

TEST_F(UseTensorFlow, StatusIsOneAThreadAndFreedWithIt) {
  const int before = fake_->statuses;
  std::thread([&] {
    TF_Status* status = threadStatus(api());
    EXPECT_EQ(threadStatus(api()), status);
    EXPECT_EQ(api().TF_GetCode(status), kTfOk);
    EXPECT_EQ(fake_->statuses, before + 1);
  }).join();
  EXPECT_EQ(fake_->statuses, before);
}

}  // namespace
}  // namespace tensor_bridge::testing
