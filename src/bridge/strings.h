// tb_strings: byte strings with a shape, in a TensorFlow tensor or in one block of bytes with
// offsets, their form in torch. Conversions in both directions start here.
// Not for: how TensorFlow lays out an element (adapters/tensorflow/strings.h).
#ifndef TENSOR_BRIDGE_BRIDGE_STRINGS_H_
#define TENSOR_BRIDGE_BRIDGE_STRINGS_H_

#include <memory>
#include <vector>

#include "adapters/tensorflow/handles.h"
#include "core/tensor_ref.h"
#include "tensor_bridge/c_api.h"

struct tb_strings {
  tb_strings() = default;
  tb_strings(const tb_strings&) = delete;
  tb_strings& operator=(const tb_strings&) = delete;

  std::vector<int64_t> shape;
  int64_t count = 0;
  /// TensorFlow's elements; null if the strings are in `bytes`.
  const void* elements = nullptr;
  const char* bytes = nullptr;
  int64_t nbytes = 0;
  /// count + 1 offsets, not trusted: each reader checks the two that it reads.
  const int64_t* offsets = nullptr;
  /// References that keep the memory alive; one may have no owner.
  tensor_bridge::TensorRef owners[2];
  /// Copies of memory that could not be read in place.
  std::unique_ptr<char[]> staged[2];
};

namespace tensor_bridge {

using StringsPointer = std::unique_ptr<tb_strings>;

/// Over what exportStrings() read.
StringsPointer stringsOfTf(TensorRef elements);

/// Over the caller's memory, which must outlive the result. Throws Error{kInvalidOption} for
/// impossible sizes.
StringsPointer stringsOfMemory(const char* bytes, int64_t nbytes, const int64_t* offsets,
                               int64_t num_offsets, const int64_t* shape, int ndim);

/// Over two torch tensors, to which the result holds references. Throws Error.
StringsPointer stringsOfTorch(tb_torch_tensor* bytes, tb_torch_tensor* offsets,
                              const int64_t* shape, int ndim);

/// Finds strings `first` to `first + count`. Throws Error{kValueOutOfRange} for offsets that
/// descend or leave the block, {kInvalidOption} for strings that do not exist.
void getStrings(const tb_strings& strings, int64_t first, int64_t count, tb_string* out);

/// Bytes of all strings together; with `offsets` (room for count + 1) also where each of them
/// begins in one block. Throws Error{kValueOutOfRange} as getStrings() does.
int64_t measure(const tb_strings& strings, int64_t* offsets);

/// Writes the block of `nbytes`, the result of measure(). Throws Error if the size has changed.
void gather(const tb_strings& strings, char* bytes, int64_t nbytes);

struct TorchStrings {
  tb_torch_tensor* bytes;
  tb_torch_tensor* offsets;
};

/// Two tensors in torch's own memory, which the caller releases. Needs no GIL. Throws Error:
/// kCopyRequired for copy=never, and the errors of a dense conversion for a device.
TorchStrings stringsToTorch(const tb_strings& strings, const tb_convert_options& options);

/// A TensorFlow string tensor. Needs no GIL.
TfTensor stringsToTf(const tb_strings& strings, const tb_convert_back_options& options,
                     const TfApi& api);

/// What stringsToTorch() would do; never throws for options that it would refuse.
void explainStrings(const tb_strings& strings, const tb_convert_options* options,
                    tb_explanation* out);

/// What stringsToTf() would do; never throws for options that it would refuse.
void explainStringsToTf(const tb_strings& strings, const tb_convert_back_options* options,
                        tb_explanation* out);

/// Bytes that a conversion of the strings handles, to decide whether to release the GIL.
int64_t workBytes(const tb_strings& strings) noexcept;

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_BRIDGE_STRINGS_H_
