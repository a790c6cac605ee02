// The elements of TensorFlow's `string` tensors, through our own code for their documented layout:
// read in place, gathered into one block, and written in TensorFlow's form. Not for: bytes and
// offsets as a value (bridge/strings.h).
#ifndef TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_STRINGS_H_
#define TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_STRINGS_H_

#include "adapters/tensorflow/handles.h"
#include "core/tensor_ref.h"
#include "tensor_bridge/c_api.h"

namespace tensor_bridge {

/// Bytes of an element.
constexpr int64_t kStringBytes = 24;

/// Refers to the elements behind `handle`. On return `ref->dl.data` is what the functions below
/// call `elements`, and `ref->dl.shape` is `shape`, which has room for kMaxDims. Blocks until the
/// tensor's producer has finished; hold no lock that the producer may want (the GIL) unless
/// api.isReady(handle). Throws Error: kUnsupportedDtype for a tensor of another dtype,
/// kUnsupportedDevice for remote, packed and custom-device handles, kTensorFlow with TensorFlow's
/// message if the producer failed.
void exportStrings(const TfApi& api, TFE_TensorHandle* handle, int64_t* shape, TensorRef* ref);

/// The same for `tensor`, without an owner: it stays with the caller and must outlive `ref`.
/// (TF_TensorBitcastFrom, which makes a second reference of other dtypes, refuses strings.)
void exportStrings(const TfApi& api, TF_Tensor* tensor, int64_t* shape, TensorRef* ref);

/// Element `index`, valid as long as the tensor's buffer lives.
const void* stringElement(const void* elements, int64_t index) noexcept;

/// Finds the first `count` elements.
void readStrings(const void* elements, int64_t count, tb_string* out) noexcept;

/// Bytes of `count` elements together. Throws Error{kInvalidHandle} beyond 64 bits.
int64_t measureStrings(const void* elements, int64_t count);

/// The same; writes the count + 1 offsets of the elements in one block, the first of which is 0.
int64_t measureStrings(const void* elements, int64_t count, int64_t* offsets);

/// Writes the elements consecutively into `bytes`, which has room for all `nbytes` of them. Throws
/// Error{kInvalidHandle} if they need another size.
void gatherStrings(const void* elements, int64_t count, char* bytes, int64_t nbytes);

/// Builds a string tensor. Each string gets its own memory from malloc, as in TensorFlow, whose
/// code may free, move and replace single strings.
class StringTensorWriter {
 public:
  /// Room for `count` strings. Throws std::bad_alloc.
  explicit StringTensorWriter(int64_t count);
  ~StringTensorWriter();
  StringTensorWriter(const StringTensorWriter&) = delete;
  StringTensorWriter& operator=(const StringTensorWriter&) = delete;

  /// Writes the next string; at most `count` times. Throws std::bad_alloc.
  void append(const char* data, int64_t size);

  /// The tensor, once all strings are written. `shape` has as many elements as there are strings.
  TfTensor finish(const TfApi& api, const int64_t* shape, int ndim);

 private:
  int64_t written_ = 0;
  char* elements_ = nullptr;
};

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_ADAPTERS_TENSORFLOW_STRINGS_H_
