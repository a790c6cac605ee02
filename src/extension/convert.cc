#include "extension/convert.h"

#include <vector>

#include "c_api/private_api.h"
#include "extension/errors.h"
#include "extension/frameworks.h"
#include "extension/hooks.h"
#include "extension/options.h"
#include "extension/structure.h"
#include "extension/values.h"
#include "tensor_bridge/c_api.h"

namespace tensor_bridge::python {
namespace {

// TensorFlow's TensorShape::MaxDimensions().
constexpr int kMaxDims = 254;

// Calls function(t, **keywords): whatever is not one plain tensor.
PyObject* callOther(Hook* hook, PyObject* t, PyObject* names, PyObject* const* values) {
  PyObject* function = hook->get();
  const Owned keywords = function == nullptr ? Owned() : keywordDict(names, values);
  const Owned positional(keywords ? PyTuple_Pack(1, t) : nullptr);
  return positional ? PyObject_Call(function, positional.get(), keywords.get()) : nullptr;
}

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

}  // namespace

// Calls `function` again with the keyword `name` as the positional argument, where it was given as
// one: rare, so it may cost an allocation.
PyObject* withKeywordAsPositional(PyObject* (*function)(PyObject*, PyObject* const*, Py_ssize_t,
                                                        PyObject*),
                                  const char* function_name, const char* name,
                                  PyObject* const* values, PyObject* names) {
  const Py_ssize_t count = names == nullptr ? 0 : PyTuple_Size(names);
  std::vector<PyObject*> arguments(1, nullptr);
  const Owned rest(PyList_New(0));
  for (Py_ssize_t i = 0; rest && i < count; ++i) {
    PyObject* keyword = PyTuple_GetItem(names, i);
    if (PyUnicode_CompareWithASCIIString(keyword, name) == 0) {
      arguments[0] = values[i];
    } else if (PyList_Append(rest.get(), keyword) == 0) {
      arguments.push_back(values[i]);
    } else {
      return nullptr;
    }
  }
  const Owned others(rest ? PyList_AsTuple(rest.get()) : nullptr);
  if (!others) return nullptr;
  if (arguments[0] == nullptr) return wrongCount(function_name, 1, 0);
  return function(nullptr, arguments.data(), 1, arguments.size() == 1 ? nullptr : others.get());
}

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
                                  : callOther(&hooks::convert_other, args[0], names, args + 1);
    }
    if (!ensureReady()) return nullptr;
    ParsedOptions parsed;
    if (!parseOptions(names, args + nargs, kWithExtras, &parsed)) return nullptr;
    status = tb_py_tf_to_torch(args[0], &parsed.options, &result);
  }
  if (__builtin_expect(status == TB_OK, 1)) return result;
  // Strings have a torch form of several tensors.
  if (status == TB_UNSUPPORTED_DTYPE) {
    return callOther(&hooks::convert_other, args[0], names, args + 1);
  }
  return raiseStatus(status);
}

PyObject* convertTensor(PyObject*, PyObject* const* args, Py_ssize_t nargs, PyObject* names) {
  if (nargs != 1) return wrongCount("convert_tensor", 1, nargs);
  if (!ensureReady()) return nullptr;
  ParsedOptions parsed;
  if (!parseOptions(names, args + nargs, kDenseOnly, &parsed)) return nullptr;
  PyObject* result = nullptr;
  const tb_status status = tb_py_tf_to_torch(args[0], &parsed.options, &result);
  return status == TB_OK ? result : raiseStatus(status);
}

PyObject* explainTensor(PyObject*, PyObject* const* args, Py_ssize_t nargs, PyObject* names) {
  if (nargs != 1) return wrongCount("explain_tensor", 1, nargs);
  if (!ensureReady()) return nullptr;
  ParsedOptions parsed;
  if (!parseOptions(names, args + nargs, kDenseOnly, &parsed)) return nullptr;
  tb_explanation explanation;
  explanation.struct_size = sizeof(explanation);
  int64_t shape[kMaxDims];
  const tb_status status =
      tb_py_tf_explain(args[0], &parsed.options, &explanation, shape, kMaxDims);
  return status == TB_OK ? explanationTuple(explanation, shape) : raiseStatus(status);
}

PyObject* convertVariable(PyObject*, PyObject* const* args, Py_ssize_t nargs, PyObject* names) {
  VariableArguments variable;
  if (!parseVariable(args, nargs, "convert_variable", &variable)) return nullptr;
  if (!ensureReady()) return nullptr;
  ParsedOptions parsed;
  if (!parseOptions(names, args + nargs, kDenseOnly, &parsed)) return nullptr;
  PyObject* result = nullptr;
  const tb_status status = tb_py_variable_to_torch(variable.handle, variable.context,
                                                   variable.tf_dtype, &parsed.options, &result);
  return status == TB_OK ? result : raiseStatus(status);
}

PyObject* explainVariable(PyObject*, PyObject* const* args, Py_ssize_t nargs, PyObject* names) {
  VariableArguments variable;
  if (!parseVariable(args, nargs, "explain_variable", &variable)) return nullptr;
  if (!ensureReady()) return nullptr;
  ParsedOptions parsed;
  if (!parseOptions(names, args + nargs, kDenseOnly, &parsed)) return nullptr;
  tb_explanation explanation;
  explanation.struct_size = sizeof(explanation);
  int64_t shape[kMaxDims];
  const tb_status status =
      tb_py_variable_explain(variable.handle, variable.context, variable.tf_dtype, &parsed.options,
                             &explanation, shape, kMaxDims);
  return status == TB_OK ? explanationTuple(explanation, shape) : raiseStatus(status);
}

[[gnu::no_stack_protector]] PyObject* convertPytorchToTf(PyObject*, PyObject* const* args,
                                                         Py_ssize_t nargs, PyObject* names) {
  PyObject* result = nullptr;
  tb_status status;
  if (__builtin_expect(nargs == 1 && names == nullptr && detail::g_back_ready, 1) &&
      isTorch(args[0])) {
    status = tb_py_torch_to_tf(args[0], nullptr, &result);
  } else {
    if (nargs == 0) {
      return withKeywordAsPositional(convertPytorchToTf, "convert_pytorch_to_tf", "x", args, names);
    }
    if (nargs != 1) return wrongCount("convert_pytorch_to_tf", 1, nargs);
    if (!isTorch(args[0])) {
      return isContainer(args[0]) ? convertStructure(args[0], kToTensorFlow, names, args + 1)
                                  : callOther(&hooks::convert_other_back, args[0], names, args + 1);
    }
    if (!ensureBackReady()) return nullptr;
    ParsedBackOptions parsed;
    if (!parseBackOptions(names, args + nargs, kWithExtras, &parsed)) return nullptr;
    if (parsed.device != nullptr && parsed.device != Py_None) {
      return callOther(&hooks::convert_other_back, args[0], names, args + 1);
    }
    status = tb_py_torch_to_tf(args[0], &parsed.options, &result);
  }
  if (__builtin_expect(status == TB_OK, 1)) return result;
  // Sparse and nested layouts have a TensorFlow form of several tensors.
  if (status == TB_UNSUPPORTED_TYPE) {
    return callOther(&hooks::convert_other_back, args[0], names, args + 1);
  }
  return raiseStatus(status);
}

PyObject* convertTensorBack(PyObject*, PyObject* const* args, Py_ssize_t nargs, PyObject* names) {
  if (nargs != 1) return wrongCount("convert_tensor_back", 1, nargs);
  if (!isTorch(args[0])) {
    PyErr_SetString(PyExc_TypeError, "expected a torch.Tensor");
    return nullptr;
  }
  if (!ensureBackReady()) return nullptr;
  ParsedBackOptions parsed;
  if (!parseBackOptions(names, args + nargs, kDenseOnly, &parsed)) return nullptr;
  if (parsed.device != nullptr && parsed.device != Py_None) {
    return callOther(&hooks::convert_back_to_device, args[0], names, args + 1);
  }
  PyObject* result = nullptr;
  const tb_status status = tb_py_torch_to_tf(args[0], &parsed.options, &result);
  return status == TB_OK ? result : raiseStatus(status);
}

PyObject* explainTorch(PyObject*, PyObject* const* args, Py_ssize_t nargs, PyObject* names) {
  if (nargs != 1) return wrongCount("explain_torch", 1, nargs);
  if (!isTorch(args[0])) {
    PyErr_SetString(PyExc_TypeError, "expected a torch.Tensor");
    return nullptr;
  }
  if (!ensureBackReady()) return nullptr;
  ParsedBackOptions parsed;
  if (!parseBackOptions(names, args + nargs, kDenseOnly, &parsed)) return nullptr;
  tb_explanation explanation;
  explanation.struct_size = sizeof(explanation);
  int64_t shape[kMaxDims];
  const tb_status status =
      tb_py_torch_explain(args[0], &parsed.options, &explanation, shape, kMaxDims);
  return status == TB_OK ? explanationTuple(explanation, shape) : raiseStatus(status);
}

PyObject* isTorchTensor(PyObject*, PyObject* x) { return PyBool_FromLong(isTorch(x)); }

PyObject* isEagerTensor(PyObject*, PyObject* t) { return PyBool_FromLong(isEager(t)); }

PyObject* hasHandle(PyObject*, PyObject* t) {
  return PyBool_FromLong(isEager(t) && tb_py_has_handle(t) != 0);
}

PyObject* releasePrevious(PyObject*, PyObject* x) {
  if (!isTorch(x)) {
    PyErr_SetString(PyExc_TypeError, "expected a torch.Tensor");
    return nullptr;
  }
  if (!ensureReady()) return nullptr;
  int32_t released = 0;
  const tb_status status = tb_py_torch_release_previous(x, &released);
  return status == TB_OK ? PyLong_FromLong(released) : raiseStatus(status);
}

PyObject* tfAddress(PyObject*, PyObject* t) {
  const void* address = nullptr;
  const tb_status status = tb_py_tf_address(t, &address);
  return status == TB_OK ? PyLong_FromVoidPtr(const_cast<void*>(address)) : raiseStatus(status);
}

PyObject* gpuOfAddress(PyObject*, PyObject* address) {
  const void* pointer = PyLong_AsVoidPtr(address);
  if (PyErr_Occurred() != nullptr) return nullptr;
  return PyLong_FromLong(tb_gpu_of_address(pointer));
}

PyObject* requireTorchCuda(PyObject*, PyObject*) {
  const tb_status status = tb_require_torch_cuda();
  if (status != TB_OK) return raiseStatus(status);
  Py_RETURN_NONE;
}

int32_t gpuOfLogical(int32_t logical) {
  const Gil gil;
  const Owned ordinal = hooks::gpu_of_logical.call("(i)", logical);
  const int32_t result = ordinal ? static_cast<int32_t>(PyLong_AsLong(ordinal.get())) : -1;
  PyErr_Clear();
  return result;
}

}  // namespace tensor_bridge::python
