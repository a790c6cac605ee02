// The self-test of an adapter: no error for a correct adapter, and the right error for each fault.
// The tests in tests/cpp/c_api show that the real adapters pass, because they could not run
// otherwise.

#include "bridge/torch_self_test.h"

#include <gtest/gtest.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

#include <cstring>

namespace tensor_bridge {
namespace {

// The faults that an adapter can have.
struct Faults {
  bool wrap_fails = false;
  bool copies_instead = false;
  bool writes_through = false;
  bool loses_values = false;
  bool releases_early = false;
  bool never_releases = false;
  bool wrong_shape = false;
  bool reads_wrong = false;
  bool share_fails = false;
  bool share_copies = false;
  bool writes_to_other_side = false;
  bool takes_garbage_over = false;
  bool moves_what_it_took_over = false;
  bool frees_what_it_took_over = false;
  bool keeps_what_it_took_over = false;
};
Faults g_faults;

// A tensor of 16 floats that copies on the first write.
struct Tensor {
  float own[16];
  const void* foreign = nullptr;
  void* owner = nullptr;
  ReleaseFn release = nullptr;
  bool shared = false;
  bool taken = false;
};

Tensor* tensorOf(tb_torch_tensor* tensor) { return reinterpret_cast<Tensor*>(tensor); }

tb_status wrap(TensorRef* view, const WrapSpec* spec, tb_torch_tensor** out) {
  if (g_faults.wrap_fails) return TB_TORCH;
  auto* tensor = new Tensor;
  if (spec->action == WrapAction::kShare) {
    tensor->owner = view->take();
    tensor->release = view->release;
  }
  if (spec->action == WrapAction::kShare && !g_faults.copies_instead) {
    tensor->foreign = view->dl.data;
  } else {
    std::memcpy(tensor->own, view->dl.data, sizeof(tensor->own));
  }
  *out = reinterpret_cast<tb_torch_tensor*>(tensor);
  return TB_OK;
}

void release(tb_torch_tensor* handle) {
  Tensor* tensor = tensorOf(handle);
  const bool keeps = tensor->taken ? g_faults.keeps_what_it_took_over : g_faults.never_releases;
  if (tensor->owner != nullptr && !keeps) tensor->release(tensor->owner);
  delete tensor;
}

tb_status view(tb_torch_tensor* handle, int64_t* shape, int64_t* strides, TensorRef* out) {
  Tensor* tensor = tensorOf(handle);
  shape[0] = g_faults.wrong_shape ? 5 : 4;
  shape[1] = 4;
  strides[0] = 4;
  strides[1] = 1;
  static_cast<TensorView&>(*out) = TensorView{};
  out->dl.ndim = 2;
  const bool shows = tensor->foreign != nullptr;
  out->dl.data = shows ? const_cast<void*>(tensor->foreign) : static_cast<void*>(tensor->own);
  out->dtype = Dtype::kFloat32;
  out->owner = tensor;
  out->release = [](void*) {};
  return TB_OK;
}

tb_status mutableData(tb_torch_tensor* handle, void** data) {
  Tensor* tensor = tensorOf(handle);
  *data = tensor->own;
  if (tensor->shared && !g_faults.writes_to_other_side) {
    static float moved[16];
    *data = moved;
  }
  if (tensor->foreign == nullptr) return TB_OK;
  if (kProbeOwner.letGo(&tensor->owner, &tensor->release)) {
    *data = const_cast<void*>(tensor->foreign);
    if (tensor->taken && g_faults.moves_what_it_took_over) *data = tensor->own;
    tensor->taken = true;
    if (g_faults.takes_garbage_over) std::memset(*data, 0xff, sizeof(tensor->own));
    if (g_faults.frees_what_it_took_over) tensor->release(tensor->owner);
    return TB_OK;
  }
  if (g_faults.writes_through) {
    *data = const_cast<void*>(tensor->foreign);
    return TB_OK;
  }
  std::memcpy(tensor->own, tensor->foreign, sizeof(tensor->own));
  if (g_faults.loses_values) std::memset(tensor->own, 0xff, sizeof(tensor->own));
  tensor->foreign = nullptr;
  if (g_faults.releases_early) tensor->release(tensor->owner);
  return TB_OK;
}

tb_status copyOut(tb_torch_tensor* handle, void* out) {
  std::memcpy(out, tensorOf(handle)->own, sizeof(float) * 16);
  if (g_faults.reads_wrong) static_cast<float*>(out)[3] = -1;
  return TB_OK;
}

tb_status share(tb_torch_tensor* handle, void** owner, ReleaseFn* release_fn, void** data) {
  if (g_faults.share_fails) return TB_COPY_REQUIRED;
  static float copy[16];
  Tensor* tensor = tensorOf(handle);
  tensor->shared = true;
  *owner = tensor;
  *release_fn = [](void*) {};
  *data = g_faults.share_copies ? copy : tensor->own;
  return TB_OK;
}

TorchAdapter adapter() {
  TorchAdapter table{};
  table.protects = true;
  table.shares = true;
  table.wrap = wrap;
  table.release = release;
  table.view = view;
  table.mutableData = mutableData;
  table.copyOut = copyOut;
  table.share = share;
  return table;
}

struct LeaksOnPurpose {
#ifdef __SANITIZE_ADDRESS__
  LeaksOnPurpose() { __lsan_disable(); }
  ~LeaksOnPurpose() { __lsan_enable(); }
#else
  LeaksOnPurpose() {}  // not trivial, or it would be an unused variable
#endif
};

class SelfTest : public ::testing::Test {
 protected:
  void SetUp() override { g_faults = Faults{}; }
};

TEST_F(SelfTest, SaysNothingOfAnAdapterThatKeepsItsPromises) {
  EXPECT_EQ(selfTest(adapter()), nullptr);
}

TEST_F(SelfTest, AsksNothingOfAnAdapterThatItDoesNotPromise) {
  TorchAdapter table = adapter();
  table.protects = false;
  table.shares = false;
  g_faults.writes_through = g_faults.share_fails = true;
  EXPECT_EQ(selfTest(table), nullptr);
}

TEST_F(SelfTest, FindsEachFault) {
  const struct {
    bool Faults::* fault;
    const char* message;
  } cases[] = {
      {&Faults::wrap_fails, "memory cannot be copied"},
      {&Faults::copies_instead, "wrapped memory is not shared"},
      {&Faults::writes_through, "a write is not intercepted"},
      {&Faults::loses_values, "a write loses the values"},
      {&Faults::releases_early, "the source is released too early"},
      {&Faults::never_releases, "the source is not released"},
      {&Faults::wrong_shape, "a copy has other values"},
      {&Faults::reads_wrong, "a tensor cannot be read"},
      {&Faults::share_fails, "torch's memory cannot be shared"},
      {&Faults::share_copies, "torch's memory is not shared"},
      {&Faults::writes_to_other_side, "a write to a shared tensor is not intercepted"},
      {&Faults::takes_garbage_over, "a write to bytes that were let go loses the values"},
      {&Faults::moves_what_it_took_over, "a tensor that took bytes over moves"},
      {&Faults::frees_what_it_took_over, "bytes that were taken over are released too early"},
      {&Faults::keeps_what_it_took_over, "bytes that were taken over are not released"},
  };
  // A faulty adapter may still read this memory, so it is not freed.
  const LeaksOnPurpose leaks;
  for (const auto& [fault, message] : cases) {
    g_faults = Faults{};
    g_faults.*fault = true;
    const char* found = selfTest(adapter());
    EXPECT_STREQ(found == nullptr ? "nothing" : found, message);
  }
}

}  // namespace
}  // namespace tensor_bridge
