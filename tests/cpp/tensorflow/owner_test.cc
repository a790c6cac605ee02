// Owners of TensorFlow's memory: whether TensorFlow has released it, and tensors that are made from
// owners again.

#include "adapters/tensorflow/owner.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "adapters/tensorflow/reader.h"
#include "adapters/tensorflow/tensor_layout.h"
#include "core/owner_counter.h"
#include "support/exported.h"
#include "support/owner_scope.h"
#include "support/tf_buffer.h"

namespace tensor_bridge::testing {
namespace {

TF_Tensor* allocated(const Dims& dims) {
  int64_t count = 1;
  for (int64_t dim : dims) count *= dim;
  TF_Tensor* tensor =
      requireTfApi().TF_AllocateTensor(kFloat, dims.data(), static_cast<int>(dims.size()),
                                       static_cast<size_t>(count) * sizeof(float));
  auto* data = static_cast<float*>(requireTfApi().TF_TensorData(tensor));
  for (int64_t i = 0; i < count; ++i) data[i] = static_cast<float>(i);
  return tensor;
}

TensorSlice sliceOf() {
  void* library = dlopen("libtensorflow_framework.so.2", RTLD_NOLOAD | RTLD_LAZY | RTLD_LOCAL);
  return reinterpret_cast<TensorSlice>(dlsym(library, "_ZNK10tensorflow6Tensor5SliceEll"));
}

TEST(LetGo, CanBeAskedOfThisTensorFlow) {
  EXPECT_NE(requireTfApi().Tensor_RefCountIsOne, nullptr);
  EXPECT_NE(requireTfApi().tensor_interface_vtable, nullptr);
}

TEST(LetGo, OnlyTheLastReferenceIsAlone) {
  OwnerScope owners(liveOwners);
  TF_Tensor* tensor = allocated({2, 3});
  Exported first(tensor, /*take=*/false);
  EXPECT_FALSE(first.letGo()) << "the TF_Tensor is alive";
  Exported second(tensor, /*take=*/false);
  requireTfApi().TF_DeleteTensor(tensor);
  EXPECT_FALSE(first.letGo());
  EXPECT_FALSE(second.letGo());
  second.release();
  EXPECT_TRUE(first.letGo());
  void* more = kindOf(first.view.release).retain(first.view.owner);
  countOwner(1);
  EXPECT_FALSE(first.letGo());
  first.view.release(more);
  EXPECT_TRUE(first.letGo());
  first.release();
}

TEST(LetGo, ATensorThatWasHandedOverIsAskedToo) {
  OwnerScope owners(liveOwners);
  Exported taken(allocated({4}), /*take=*/true);
  EXPECT_EQ(taken.view.release, releaseTensor);
  EXPECT_TRUE(taken.letGo());
  Exported other(static_cast<TF_Tensor*>(taken.view.owner), /*take=*/false);
  EXPECT_FALSE(taken.letGo());
  other.release();
  void* more = kindOf(releaseTensor).retain(taken.view.owner);
  countOwner(1);
  EXPECT_FALSE(taken.letGo());
  releaseTensor(more);
  EXPECT_TRUE(taken.letGo());
  taken.release();
}

TEST(LetGo, NeverOfMemoryThatIsNotTensorFlows) {
  OwnerScope owners(liveOwners);
  CountedBuffer buffer(std::vector<float>{1, 2});
  const int64_t two = 2;
  TF_Tensor* tensor = requireTfApi().TF_NewTensor(kFloat, &two, 1, buffer.data(), buffer.bytes(),
                                                  CountedBuffer::deallocate, buffer.give());
  Exported exported(tensor, /*take=*/false);
  requireTfApi().TF_DeleteTensor(tensor);
  EXPECT_FALSE(exported.letGo());
}

TEST(LetGo, APartWaitsForTheWholeAndForOtherParts) {
  OwnerScope owners(liveOwners);
  const TensorSlice slice = sliceOf();
  ASSERT_NE(slice, nullptr);
  TF_Tensor* tensor = allocated({4, 16});
  TensorBytes part = slice(tensorInside(tensor), 1, 2);
  TensorBytes other = slice(tensorInside(tensor), 2, 4);
  TensorBuffer* buffer = bufferOf(part.bytes);
  EXPECT_FALSE(bufferLetGo(requireTfApi(), buffer));
  requireTfApi().TF_DeleteTensor(tensor);
  EXPECT_FALSE(bufferLetGo(requireTfApi(), buffer));
  requireTfApi().Tensor_destroy(other.bytes);
  EXPECT_TRUE(bufferLetGo(requireTfApi(), buffer));
  requireTfApi().Tensor_destroy(part.bytes);
}

// A TensorFlow with one wrong answer. The bridge must not use such a TensorFlow's counts.
struct Lie {
  const char* name;
  bool (*answer)(const void* tensor);
};

bool honest(const void* tensor) { return requireTfApi().Tensor_RefCountIsOne(tensor); }

bool hasOneReference(const void* tensor) { return bufferOf(tensor)->references == 1; }

// The class of buffers that TF_AllocateTensor() and TF_NewTensor() make.
const void* managedBuffer() {
  TF_Tensor* tensor = allocated({1});
  const void* vtable = bufferOf(tensorInside(tensor))->vtable;
  requireTfApi().TF_DeleteTensor(tensor);
  return vtable;
}

const Lie kLies[] = {
    {"always", [](const void*) { return true; }},
    {"never", [](const void*) { return false; }},
    {"does not look at the root", hasOneReference},
    {"does not count",
     [](const void* tensor) { return honest(tensor) || bufferOf(tensor)->references == 2; }},
    {"does not look at whose the memory is",
     [](const void* tensor) {
       const bool managed = bufferOf(tensor)->vtable == managedBuffer();
       return honest(tensor) || (managed && hasOneReference(tensor));
     }},
};

TEST(LetGo, IsNotBelievedOfATensorFlowThatLies) {
  TfApi api = requireTfApi();
  api.Tensor_RefCountIsOne = honest;
  ASSERT_TRUE(tensorLetGoAgrees(api, sliceOf()));
  for (const Lie& lie : kLies) {
    api.Tensor_RefCountIsOne = lie.answer;
    EXPECT_FALSE(tensorLetGoAgrees(api, sliceOf())) << lie.name;
  }
}

TEST(LetGo, NobodyIsAskedWhereItWasNotProved) {
  TfApi api = requireTfApi();
  api.Tensor_RefCountIsOne = nullptr;
  TF_Tensor* tensor = allocated({3});
  EXPECT_FALSE(bufferLetGo(api, bufferOf(tensorInside(tensor))));
  EXPECT_TRUE(bufferLetGo(requireTfApi(), bufferOf(tensorInside(tensor))));
  api.TF_DeleteTensor(tensor);
}

// --- tensors of an owner ------------------------------------------------------------------------

TEST(TensorOfOwner, HasTheShapeOfTheViewAndTheBuffer) {
  const std::vector<Dims> shapes = {{},
                                    {12},
                                    {3, 4},
                                    {2, 1, 6},
                                    {12, 1},
                                    {1, 70000},
                                    {2, 2, 2, 2, 2, 2},
                                    {1, 1, 1, 1, 1, 1, 4},
                                    {70000},
                                    Dims(254, 1)};
  for (const Dims& dims : shapes) {
    OwnerScope owners(liveOwners);
    TF_Tensor* tensor = allocated(dims);
    Exported exported(tensor, /*take=*/false);
    ASSERT_EQ(exported.view.release, releaseBuffer) << dims.size();
    requireTfApi().TF_DeleteTensor(tensor);
    const TensorRef& view = exported.view;
    EXPECT_TRUE(ownerShows(requireTfApi(), exported.tag(), view.owner, view, view.nbytes));
    EXPECT_FALSE(ownerShows(requireTfApi(), exported.tag(), view.owner, view, view.nbytes + 64));
    TfTensor again = tensorOfOwner(requireTfApi(), exported.tag(), view.owner, view);
    EXPECT_FALSE(exported.letGo());
    EXPECT_EQ(requireTfApi().TF_TensorData(again.get()), view.dl.data);
    ASSERT_EQ(requireTfApi().TF_NumDims(again.get()), static_cast<int>(dims.size()));
    for (int i = 0; i < static_cast<int>(dims.size()); ++i) {
      EXPECT_EQ(requireTfApi().TF_Dim(again.get(), i), dims[static_cast<size_t>(i)]);
    }
    EXPECT_EQ(requireTfApi().TF_TensorByteSize(again.get()), static_cast<size_t>(view.nbytes));
    exported.release();
    Exported alone(again.release(), /*take=*/true);
    EXPECT_TRUE(alone.letGo());
    alone.release();
  }
}

TEST(TensorOfOwner, MayHaveAnotherShapeAndDtype) {
  OwnerScope owners(liveOwners);
  Exported exported(allocated({2, 6}), /*take=*/true);
  Exported buffer(static_cast<TF_Tensor*>(exported.view.owner), /*take=*/false);
  TensorView view = buffer.view;
  int64_t shape[] = {48};
  view.dl.shape = shape;
  view.dl.ndim = 1;
  view.dtype = Dtype::kUInt8;
  TfTensor bytes = tensorOfOwner(requireTfApi(), buffer.tag(), buffer.view.owner, view);
  EXPECT_EQ(requireTfApi().TF_TensorType(bytes.get()), 4);
  EXPECT_EQ(requireTfApi().TF_Dim(bytes.get(), 0), 48);
  EXPECT_EQ(requireTfApi().TF_TensorData(bytes.get()), view.dl.data);
  bytes.reset();
  buffer.release();
  exported.release();
}

}  // namespace
}  // namespace tensor_bridge::testing
