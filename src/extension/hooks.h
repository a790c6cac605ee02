// The functions of the Python package that the extension calls, in one table, and the way to call
// them. Not for: functions that come as arguments, such as on_failure of data_open.
#ifndef TENSOR_BRIDGE_EXTENSION_HOOKS_H_
#define TENSOR_BRIDGE_EXTENSION_HOOKS_H_

#include <Python.h>

#include "extension/object.h"

namespace tensor_bridge::python {

/// A function or another attribute of one of the package's modules.
class Hook {
 public:
  constexpr Hook(const char* module, const char* name) : module_(module), name_(name) {}

  /// Borrowed; imported at the first use and never freed. Null with an exception set.
  PyObject* get();

  /// Calls the function and returns its result. `format` is Py_BuildValue's, with its parentheses.
  template <typename... Arguments>
  Owned call(const char* format = "()", Arguments... arguments) {
    PyObject* function = get();
    return Owned(function == nullptr ? nullptr
                                     : PyObject_CallFunction(function, format, arguments...));
  }

 private:
  const char* module_;
  const char* name_;
  PyObject* object_ = nullptr;
};

// tests/lint/test_hooks.py checks that each row exists, is used, and gets the arguments it takes.
namespace hooks {

// Errors: the exception of each status, a dict.
inline Hook by_status{"tensor_bridge.errors", "BY_STATUS"};

// The frameworks: imported and checked, once.
inline Hook ensure{"tensor_bridge._frameworks", "ensure"};
inline Hook ensure_tensorflow{"tensor_bridge._frameworks", "ensure_tensorflow"};
inline Hook say_that_it_copies{"tensor_bridge._frameworks", "say_that_it_copies"};

// Keywords that are rarely given and may have many types.
inline Hook device_pair{"tensor_bridge._options", "device_pair"};
inline Hook tf_dtype_number{"tensor_bridge._options", "tf_dtype_number"};
inline Hook quantization_lists{"tensor_bridge._options", "quantization_lists"};
inline Hook check_extra{"tensor_bridge._options", "check_extra"};
inline Hook refuse_keyword{"tensor_bridge._options", "refuse_keyword"};

// Values that are not one plain tensor on the host.
inline Hook other_to_torch{"tensor_bridge._convert", "other_to_torch"};
inline Hook other_to_tf{"tensor_bridge._convert", "other_to_tf"};
inline Hook convert_unknown{"tensor_bridge._convert", "convert_unknown"};
inline Hook string_tensor{"tensor_bridge.composite.string", "StringTensor"};
inline Hook size_type{"tensor_bridge.composite.string", "size_type"};
inline Hook to_tf_on_device{"tensor_bridge._dense", "to_tf_on_device"};

// Which GPU a logical device of TensorFlow's is on. Called on any thread.
inline Hook gpu_of_logical{"tensor_bridge._devices", "gpu_of_logical"};

// The object that the C exchange API of DLPack gives out.
inline Hook exporter_of_capsule{"tensor_bridge.dlpack", "exporter_of_capsule"};

// The adapter for a torch that no other adapter is proven on. Called on any thread.
inline Hook copying_describe{"tensor_bridge._copying", "describe"};
inline Hook copying_empty{"tensor_bridge._copying", "empty"};
inline Hook copying_values{"tensor_bridge._copying", "values"};
inline Hook copying_from_capsule{"tensor_bridge._copying", "from_capsule"};

}  // namespace hooks
}  // namespace tensor_bridge::python

#endif  // TENSOR_BRIDGE_EXTENSION_HOOKS_H_
