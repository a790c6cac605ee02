// The C struct of functions through which the bridge reaches a torch adapter. Only C types cross:
// an adapter is built once per group of torch releases, some with another C++ standard library
// ABI. Not for: applications; they include tensor_bridge/torch.h.
#ifndef TENSOR_BRIDGE_ADAPTERS_TORCH_ABI_H_
#define TENSOR_BRIDGE_ADAPTERS_TORCH_ABI_H_

#include <cstdint>
#include <cstring>

#include "core/owner_kinds.h"
#include "core/tensor_ref.h"
#include "tensor_bridge/c_api.h"

namespace tensor_bridge {

constexpr uint32_t kTorchAdapterAbi = 11;

/// Whether this message of torch's CPU allocator, which throws a plain c10::Error, says that there
/// is no memory. The second text is the one on aarch64.
inline bool saysOutOfMemory(const char* message) noexcept {
  return std::strstr(message, "can't allocate memory") != nullptr ||
         std::strstr(message, "not enough memory") != nullptr;
}

/// The bridge's functions for an adapter.
struct TorchHost {
  /// Sets this thread's error message, returns `code`.
  tb_status (*setError)(tb_status code, const char* message);
  /// Counts memory kept alive across the bridge, +1 or -1.
  void (*countOwner)(int64_t delta);
  /// Whether the process is exiting: leak then.
  bool (*processExiting)();
  /// The kinds of owners that the bridge makes, ending with OwnerTag::kNone. By them an adapter
  /// recognises a storage that is still over foreign memory.
  const OwnerKind* owner_kinds;
};

enum class WrapAction : int32_t {
  kShare,   // the storage shows the memory; the adapter takes ref->owner over
  kCopy,    // the storage is torch's own; ref->owner stays with the caller, who has called
            // releaseLater() for one on a GPU. From null host data it is not filled
  kLookup,  // like kCopy, through `lookup`: one stored byte becomes one element
};

struct QuantParams {
  int64_t count;  // 0: not quantized
  const double* scale;
  const int64_t* zero_point;
  bool per_channel;
  int64_t axis;
};

struct WrapSpec {
  WrapAction action;
  int32_t on_write;  // TB_ON_WRITE_*; kShare only
  Dtype dtype;       // row of the result's torch dtype
  bool move;         // kCopy, kLookup: the result goes to `device`
  DLDevice device;
  const void* lookup;  // kLookup: 256 elements of `dtype`
  QuantParams quant;
};

/// Why TensorFlow cannot use the memory of a torch tensor directly. From kConjugate on an exact
/// copy is possible; the obstacles before it allow no conversion.
enum class Obstacle : int32_t {
  kNone,
  kNotDense,      // sparse, nested: not one block of elements
  kWrapped,       // functorch, functionalization, a Python subclass with its own dispatch
  kMeta,          // no data
  kQuantized,     // scale and zero point would be lost
  kUnknownDtype,  // no row in the dtype table
  kNoMemory,      // the storage was made smaller than the tensor
  kConjugate,     // lazy conjugation
  kNegative,      // lazy negation
  kZero,          // a tensor of zeros without memory
  kMkldnn,        // opaque layout
  kDevice,        // not host memory
  kStrided,       // not row-major, or expanded
  kMisaligned,    // TensorFlow aborts on it
  kSharedMemory,  // shared with other processes
  kPinned,        // registered with the GPU's driver by its address
  kLazyClone,     // torch's own copy-on-write storage
  kAliased,       // shows memory that is not torch's and writes through to it
  kHooked,        // another materializer, or checks on access
  kArray,         // a NumPy array, or another owner, may keep the address
  kContended,     // two threads were in a first write at once
};

/// The facts about a torch tensor that the bridge needs. Pointers are valid while the tensor lives.
struct TorchFacts {
  Obstacle obstacle;
  Dtype dtype;
  bool requires_grad;
  DLDevice device;
  int32_t ndim;
  const int64_t* shape;
  const void* data;  // first element; null where an obstacle hides it
  int64_t nbytes;    // of a dense copy; INT64_MAX for more than that
  /// The kind of the memory's owner, if the storage is still over memory that came through the
  /// bridge.
  OwnerTag foreign_tag;
  ReleaseFn foreign_release;
  /// With `hold`, and unless an obstacle hides it: a reference to that memory that is the caller's,
  /// not yet counted (OwnerKind::retain). Without it the next write may make the memory torch's.
  void* foreign_owner;
  /// Of the storage that shows it; `nbytes` for a tensor that is all of it.
  int64_t storage_bytes;
  /// torch's name of the obstacle, for messages ("Sparse", "torch.qint8").
  char name[64];
};

struct TorchAdapter {
  uint32_t abi;
  uint32_t struct_size;
  /// The torch releases that it was built for, e.g. "2.13".
  const char* group;
  /// Whether writes to shared storages are intercepted.
  bool protects;
  /// The same for storages over memory on a GPU.
  bool protects_gpu;
  /// Every conversion copies, whatever the options: for a torch that no adapter is proven on.
  bool copies;

  /// Whether torch can place a tensor on devices of this DLPack type in this process.
  bool (*hasDevice)(int32_t device_type);
  /// Index of the calling thread's current GPU; only if hasDevice() is true.
  int32_t (*currentDevice)();
  /// Replaces the ordinal of a GPU view, whose producer may number GPUs differently, by torch's.
  tb_status (*resolveDevice)(TensorView* view);
  /// For GPU memory after resolveDevice(): replaces its owner by one that may be released while
  /// torch's streams still read the memory, and that releases the memory once they have finished.
  /// On failure nothing has changed.
  tb_status (*releaseLater)(TensorRef* ref);
  /// Waits while too much GPU memory is held back by releaseLater() and by tensors that were
  /// dropped (adapters/torch/give_back.h). Hold neither a lock nor the GIL.
  void (*waitForReleases)();

  /// Makes a torch tensor from `ref`. On TB_OK `*tensor` holds one reference that the caller owns,
  /// and for kShare the owner was taken over: it belongs to the tensor's storage. On failure `ref`
  /// keeps its owner. The GIL is neither needed nor touched.
  tb_status (*wrap)(TensorRef* ref, const WrapSpec* spec, tb_torch_tensor** tensor);
  /// wrap() and toPython() in one for kShare, which gives the storage its owner from the start: a
  /// failure after that releases it. Null on failure: either with a Python error set or with the
  /// message set. Needs the GIL.
  _object* (*sharePython)(TensorRef* ref, const WrapSpec* spec);
  /// A new reference to a torch.Tensor; always takes over `tensor`. Null on failure: either
  /// with a Python error set or with the message set. Needs the GIL.
  _object* (*toPython)(tb_torch_tensor* tensor);
  void (*release)(tb_torch_tensor* tensor);
  /// Refers to the memory without materialising; the owner is a reference to `tensor`.
  /// `shape` and `strides` have room for kMaxDims.
  tb_status (*view)(tb_torch_tensor* tensor, int64_t* shape, int64_t* strides, TensorRef* ref);
  tb_status (*mutableData)(tb_torch_tensor* tensor, void** data);

  /// Whether share() works in this release of torch.
  bool shares;
  /// The tensor inside a torch.Tensor, borrowed from it. The caller has checked the type.
  tb_torch_tensor* (*fromPython)(_object* object);
  /// Fills `facts`; changes nothing. Never fails: an unreadable tensor has an obstacle.
  void (*describe)(tb_torch_tensor* tensor, bool hold, TorchFacts* facts);
  /// Makes the storage of a torch-owned tensor, without an obstacle, keep its bytes for someone
  /// else: the next write in torch moves the torch tensor away. `*owner` is a new reference to the
  /// bytes; its release may run on any thread. `*data` is the first element in them, at another
  /// address than describe() saw if another thread wrote in between. TB_COPY_REQUIRED, without a
  /// message, while another thread is writing.
  tb_status (*share)(tb_torch_tensor* tensor, void** owner, ReleaseFn* release, void** data);
  /// Writes the elements, row-major, to `out`, which has room for facts.nbytes. One pass, lazy
  /// conjugation and negation resolved.
  tb_status (*copyOut)(tb_torch_tensor* tensor, void* out);
  /// The same as int64 (`floating` false) or float64 elements.
  tb_status (*castOut)(tb_torch_tensor* tensor, bool floating, void* out);
  /// Hands over the memory that the tensor's storage has kept since a write moved it; `*owner` is
  /// null if there is none. The caller guarantees that nobody reads it any more.
  tb_status (*takePrevious)(tb_torch_tensor* tensor, void** owner, ReleaseFn* release);
};

/// The one symbol of an adapter. Returns null if `host_abi` is not the one it was built for.
using TorchAdapterEntry = const TorchAdapter* (*)(uint32_t host_abi, const TorchHost* host);
constexpr const char* kTorchAdapterEntry = "tb_torch_adapter_table";

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TORCH_ABI_H_
