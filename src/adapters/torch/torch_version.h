// Differences between the releases of torch for which one source is compiled: every #if on torch's
// version. Seen: torch 2.6 to 2.15. cmake/torch_groups.cmake chooses, by file, which storages copy
// on write and whether writers of lists are guarded. Not for: differences in layout inside a group;
// there are none.
#ifndef TENSOR_BRIDGE_ADAPTERS_TORCH_TORCH_VERSION_H_
#define TENSOR_BRIDGE_ADAPTERS_TORCH_TORCH_VERSION_H_

#include <ATen/core/Tensor.h>
#include <torch/version.h>

#define TB_TORCH_AT_LEAST(minor) \
  (TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= (minor)))

#define TB_STRING_OF(x) #x
#define TB_STRING(x) TB_STRING_OF(x)

struct _object;

namespace tensor_bridge {

constexpr const char kTorchRelease[] =
    TB_STRING(TORCH_VERSION_MAJOR) "." TB_STRING(TORCH_VERSION_MINOR);

// PyObject* THPVariable_Wrap(at::TensorBase&&) from 2.10 on, (const at::TensorBase&) before. A
// Python tensor's first field (torch/csrc/autograd/python_variable.h) is at::Tensor from 2.10 on,
// c10::MaybeOwned<at::Tensor> before.
#if TB_TORCH_AT_LEAST(10)
using WrapPython = _object* (*)(at::TensorBase&&);
constexpr const char* kWrapPython = "_Z16THPVariable_WrapON2at10TensorBaseE";
inline const at::Tensor& tensorInField(void* field) { return *static_cast<at::Tensor*>(field); }
#else
using WrapPython = _object* (*)(const at::TensorBase&);
constexpr const char* kWrapPython = "_Z16THPVariable_WrapRKN2at10TensorBaseE";
inline const at::Tensor& tensorInField(void* field) {
  return **static_cast<c10::MaybeOwned<at::Tensor>*>(field);
}
#endif

}  // namespace tensor_bridge

// Conversions of c10::Scalar, which boxing compiles in, call c10::report_overflow(). In 2.15 they
// do not.
#if !TB_TORCH_AT_LEAST(15)
#define TB_TORCH_NEEDS_REPORT_OVERFLOW
#endif

#endif  // TENSOR_BRIDGE_ADAPTERS_TORCH_TORCH_VERSION_H_
