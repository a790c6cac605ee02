// TensorFlow's C API as a table of pointers, found in the TensorFlow that the process has loaded.
// The only file that depends on TensorFlow's version; tf_api.cc says which ones were seen.
// Not for: linking; no TensorFlow library is on our link line, no TensorFlow header is included.
//
// Note [Calling C++ by its mangled name]
// No header checks the type of such a pointer. Our declaration has to pass arguments and results
// as the compiler passes TensorFlow's or torch's own classes:
// - A class with a destructor or copy constructor is returned through memory. Its address is the
//   first argument on x86-64, and has a register of its own on AArch64. Declare a class with a
//   destructor (ReturnedStatus), or one larger than two words (TensorBytes): both are returned so.
// - A class of at most two words without them (c10::Stream) is returned in registers on both.
// - References are pointers, `this` is the first argument, and a destructor returns nothing.
#ifndef TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_TF_API_H_
#define TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_TF_API_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

struct TF_Tensor;
struct TF_Status;
struct TFE_TensorHandle;
struct TFE_Context;
struct TFE_Op;
struct TFE_CancellationManager;
struct TFE_Executor;
struct _object;

namespace tensor_bridge {

// tensorflow/c/tf_status.h
constexpr int kTfOk = 0;
constexpr int kTfCancelled = 1;
constexpr int kTfInvalidArgument = 3;
constexpr int kTfOutOfRange = 11;

// One line per function: X(return type, name, arguments). kTensorFunctions are in every TensorFlow
// library, the others only beside the eager runtime or in the Python extension.
#define TB_TF_TENSOR_FUNCTIONS(X)                                                     \
  X(TF_Tensor*, TF_NewTensor,                                                         \
    (int, const int64_t*, int, void*, size_t, void (*)(void*, size_t, void*), void*)) \
  X(TF_Tensor*, TF_AllocateTensor, (int, const int64_t*, int, size_t))                \
  X(void, TF_DeleteTensor, (TF_Tensor*))                                              \
  X(int, TF_TensorType, (const TF_Tensor*))                                           \
  X(int, TF_NumDims, (const TF_Tensor*))                                              \
  X(int64_t, TF_Dim, (const TF_Tensor*, int))                                         \
  X(size_t, TF_TensorByteSize, (const TF_Tensor*))                                    \
  X(void*, TF_TensorData, (const TF_Tensor*))                                         \
  X(void, TF_TensorBitcastFrom,                                                       \
    (const TF_Tensor*, int, TF_Tensor*, const int64_t*, int, TF_Status*))             \
  X(TF_Status*, TF_NewStatus, ())                                                     \
  X(void, TF_DeleteStatus, (TF_Status*))                                              \
  X(void, TF_SetStatus, (TF_Status*, int, const char*))                               \
  X(int, TF_GetCode, (const TF_Status*))                                              \
  X(const char*, TF_Message, (const TF_Status*))

#define TB_TF_EAGER_FUNCTIONS(X)                                                           \
  X(int, TFE_TensorHandleDataType, (TFE_TensorHandle*))                                    \
  X(int, TFE_TensorHandleNumDims, (TFE_TensorHandle*, TF_Status*))                         \
  X(int64_t, TFE_TensorHandleDim, (TFE_TensorHandle*, int, TF_Status*))                    \
  X(int64_t, TFE_TensorHandleNumElements, (TFE_TensorHandle*, TF_Status*))                 \
  X(void*, TFE_TensorHandleDevicePointer, (TFE_TensorHandle*, TF_Status*))                 \
  X(const char*, TFE_TensorHandleDeviceName, (TFE_TensorHandle*, TF_Status*))              \
  X(const char*, TFE_TensorHandleBackingDeviceName, (TFE_TensorHandle*, TF_Status*))       \
  X(TFE_TensorHandle*, TFE_NewTensorHandle, (const TF_Tensor*, TF_Status*))                \
  X(TF_Tensor*, TFE_TensorHandleResolve, (TFE_TensorHandle*, TF_Status*))                  \
  X(TFE_TensorHandle*, TFE_TensorHandleCopySharingTensor, (TFE_TensorHandle*, TF_Status*)) \
  X(void, TFE_DeleteTensorHandle, (TFE_TensorHandle*))                                     \
  X(TFE_Op*, TFE_NewOp, (TFE_Context*, const char*, TF_Status*))                           \
  X(void, TFE_DeleteOp, (TFE_Op*))                                                         \
  X(void, TFE_OpAddInput, (TFE_Op*, TFE_TensorHandle*, TF_Status*))                        \
  X(void, TFE_OpSetAttrType, (TFE_Op*, const char*, int))                                  \
  X(void, TFE_Execute, (TFE_Op*, TFE_TensorHandle**, int*, TF_Status*))

// Additional functions for the ops of tf.data; also beside the eager runtime, some experimental.
#define TB_TF_OP_FUNCTIONS(X)                                                                   \
  X(void, TFE_OpReset, (TFE_Op*, const char*, const char*, TF_Status*))                         \
  X(void, TFE_OpSetAttrInt, (TFE_Op*, const char*, int64_t))                                    \
  X(void, TFE_OpSetAttrTypeList, (TFE_Op*, const char*, const int*, int))                       \
  X(void, TFE_OpSetAttrShapeList,                                                               \
    (TFE_Op*, const char*, const int64_t**, const int*, int, TF_Status*))                       \
  X(TFE_CancellationManager*, TFE_NewCancellationManager, ())                                   \
  X(void, TFE_DeleteCancellationManager, (TFE_CancellationManager*))                            \
  X(void, TFE_CancellationManagerStartCancel, (TFE_CancellationManager*))                       \
  X(void, TFE_OpSetCancellationManager, (TFE_Op*, TFE_CancellationManager*, TF_Status*))        \
  X(TFE_Executor*, TFE_NewExecutor, (bool is_async, bool streaming, int in_flight_nodes_limit)) \
  X(void, TFE_DeleteExecutor, (TFE_Executor*))                                                  \
  X(bool, TFE_ExecutorIsAsync, (TFE_Executor*))                                                 \
  X(TFE_Executor*, TFE_ContextGetExecutorForThread, (TFE_Context*))                             \
  X(void, TFE_ContextSetExecutorForThread, (TFE_Context*, TFE_Executor*))

struct TfApi {
#define TB_DECLARE(result, name, arguments) result(*name) arguments;
  TB_TF_TENSOR_FUNCTIONS(TB_DECLARE)
  // All null if only libtensorflow_framework is loaded.
  TB_TF_EAGER_FUNCTIONS(TB_DECLARE)
  // All null if one of them is missing.
  TB_TF_OP_FUNCTIONS(TB_DECLARE)
#undef TB_DECLARE

  // From TensorFlow's Python extension; all null in a process without it.
  bool (*EagerTensor_CheckExact)(const _object*);
  TFE_TensorHandle* (*EagerTensor_Handle)(const _object*);
  _object* (*EagerTensorFromHandle)(TFE_TensorHandle*, bool is_packed);

  // bool tensorflow::TensorHandle::IsReady() const, and the vtable pointer of that class; a handle
  // of a custom device (DTensor) has another class. Null if they are not exported.
  bool (*TensorHandle_IsReady)(const TFE_TensorHandle*);
  const void* tensor_handle_vtable;

  // Status tensorflow::TensorHandle::Tensor(const tensorflow::Tensor**) const. The status is one
  // word with a destructor; it is not looked at. Null unless tensorLayoutAgrees().
  struct ReturnedStatus {
    void* words[2];
    ~ReturnedStatus() {}  // NOLINT(modernize-use-equals-default): a trivial one has another ABI
  };
  ReturnedStatus (*TensorHandle_Tensor)(const TFE_TensorHandle*, const void** tensor);

  // tensorflow::Tensor::~Tensor(), and the vtable of the object in a TF_Tensor. Null unless
  // tensorBufferAgrees().
  void (*Tensor_destroy)(void* tensor);
  const void* tensor_interface_vtable;

  // bool tensorflow::Tensor::RefCountIsOne() const. Null unless tensorLetGoAgrees().
  bool (*Tensor_RefCountIsOne)(const void* tensor);

  // A bit for the number of each dtype that is newer than this TensorFlow.
  uint64_t later_dtypes;

  /// Whether this TensorFlow has the dtype. It makes unusable tensors of a dtype that it lacks.
  bool hasDtype(int tf_enum) const noexcept { return (later_dtypes >> tf_enum & 1) == 0; }

  /// The tensorflow::Tensor of a handle that isReady(), local and without an error; else null.
  const void* localTensor(const TFE_TensorHandle* handle) const noexcept {
    if (TensorHandle_Tensor == nullptr) return nullptr;
    const void* tensor = nullptr;
    TensorHandle_Tensor(handle, &tensor);
    return tensor;
  }

  /// Also false if it cannot be told: the caller then waits without the GIL.
  bool isReady(const TFE_TensorHandle* handle) const noexcept {
    return tensor_handle_vtable != nullptr &&
           *reinterpret_cast<const void* const*>(handle) == tensor_handle_vtable &&
           TensorHandle_IsReady(handle);
  }
};

namespace detail {
extern std::atomic<const TfApi*> g_tf_api;
const TfApi* searchTfApi() noexcept;
const TfApi& searchEagerApi();

// Plain data, freed through a pthread key. A thread_local with a destructor checks at each use
// whether it was constructed, and an extern thread_local whether it has to be; __thread never does.
struct ThreadStatus {
  const TfApi* api;  // the status's API; never dereferenced, because it may be gone
  TF_Status* status;
  void (*destroy)(TF_Status*);
};
extern __thread ThreadStatus t_status;
TF_Status* makeThreadStatus(const TfApi& api);
}  // namespace detail

/// The table, or null while no TensorFlow is loaded. Looks again at each call until one is found;
/// then it costs one load.
inline const TfApi* findTfApi() noexcept {
  const TfApi* api = detail::g_tf_api.load(std::memory_order_acquire);
  return __builtin_expect(api != nullptr, 1) ? api : detail::searchTfApi();
}

/// The table; throws Error{kFramework} that lists every attempt.
const TfApi& requireTfApi();

/// The table with the eager group; throws Error{kFramework}.
inline const TfApi& requireEagerApi() {
  const TfApi* api = detail::g_tf_api.load(std::memory_order_acquire);
  const bool found = api != nullptr && api->TFE_TensorHandleDevicePointer != nullptr;
  return __builtin_expect(found, 1) ? *api : detail::searchEagerApi();
}

/// Uses the TensorFlow behind `handle`; throws Error{kFramework} if it lacks a function.
void useTensorFlowHandle(void* handle);

/// This thread's TF_Status, which is OK: the reader of an error in it calls resetStatus(). Freed
/// when the thread ends.
inline TF_Status* threadStatus(const TfApi& api) {
  const detail::ThreadStatus& own = detail::t_status;
  return __builtin_expect(own.api == &api, 1) ? own.status : detail::makeThreadStatus(api);
}
void resetStatus(const TfApi& api, TF_Status* status) noexcept;

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_TF_API_H_
