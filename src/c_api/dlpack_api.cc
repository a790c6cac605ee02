// DLPack structures from and to Python objects.

#include "bridge/torch_loader.h"
#include "c_api/barrier.h"
#include "c_api/eager.h"
#include "c_api/gil.h"
#include "core/device.h"
#include "core/dlpack_import.h"
#include "core/managed_tensor.h"
#include "tensor_bridge/c_api.h"

using namespace tensor_bridge;  // NOLINT: every function below is one call into it

tb_status tb_py_tf_to_dlpack(_object* tensor, int32_t copy, DLManagedTensorVersioned** out) {
  return guarded([&] {
    require(out, "a place for the result");
    const TfApi& api = requireEagerApi();
    int64_t shape[kMaxDims];
    TensorRef ref;
    exportPossiblyPending(api, handleOf(api, tensor), shape, &ref);
    if (copy == TB_COPY_ALWAYS) {
      if (!isHost(ref.dl.device)) {
        throwError(ErrorCode::kUnsupportedDevice,
                   "copy=True copies host memory, the tensor is on a GPU; share it (copy=None) or "
                   "move it to the host first");
      }
      GilRelease without_gil(ref.nbytes > kGilFreeBytes);
      *out = copyToDlpack(ref);
      return;
    }
    // If torch is the consumer, it releases the memory while its kernels still read it.
    if (const TorchAdapter* adapter = torchAdapterInUse()) {
      resolveDevice(&ref, *adapter);
      releaseLater(&ref, *adapter);
    }
    *out = toDlpack(makeManagedTensor(&ref).get());
  });
}

tb_status tb_dlpack_from_unversioned(void* managed, DLManagedTensorVersioned** out) {
  return guarded([&] {
    require(managed, "a DLManagedTensor");
    require(out, "a place for the result");
    *out = fromUnversioned(static_cast<DLManagedTensor*>(managed));
  });
}

int32_t tb_dlpack_allocate(void* prototype, DLManagedTensorVersioned** out, void* error_context,
                           void (*set_error)(void*, const char*, const char*)) {
  const tb_status status = guarded([&] {
    require(prototype, "a DLTensor");
    require(out, "a place for the result");
    *out = allocateDlpack(*static_cast<const DLTensor*>(prototype));
  });
  if (status == TB_OK) return 0;
  if (set_error != nullptr) {
    set_error(error_context, status == TB_OUT_OF_MEMORY ? "MemoryError" : "BufferError",
              tb_last_error());
  }
  return -1;
}

tb_status tb_py_dlpack_to_torch(DLManagedTensorVersioned* managed,
                                const tb_convert_options* options, _object** out) {
  return guarded([&] {
    require(managed, "a DLManagedTensorVersioned");
    TensorRef ref;
    tb_convert_options checked;
    const bool can_say_read_only = !isFromUnversioned(managed);
    try {
      require(out, "a place for the result");
      checked = checkedOptions(options);
      static_cast<void>(torchAdapter());
      importDlpack(managed, &ref);
    } catch (...) {
      if (managed->deleter != nullptr) managed->deleter(managed);
      throw;
    }
    // Memory that the producer could mark as read-only, and does not, may be written by both sides.
    if (can_say_read_only && !ref.read_only) checked.on_write = TB_ON_WRITE_ALIAS;
    *out = toPython(&ref, checked, Source::kTensor);
  });
}
