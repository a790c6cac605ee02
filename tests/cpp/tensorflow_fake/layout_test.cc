// The trial of the layout of tensorflow::Tensor, over a TensorFlow with another one: what is taken
// for an address there is none, and the trial says so instead of crashing. Not for: the layout that
// is known; tests/cpp/tensorflow has it.

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "adapters/tensorflow/tensor_layout.h"
#include "support/fake_library.h"

namespace tensor_bridge::testing {
namespace {

// No page is mapped there.
const void* const kNowhere = reinterpret_cast<const void*>(0x10);

// A TF_Tensor that begins as the known one does, and what it points to.
struct Pointing {
  const void* interface = nullptr;
  const void* vtable = nullptr;
  uint8_t tensor[tensor_layout::kTensorBytes] = {};
};

class OtherLayout : public FakeTensorflowTest {
 protected:
  void SetUp() override {
    FakeTensorflowTest::SetUp();
    api_ = api();
    api_.Tensor_destroy = [](void*) { ADD_FAILURE() << "destroys what is no tensor"; };
    make_ = [] {
      const FakeSpec spec;
      return fake_->tensor(&spec);
    };
    // Lets go of the memory at once, so that the trial frees it.
    api_.TF_NewTensor = [](int, const int64_t*, int, void* data, size_t size,
                           void (*deallocator)(void*, size_t, void*), void* argument) {
      deallocator(data, size, argument);
      return make_();
    };
    api_.TFE_NewTensorHandle = [](const TF_Tensor*, TF_Status*) {
      const FakeSpec spec;
      return fake_->handle(&spec);
    };
    api_.TensorHandle_Tensor = [](const TFE_TensorHandle*, const void** tensor) {
      *tensor = inside_;
      return TfApi::ReturnedStatus{};
    };
  }

  // TensorFlow's tensors are `pointing_` from now on.
  void makeAll() {
    pointing_ = Pointing();
    pointing_.interface = &pointing_.vtable;
    inside_ = pointing_.tensor;
    api_.TF_AllocateTensor = [](int, const int64_t*, int, size_t) { return made(); };
    make_ = made;
    api_.TF_DeleteTensor = [](TF_Tensor*) {};
  }
  static TF_Tensor* made() { return reinterpret_cast<TF_Tensor*>(&pointing_); }
  static void bufferAt(const void* buffer) {
    std::memcpy(pointing_.tensor + tensor_layout::kBufferAt, &buffer, sizeof(buffer));
  }

  void expectNotKnown() {
    EXPECT_EQ(interfaceVtable(api_), nullptr);
    EXPECT_FALSE(tensorBufferAgrees(api_));
    EXPECT_FALSE(tensorLayoutAgrees(api_));
  }

  TfApi api_;
  static inline TF_Tensor* (*make_)() = nullptr;
  static inline Pointing pointing_;
  static inline const void* inside_ = kNowhere;
};

// The fake library's own: it begins with a dtype.
TEST_F(OtherLayout, WithoutAPointerInFront) { expectNotKnown(); }

TEST_F(OtherLayout, WithoutABufferAtItsPlace) {
  makeAll();
  bufferAt(kNowhere);
  expectNotKnown();
}

TEST_F(OtherLayout, OfTheBufferAlone) {
  api_.Tensor_RefCountIsOne = [](const void*) { return true; };
  const auto slice = [](const void*, int64_t, int64_t) { return TensorBytes{}; };
  makeAll();
  // Neither a class nor what comes behind the members that all buffers have.
  struct {
    TensorBuffer known;
    const void* member;
  } buffer{{kNowhere, 1, nullptr}, kNowhere};
  bufferAt(&buffer);
  EXPECT_FALSE(tensorLetGoAgrees(api_, slice));
}

}  // namespace
}  // namespace tensor_bridge::testing
