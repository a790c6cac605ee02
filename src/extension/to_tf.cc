#include "extension/to_tf.h"

#include "extension/errors.h"
#include "extension/frameworks.h"
#include "extension/hooks.h"
#include "extension/options.h"
#include "extension/structure.h"
#include "extension/values.h"
#include "tensor_bridge/c_api.h"

namespace tensor_bridge::python {
namespace {

// Begins a call for one dense tensor. False with an exception set.
bool begin(const char* name, PyObject* const* args, Py_ssize_t nargs, PyObject* names,
           ParsedToTfOptions* parsed) {
  if (nargs != 1) {
    wrongCount(name, 1, nargs);
    return false;
  }
  if (!isTorch(args[0])) {
    PyErr_SetString(PyExc_TypeError, "expected a torch.Tensor");
    return false;
  }
  return ensureBothReady() && parseToTfOptions(names, args + nargs, kDenseOnly, parsed);
}

}  // namespace

[[gnu::no_stack_protector]] PyObject* convertPytorchToTf(PyObject*, PyObject* const* args,
                                                         Py_ssize_t nargs, PyObject* names) {
  PyObject* result = nullptr;
  tb_status status;
  if (__builtin_expect(nargs == 1 && names == nullptr && detail::g_both_ready, 1) &&
      isTorch(args[0])) {
    status = tb_py_torch_to_tf(args[0], nullptr, &result);
  } else {
    if (nargs == 0) {
      return withKeywordAsPositional(convertPytorchToTf, "convert_pytorch_to_tf", "x", args, names);
    }
    if (nargs != 1) return wrongCount("convert_pytorch_to_tf", 1, nargs);
    if (!isTorch(args[0])) {
      return isContainer(args[0]) ? convertStructure(args[0], kToTensorFlow, names, args + 1)
                                  : callOther(&hooks::other_to_tf, args[0], names, args + 1);
    }
    if (!ensureBothReady()) return nullptr;
    ParsedToTfOptions parsed;
    if (!parseToTfOptions(names, args + nargs, kWithExtras, &parsed)) return nullptr;
    if (parsed.device != nullptr && parsed.device != Py_None) {
      return callOther(&hooks::other_to_tf, args[0], names, args + 1);
    }
    status = tb_py_torch_to_tf(args[0], &parsed.options, &result);
  }
  if (__builtin_expect(status == TB_OK, 1)) return result;
  // Sparse and nested layouts have a TensorFlow form of several tensors.
  if (status == TB_UNSUPPORTED_TYPE) {
    return callOther(&hooks::other_to_tf, args[0], names, args + 1);
  }
  return raiseStatus(status);
}

PyObject* tensorToTf(PyObject*, PyObject* const* args, Py_ssize_t nargs, PyObject* names) {
  ParsedToTfOptions parsed;
  if (!begin("tensor_to_tf", args, nargs, names, &parsed)) return nullptr;
  if (parsed.device != nullptr && parsed.device != Py_None) {
    return callOther(&hooks::to_tf_on_device, args[0], names, args + 1);
  }
  PyObject* result = nullptr;
  const tb_status status = tb_py_torch_to_tf(args[0], &parsed.options, &result);
  return status == TB_OK ? result : raiseStatus(status);
}

PyObject* explainToTf(PyObject*, PyObject* const* args, Py_ssize_t nargs, PyObject* names) {
  ParsedToTfOptions parsed;
  if (!begin("explain_to_tf", args, nargs, names, &parsed)) return nullptr;
  return explained([&](tb_explanation* out, int64_t* shape, int32_t capacity) {
    return tb_py_torch_explain(args[0], &parsed.options, out, shape, capacity);
  });
}

}  // namespace tensor_bridge::python
