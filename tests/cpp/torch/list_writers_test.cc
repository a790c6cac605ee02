// Operators that write to lists of tensors with kernels that take no mutable pointer, like torch's
// CUDA kernels. They run on the CPU here, because the guard's dispatch key has no device.

#include "adapters/torch/list_writers.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/library.h>
#include <torch/version.h>

#include <optional>
#include <string>
#include <vector>

#include "adapters/torch/copy_on_write.h"
#include "torch/foreign.h"

namespace tensor_bridge::testing {
namespace {

using ::testing::HasSubstr;

const std::vector<float> kFour = {1, 2, 3, 4};

// Writes like MultiTensorApply.cuh.
void writeThroughConst(const at::Tensor& tensor) {
  auto* data = const_cast<float*>(tensor.const_data_ptr<float>());
  for (int64_t i = 0; i < tensor.numel(); ++i) data[i] = -1;
}

void writeEach(at::TensorList written, at::TensorList /*read*/) {
  for (const at::Tensor& tensor : written) writeThroughConst(tensor);
}

void writeAll(at::TensorList first, at::Tensor& single, const at::Tensor& /*read*/) {
  for (const at::Tensor& tensor : first) writeThroughConst(tensor);
  writeThroughConst(single);
}

std::vector<at::Tensor> writeSome(const c10::List<std::optional<at::Tensor>>& written) {
  for (const std::optional<at::Tensor>& tensor : written) {
    if (tensor.has_value() && tensor->defined()) writeThroughConst(*tensor);
  }
  return {};
}

TORCH_LIBRARY(list_writers_test, library) {
  library.def("each(Tensor(a!)[] written, Tensor[] read) -> ()");
  library.def("all(Tensor(a!)[] first, Tensor(b!) single, Tensor read) -> ()");
  library.def("some(Tensor(a!)?[] written) -> Tensor[]");
}

TORCH_LIBRARY_IMPL(list_writers_test, CPU, library) {
  library.impl("each", &writeEach);
  library.impl("all", &writeAll);
  library.impl("some", &writeSome);
}

c10::OperatorHandle find(const char* name, const char* overload = "") {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, overload);
}

void callEach(at::TensorList written, at::TensorList read) {
  find("list_writers_test::each").typed<void(at::TensorList, at::TensorList)>().call(written, read);
}

bool isGuarded(const c10::OperatorHandle& op) {
  return op.hasKernelForDispatchKey(c10::DispatchKey::BackendSelect);
}

#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 13

TEST(ListWriters, MovesWhatIsWrittenAndNothingElse) {
  guardListWriters();
  Foreign written = Foreign::floats(kFour, {4});
  Foreign read = Foreign::floats(kFour, {4});
  {
    const at::Tensor x = shared(&written);
    const at::Tensor y = shared(&read);
    const at::Tensor plain = at::ones({4});
    callEach({plain, x.slice(0, 2)}, {y});
    EXPECT_EQ(valuesOf<float>(x), (std::vector<float>{1, 2, -1, -1}));
    EXPECT_EQ(valuesOf<float>(plain), (std::vector<float>{-1, -1, -1, -1}));
    EXPECT_TRUE(written.unchanged());
    EXPECT_NE(x.const_data_ptr(), written.data());
    EXPECT_EQ(y.const_data_ptr(), read.data());
  }
  EXPECT_EQ(written.released(), 1);
  EXPECT_EQ(read.released(), 1);
}

TEST(ListWriters, LeavesWhatTheOtherFrameworkLetGoWhereItIs) {
  guardListWriters();
  auto [foreign, x] = SharedFloats(kFour, {4});
  foreign.letGo();
  callEach({x}, {});
  EXPECT_EQ(x.const_data_ptr(), foreign.data());
  EXPECT_EQ(valuesOf<float>(x), (std::vector<float>{-1, -1, -1, -1}));
}

TEST(ListWriters, RaisesBeforeAnythingIsWritten) {
  guardListWriters();
  auto [foreign, x] = SharedFloats(kFour, {4}, TB_ON_WRITE_RAISE);
  const at::Tensor plain = at::ones({4});
  try {
    callEach({plain, x}, {});
    FAIL() << "nothing was thrown";
  } catch (const c10::Error& e) {
    EXPECT_THAT(e.what_without_backtrace(), HasSubstr("on_write=\"raise\""));
  }
  EXPECT_TRUE(foreign.unchanged());
  EXPECT_EQ(valuesOf<float>(plain), (std::vector<float>{1, 1, 1, 1}));
}

TEST(ListWriters, WritesThroughWithAlias) {
  guardListWriters();
  auto [foreign, x] = SharedFloats(kFour, {4}, TB_ON_WRITE_ALIAS);
  callEach({x}, {});
  EXPECT_EQ(x.const_data_ptr(), foreign.data());
  EXPECT_FALSE(foreign.unchanged());
}

TEST(ListWriters, SeesTensorsThatHaveOnlyTheStorage) {
  guardListWriters();
  auto [foreign, x] = SharedFloats(kFour, {4});
  at::Tensor other = at::empty({0});
  other.set_(x.storage());
  callEach({other}, {});
  EXPECT_TRUE(foreign.unchanged());
  EXPECT_EQ(valuesOf<float>(x), (std::vector<float>{-1, -1, -1, -1}));
}

TEST(ListWriters, MovesInInferenceMode) {
  guardListWriters();
  Foreign foreign = Foreign::floats(kFour, {4});
  const c10::InferenceMode inference;
  const at::Tensor x = shared(&foreign);
  callEach({x}, {});
  EXPECT_TRUE(foreign.unchanged());
}

TEST(ListWriters, MovesSingleTensorsBesideLists) {
  guardListWriters();
  Foreign first = Foreign::floats(kFour, {4});
  Foreign single = Foreign::floats(kFour, {4});
  Foreign read = Foreign::floats(kFour, {4});
  {
    const at::Tensor x = shared(&first);
    at::Tensor y = shared(&single);
    const at::Tensor z = shared(&read);
    find("list_writers_test::all")
        .typed<void(at::TensorList, at::Tensor&, const at::Tensor&)>()
        .call({x}, y, z);
    EXPECT_TRUE(first.unchanged());
    EXPECT_TRUE(single.unchanged());
    EXPECT_EQ(z.const_data_ptr(), read.data());
  }
}

TEST(ListWriters, GoesThroughListsOfOptionalTensors) {
  guardListWriters();
  auto [foreign, x] = SharedFloats(kFour, {4});
  c10::List<std::optional<at::Tensor>> list({std::nullopt, x, at::Tensor()});
  torch::jit::Stack stack{list};
  find("list_writers_test::some").callBoxed(&stack);
  EXPECT_TRUE(foreign.unchanged());
  EXPECT_EQ(valuesOf<float>(x), (std::vector<float>{-1, -1, -1, -1}));
}

TEST(ListWriters, SeesOperatorsThatAreAddedLater) {
  guardListWriters();
  torch::Library library(torch::Library::FRAGMENT, "list_writers_test", std::nullopt, __FILE__,
                         __LINE__);
  library.def("late(Tensor(a!)[] written, Tensor[] read) -> ()");
  library.impl("late", c10::DispatchKey::CPU, &writeEach);
  const c10::OperatorHandle late = find("list_writers_test::late");
  EXPECT_FALSE(isGuarded(late));
  guardListWriters();
  EXPECT_TRUE(isGuarded(late));
  auto [foreign, x] = SharedFloats(kFour, {4});
  late.typed<void(at::TensorList, at::TensorList)>().call({x}, {});
  EXPECT_TRUE(foreign.unchanged());
}

#endif  // 2.13

TEST(ListWriters, GuardsEveryOperatorOfTorchThatWritesAList) {
  guardListWriters();
  int guarded = 0;
  for (const c10::OperatorName& name : c10::Dispatcher::singleton().getAllOpNames()) {
    const auto op = c10::Dispatcher::singleton().findSchema(name);
    if (!op.has_value()) continue;
    bool writes_list = false;
    for (const c10::Argument& argument : op->schema().arguments()) {
      const bool is_written = argument.alias_info() != nullptr && argument.alias_info()->isWrite();
      writes_list = writes_list || (is_written && argument.type()->str().back() == ']');
    }
    EXPECT_EQ(isGuarded(*op) && writes_list, writes_list) << toString(op->schema());
    if (writes_list) ++guarded;
  }
  EXPECT_GT(guarded, 100);
}

TEST(ListWriters, LeavesValuesAndVersionsOfOrdinaryTensorsAsTheyWere) {
  guardListWriters();
  const at::Tensor a = at::ones({3});
  const at::Tensor b = at::ones({3});
  const auto version = a._version();
  at::_foreach_mul_({a, b}, 3);
  at::_foreach_add_({a, b}, {b, b}, 2);
  EXPECT_EQ(valuesOf<float>(a), (std::vector<float>{9, 9, 9}));
  EXPECT_EQ(valuesOf<float>(b), (std::vector<float>{9, 9, 9}));
  EXPECT_EQ(a._version() - version, 2);
}

}  // namespace
}  // namespace tensor_bridge::testing
