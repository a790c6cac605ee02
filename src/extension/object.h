// Who owns a Python object: a reference of our own, an error that is put aside, the GIL.
// Not for: values made of C ones (values.h).
#ifndef TENSOR_BRIDGE_EXTENSION_OBJECT_H_
#define TENSOR_BRIDGE_EXTENSION_OBJECT_H_

#include <Python.h>

#include <utility>

namespace tensor_bridge::python {

/// One reference of our own, or null: null is a failure whose exception is set, unless a function
/// says otherwise. The GIL is held wherever one is made, moved or dropped.
class Owned {
 public:
  Owned() = default;
  /// Takes a new reference over.
  explicit Owned(PyObject* object) : object_(object) {}
  Owned(Owned&& other) noexcept : object_(other.release()) {}
  Owned& operator=(Owned&& other) noexcept {
    // The old object goes last: what it runs may look at this one.
    const Owned old(std::exchange(object_, other.release()));
    return *this;
  }
  ~Owned() { Py_XDECREF(object_); }

  PyObject* get() const { return object_; }
  explicit operator bool() const { return object_ != nullptr; }
  /// The reference, which is the caller's from now on.
  [[nodiscard]] PyObject* release() { return std::exchange(object_, nullptr); }
  /// A place for a new reference, while there is none.
  PyObject** out() { return &object_; }

 private:
  PyObject* object_ = nullptr;
};

/// Holds the GIL, also in a thread that Python does not know, and in one that holds it already.
class Gil {
 public:
  Gil() : state_(PyGILState_Ensure()) {}
  ~Gil() { PyGILState_Release(state_); }
  Gil(const Gil&) = delete;
  Gil& operator=(const Gil&) = delete;

 private:
  PyGILState_STATE state_;
};

/// The error that is set, if there is one, put aside until the end of the scope. What is set by
/// then is dropped in its favour.
class ErrorState {
 public:
  ErrorState() { PyErr_Fetch(&type_, &value_, &traceback_); }
  ~ErrorState() { PyErr_Restore(type_, value_, traceback_); }
  ErrorState(const ErrorState&) = delete;
  ErrorState& operator=(const ErrorState&) = delete;

  /// The exception, borrowed; null where no error was set.
  PyObject* exception() {
    PyErr_NormalizeException(&type_, &value_, &traceback_);
    return value_;
  }

 private:
  PyObject* type_ = nullptr;
  PyObject* value_ = nullptr;
  PyObject* traceback_ = nullptr;
};

}  // namespace tensor_bridge::python

#endif  // TENSOR_BRIDGE_EXTENSION_OBJECT_H_
