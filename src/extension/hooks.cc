#include "extension/hooks.h"

namespace tensor_bridge::python {

PyObject* Hook::get() {
  if (object_ == nullptr) {
    const Owned module(PyImport_ImportModule(module_));
    if (module) object_ = PyObject_GetAttrString(module.get(), name_);
  }
  return object_;
}

}  // namespace tensor_bridge::python
