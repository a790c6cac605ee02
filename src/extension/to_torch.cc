#include "extension/to_torch.h"

#include "extension/errors.h"
#include "extension/frameworks.h"
#include "extension/hooks.h"
#include "extension/options.h"
#include "extension/strings.h"
#include "extension/structure.h"
#include "extension/values.h"
#include "tensor_bridge/c_api.h"

namespace tensor_bridge::python {
namespace {

// Positional arguments of the variable functions.
struct VariableArguments {
  PyObject* handle;
  void* context;
  int32_t tf_dtype;
};

bool parseVariable(PyObject* const* args, Py_ssize_t nargs, const char* name,
                   VariableArguments* out) {
  if (nargs != 3) {
    wrongCount(name, 3, nargs);
    return false;
  }
  out->handle = args[0];
  // TensorFlow's context capsule has no name.
  out->context = PyCapsule_GetPointer(args[1], nullptr);
  if (out->context == nullptr) return false;
  out->tf_dtype = static_cast<int32_t>(PyLong_AsLong(args[2]));
  return PyErr_Occurred() == nullptr;
}

// Begins a call for one dense tensor. False with an exception set.
bool begin(PyObject* names, PyObject* const* values, ParsedToTorchOptions* parsed) {
  return ensureReady() && parseToTorchOptions(names, values, kDenseOnly, parsed);
}

}  // namespace

[[gnu::no_stack_protector]] PyObject* convertTfToPytorch(PyObject*, PyObject* const* args,
                                                         Py_ssize_t nargs, PyObject* names) {
  PyObject* result = nullptr;
  tb_status status;
  if (__builtin_expect(nargs == 1 && names == nullptr && detail::g_ready &&
                           Py_TYPE(args[0]) == detail::g_eager_type,
                       1)) {
    status = tb_py_tf_to_torch(args[0], nullptr, &result);
  } else {
    if (nargs == 0) {
      return withKeywordAsPositional(convertTfToPytorch, "convert_tf_to_pytorch", "t", args, names);
    }
    if (nargs != 1) return wrongCount("convert_tf_to_pytorch", 1, nargs);
    if (!isEager(args[0])) {
      return isContainer(args[0]) ? convertStructure(args[0], kToTorch, names, args + 1)
                                  : callOther(&hooks::other_to_torch, args[0], names, args + 1);
    }
    if (!ensureReady()) return nullptr;
    ParsedToTorchOptions parsed;
    if (!parseToTorchOptions(names, args + nargs, kWithExtras, &parsed)) return nullptr;
    status = tb_py_tf_to_torch(args[0], &parsed.options, &result);
  }
  if (__builtin_expect(status == TB_OK, 1)) return result;
  // Strings have a torch form of several tensors; the package converts them where there are
  // keywords, and refuses other dtypes.
  if (status == TB_UNSUPPORTED_DTYPE) {
    if (names == nullptr) status = stringTensorOf(args[0], nullptr, &result);
    if (status == TB_OK) return result;
  }
  return status == TB_UNSUPPORTED_DTYPE
             ? callOther(&hooks::other_to_torch, args[0], names, args + 1)
             : raiseStatus(status);
}

PyObject* tensorToTorch(PyObject*, PyObject* const* args, Py_ssize_t nargs, PyObject* names) {
  if (nargs != 1) return wrongCount("tensor_to_torch", 1, nargs);
  ParsedToTorchOptions parsed;
  if (!begin(names, args + nargs, &parsed)) return nullptr;
  PyObject* result = nullptr;
  const tb_status status = tb_py_tf_to_torch(args[0], &parsed.options, &result);
  return status == TB_OK ? result : raiseStatus(status);
}

PyObject* explainToTorch(PyObject*, PyObject* const* args, Py_ssize_t nargs, PyObject* names) {
  if (nargs != 1) return wrongCount("explain_to_torch", 1, nargs);
  ParsedToTorchOptions parsed;
  if (!begin(names, args + nargs, &parsed)) return nullptr;
  return explained([&](tb_explanation* out, int64_t* shape, int32_t capacity) {
    return tb_py_tf_explain(args[0], &parsed.options, out, shape, capacity);
  });
}

PyObject* variableToTorch(PyObject*, PyObject* const* args, Py_ssize_t nargs, PyObject* names) {
  VariableArguments variable;
  if (!parseVariable(args, nargs, "variable_to_torch", &variable)) return nullptr;
  ParsedToTorchOptions parsed;
  if (!begin(names, args + nargs, &parsed)) return nullptr;
  PyObject* result = nullptr;
  const tb_status status = tb_py_variable_to_torch(variable.handle, variable.context,
                                                   variable.tf_dtype, &parsed.options, &result);
  return status == TB_OK ? result : raiseStatus(status);
}

PyObject* explainVariable(PyObject*, PyObject* const* args, Py_ssize_t nargs, PyObject* names) {
  VariableArguments variable;
  if (!parseVariable(args, nargs, "explain_variable", &variable)) return nullptr;
  ParsedToTorchOptions parsed;
  if (!begin(names, args + nargs, &parsed)) return nullptr;
  return explained([&](tb_explanation* out, int64_t* shape, int32_t capacity) {
    return tb_py_variable_explain(variable.handle, variable.context, variable.tf_dtype,
                                  &parsed.options, out, shape, capacity);
  });
}

}  // namespace tensor_bridge::python
