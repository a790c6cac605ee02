// FakeAdapter: a torch adapter that records its calls. Not for: torch itself; no test of this
// folder loads it.
#ifndef TENSOR_BRIDGE_TESTS_BRIDGE_FAKE_ADAPTER_H_
#define TENSOR_BRIDGE_TESTS_BRIDGE_FAKE_ADAPTER_H_

#include "adapters/torch_abi.h"
#include "core/error.h"

namespace tensor_bridge::testing {

/// Only one may exist at a time: the table's functions find it through a static pointer.
class FakeAdapter {
 public:
  FakeAdapter() {
    current_ = this;
    table.abi = kTorchAdapterAbi;
    table.struct_size = sizeof(TorchAdapter);
    table.group = "fake";
    table.protects = true;
    table.protects_gpu = true;
    table.hasDevice = [](int32_t type) {
      return type == kDLCPU || (current_->has_gpu && type == kDLCUDA);
    };
    table.currentDevice = [] { return current_->current_gpu; };
    table.resolveDevice = [](TensorView* view) {
      if (current_->resolve_status == TB_OK) view->dl.device.device_id += 100;
      return setLastError(current_->resolve_status, "which GPU is it on");
    };
    table.wrap = [](TensorRef* ref, const WrapSpec* spec, tb_torch_tensor** tensor) {
      current_->wrapped_view = *ref;
      current_->wrapped_spec = *spec;
      ++current_->wraps;
      if (current_->wrap_status == TB_OK) *tensor = current_->result();
      return setLastError(current_->wrap_status, "torch said no");
    };
  }
  ~FakeAdapter() { current_ = nullptr; }
  FakeAdapter(const FakeAdapter&) = delete;
  FakeAdapter& operator=(const FakeAdapter&) = delete;

  tb_torch_tensor* result() { return reinterpret_cast<tb_torch_tensor*>(this); }

  TorchAdapter table{};
  bool has_gpu = false;
  int32_t current_gpu = 0;
  tb_status wrap_status = TB_OK;
  tb_status resolve_status = TB_OK;
  int wraps = 0;
  TensorView wrapped_view{};
  WrapSpec wrapped_spec{};

 private:
  static inline FakeAdapter* current_ = nullptr;
};

}  // namespace tensor_bridge::testing

#endif  // TENSOR_BRIDGE_TESTS_BRIDGE_FAKE_ADAPTER_H_
