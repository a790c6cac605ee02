// Ownership of Python objects: an owned reference, an error that is put aside, the GIL.
// Not for: Python values made from C values (values.h).
#ifndef TENSOR_BRIDGE_EXTENSION_OBJECT_H_
#define TENSOR_BRIDGE_EXTENSION_OBJECT_H_

#include <Python.h>

#include <utility>

namespace tensor_bridge::python {

/// One owned reference, or null: null is a failure whose exception is set, unless a function says
/// otherwise. The GIL is held whenever one is made, moved or dropped.
class Owned {
 public:
  Owned() = default;
  /// Takes over a new reference.
  explicit Owned(PyObject* object) : object_(object) {}
  Owned(Owned&& other) noexcept : object_(other.release()) {}
  Owned& operator=(Owned&& other) noexcept {
    // The old object is dropped last: its destructor may look at this object.
    const Owned old(std::exchange(object_, other.release()));
    return *this;
  }
  ~Owned() { Py_XDECREF(object_); }

  PyObject* get() const { return object_; }
  explicit operator bool() const { return object_ != nullptr; }
  /// Hands the reference to the caller.
  [[nodiscard]] PyObject* release() { return std::exchange(object_, nullptr); }
  /// The address for a new reference; allowed only while there is none.
  PyObject** out() { return &object_; }

 private:
  PyObject* object_ = nullptr;
};

/// Holds the GIL, also in a thread that Python does not know, and in a thread that already holds
/// it.
class Gil {
 public:
  Gil() : state_(PyGILState_Ensure()) {}
  ~Gil() { PyGILState_Release(state_); }
  Gil(const Gil&) = delete;
  Gil& operator=(const Gil&) = delete;

 private:
  PyGILState_STATE state_;
};

/// Puts the current error, if there is one, aside until the end of the scope, and then restores it;
/// an error that was set meanwhile is dropped.
class ErrorState {
 public:
  ErrorState() { PyErr_Fetch(&type_, &value_, &traceback_); }
  ~ErrorState() { PyErr_Restore(type_, value_, traceback_); }
  ErrorState(const ErrorState&) = delete;
  ErrorState& operator=(const ErrorState&) = delete;

  /// The exception, borrowed; null if no error was set.
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
