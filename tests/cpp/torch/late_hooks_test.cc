// A thread that is stopped in torch's code around the hook while others continue: Note [Late hooks]
// and Note [Order of a first write]. The test does the thread's steps one by one. Not for: threads
// that run.

#include <ATen/ops/arange.h>
#include <gtest/gtest.h>

#include <vector>

#include "torch/foreign.h"

namespace tensor_bridge::testing {
namespace {

// torch's private fields, for which it has no functions. An explicit instantiation may name them.
using Hook = c10::MaterializeFn c10::StorageImpl::*;
using Flag = bool c10::StorageImpl::*;
Hook hookOfStorage();
Flag flagOfStorage();
template <Hook hook, Flag flag>
struct FieldsOfStorage {
  friend Hook hookOfStorage() { return hook; }
  friend Flag flagOfStorage() { return flag; }
};
template struct FieldsOfStorage<&c10::StorageImpl::materialize_fn_,
                                &c10::StorageImpl::has_mutable_data_ptr_check_>;

at::Tensor six() { return at::arange(1, 7, at::kFloat); }

// Another thread's StorageImpl::maybe_materialize(), stopped after it has read the hook.
class StoppedWriter {
 public:
  explicit StoppedWriter(const at::Tensor& tensor)
      : storage_(storageOf(tensor)), hook_(storage_->*hookOfStorage()) {
    EXPECT_NE(hook_, nullptr);
  }
  void callsTheHook() { hook_(storage_); }
  void clearsTheHook() { storage_->clear_materializer(); }

 private:
  c10::StorageImpl* storage_;
  c10::MaterializeFn hook_;
};

// If to_tf shared memory after the second thread has called the hook and before it clears the hook,
// the memory would lose its protection.
void expectNotSharedBefore(StoppedWriter* second, const at::Tensor& tensor) {
  second->callsTheHook();
  EXPECT_EQ(factsOf(tensor).obstacle, Obstacle::kContended);
  const Kept early = Kept::attempted(tensor);
  second->clearsTheHook();
  tensor.add_(1);
  EXPECT_FALSE(early.taken());
  EXPECT_TRUE(!early.taken() || early.unchanged());
}

TEST(LateHook, FindsWhatTheFirstThreadMoved) {
  auto [foreign, tensor] = SharedFloats(kSix, {6});
  StoppedWriter second(tensor);
  tensor.add_(1);
  expectNotSharedBefore(&second, tensor);
  EXPECT_TRUE(foreign.unchanged());
}

TEST(LateHook, FindsWhatTheFirstThreadTookOver) {
  auto [foreign, tensor] = SharedFloats(kSix, {6});
  StoppedWriter second(tensor);
  foreign.letGo();
  tensor.add_(1);
  ASSERT_EQ(tensor.const_data_ptr(), foreign.data());
  expectNotSharedBefore(&second, tensor);
}

TEST(LateHook, FindsWhatTheFirstThreadTookBack) {
  const at::Tensor tensor = six();
  {
    const Kept released(tensor);
  }
  StoppedWriter second(tensor);
  tensor.add_(1);
  expectNotSharedBefore(&second, tensor);
}

// Memory from resize_, which leaves the hook. The first call of the hook also finds nothing to
// move.
TEST(LateHook, FindsAResizedStorageThatTheFirstThreadFound) {
  const at::Tensor tensor = six();
  const Kept share(tensor);
  tensor.resize_({100});
  StoppedWriter second(tensor);
  tensor.zero_();
  EXPECT_EQ(factsOf(tensor).obstacle, Obstacle::kNone);
  expectNotSharedBefore(&second, tensor);
  EXPECT_TRUE(share.unchanged());
}

// clear_materializer(), stopped between its two steps: the hook is cleared. The thread clears the
// flag when it runs again, even if another thread has set it in between.
TEST(LateFlag, KeepsToTfFromSharing) {
  const at::Tensor tensor = six();
  {
    const Kept moved(tensor);
    tensor.add_(1);
  }
  c10::StorageImpl* storage = storageOf(tensor);
  storage->set_materializer([](c10::StorageImpl*) {});
  storage->*hookOfStorage() = nullptr;
  const Kept early = Kept::attempted(tensor);
  storage->*flagOfStorage() = false;
  tensor.add_(1);
  EXPECT_FALSE(early.taken());
  EXPECT_TRUE(!early.taken() || early.unchanged());
  const Kept late(tensor);
  tensor.add_(1);
  EXPECT_TRUE(late.unchanged());
}

// The same steps seen in the other order, as on processors other than x86-64: torch's
// set_materializer() would assert after the storage had changed its kind.
TEST(LateFlag, KeepsToTfFromSharingWhereItIsSeenBeforeTheHook) {
  const at::Tensor tensor = six();
  c10::StorageImpl* storage = storageOf(tensor);
  storage->set_materializer([](c10::StorageImpl*) {});
  storage->*flagOfStorage() = false;
  const Kept early = Kept::attempted(tensor);
  EXPECT_FALSE(early.taken());
  storage->clear_materializer();
  const Kept late(tensor);
  tensor.add_(1);
  EXPECT_TRUE(late.unchanged());
}

}  // namespace
}  // namespace tensor_bridge::testing
