#include "extension/dlpack.h"

#include "dlpack/dlpack.h"
#include "extension/errors.h"
#include "extension/frameworks.h"
#include "extension/hooks.h"
#include "extension/object.h"
#include "extension/options.h"
#include "tensor_bridge/c_api.h"

namespace tensor_bridge::python {
namespace {

constexpr const char* kVersioned = "dltensor_versioned";
constexpr const char* kUsedVersioned = "used_dltensor_versioned";
constexpr const char* kUnversioned = "dltensor";
constexpr const char* kUsedUnversioned = "used_dltensor";

void deleteStructure(DLManagedTensorVersioned* managed) {
  if (managed->deleter != nullptr) managed->deleter(managed);
}

// A capsule that nobody consumed releases its structure.
void destroyVersioned(PyObject* capsule) {
  if (PyCapsule_IsValid(capsule, kVersioned) == 0) return;
  deleteStructure(
      static_cast<DLManagedTensorVersioned*>(PyCapsule_GetPointer(capsule, kVersioned)));
}

void destroyUnversioned(PyObject* capsule) {
  if (PyCapsule_IsValid(capsule, kUnversioned) == 0) return;
  auto* managed = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule, kUnversioned));
  if (managed->deleter != nullptr) managed->deleter(managed);
}

// The old kind around the new one, which it takes over.
DLManagedTensor* toUnversioned(DLManagedTensorVersioned* managed) {
  auto* old = new DLManagedTensor{};
  old->dl_tensor = managed->dl_tensor;
  old->manager_ctx = managed;
  old->deleter = [](DLManagedTensor* self) {
    deleteStructure(static_cast<DLManagedTensorVersioned*>(self->manager_ctx));
    delete self;
  };
  return old;
}

PyObject* versionedCapsule(DLManagedTensorVersioned* managed) {
  PyObject* capsule = PyCapsule_New(managed, kVersioned, destroyVersioned);
  if (capsule == nullptr) deleteStructure(managed);
  return capsule;
}

// Takes the structure out of a capsule, which is marked used. Null with an exception set.
DLManagedTensorVersioned* consume(PyObject* capsule) {
  if (PyCapsule_IsValid(capsule, kVersioned) != 0) {
    auto* managed =
        static_cast<DLManagedTensorVersioned*>(PyCapsule_GetPointer(capsule, kVersioned));
    return PyCapsule_SetName(capsule, kUsedVersioned) == 0 ? managed : nullptr;
  }
  if (PyCapsule_IsValid(capsule, kUnversioned) != 0) {
    DLManagedTensorVersioned* managed = nullptr;
    const tb_status status =
        tb_dlpack_from_unversioned(PyCapsule_GetPointer(capsule, kUnversioned), &managed);
    if (status != TB_OK) {
      raiseStatus(status);
      return nullptr;
    }
    return PyCapsule_SetName(capsule, kUsedUnversioned) == 0 ? managed : nullptr;
  }
  const bool used = PyCapsule_IsValid(capsule, kUsedVersioned) != 0 ||
                    PyCapsule_IsValid(capsule, kUsedUnversioned) != 0;
  raiseInvalidHandle(used ? "expected a fresh DLPack capsule, got one that was consumed already; "
                            "ask its producer for another one"
                          : "expected a DLPack capsule named dltensor_versioned or dltensor");
  return nullptr;
}

// If torch is the consumer, it drops GPU memory while its kernels still read it. The adapter, if it
// is loaded by then, knows when these have finished.
void loadAdapterBesideTorch() {
  if (PyDict_GetItemString(PyImport_GetModuleDict(), "torch") == nullptr || ensureReady()) return;
  // Other consumers need no adapter.
  PyErr_Clear();
}

// The C exchange API, dlpack.h 1.2 and newer. Its functions get tensor_bridge.dlpack.Exporter.

#if DLPACK_MAJOR_VERSION > 1 || DLPACK_MINOR_VERSION >= 2
int allocate(DLTensor* prototype, DLManagedTensorVersioned** out, void* error_context,
             void (*set_error)(void*, const char*, const char*)) {
  return tb_dlpack_allocate(prototype, out, error_context, set_error);
}

int fromPyObject(void* object, DLManagedTensorVersioned** out) {
  const Owned tensor(PyObject_GetAttrString(static_cast<PyObject*>(object), "tensor"));
  if (!tensor) return -1;
  loadAdapterBesideTorch();
  const tb_status status = tb_py_tf_to_dlpack(tensor.get(), TB_COPY_AUTO, out);
  if (status == TB_OK) return 0;
  raiseStatus(status);
  return -1;
}

int toPyObject(DLManagedTensorVersioned* managed, void** out) {
  const Owned capsule(versionedCapsule(managed));
  *out = capsule ? hooks::exporter_of_capsule.call("(O)", capsule.get()).release() : nullptr;
  return *out == nullptr ? -1 : 0;
}

int currentWorkStream(DLDeviceType, int32_t, void** out) {
  // Exporting waits for TensorFlow's own stream, so the data are ready for any stream.
  *out = nullptr;
  return 0;
}
#endif

}  // namespace

PyObject* dlpackCapsule(PyObject*, PyObject* args) {
  PyObject* tensor;
  int versioned;
  int copy;
  if (!PyArg_ParseTuple(args, "Opp:dlpack_capsule", &tensor, &versioned, &copy)) return nullptr;
  const bool copies = copy != 0 || versioned == 0;
  loadAdapterBesideTorch();
  DLManagedTensorVersioned* managed = nullptr;
  const tb_status status =
      tb_py_tf_to_dlpack(tensor, copies ? TB_COPY_ALWAYS : TB_COPY_NEVER, &managed);
  if (status != TB_OK) return raiseStatus(status);
  if (versioned != 0) return versionedCapsule(managed);
  DLManagedTensor* old = toUnversioned(managed);
  PyObject* capsule = PyCapsule_New(old, kUnversioned, destroyUnversioned);
  if (capsule == nullptr) old->deleter(old);
  return capsule;
}

PyObject* torchFromDlpack(PyObject*, PyObject* const* args, Py_ssize_t nargs, PyObject* names) {
  if (nargs != 1) {
    PyErr_SetString(PyExc_TypeError, "torch_from_dlpack() takes exactly 1 positional argument");
    return nullptr;
  }
  if (!ensureReady()) return nullptr;
  ParsedToTorchOptions parsed;
  if (!parseToTorchOptions(names, args + nargs, kDenseOnly, &parsed)) return nullptr;
  DLManagedTensorVersioned* managed = consume(args[0]);
  if (managed == nullptr) return nullptr;
  PyObject* result = nullptr;
  const tb_status status = tb_py_dlpack_to_torch(managed, &parsed.options, &result);
  return status == TB_OK ? result : raiseStatus(status);
}

PyObject* dlpackExchangeApi(PyObject*, PyObject*) {
#if DLPACK_MAJOR_VERSION > 1 || DLPACK_MINOR_VERSION >= 2
  static DLPackExchangeAPI api{};
  api.header.version.major = DLPACK_MAJOR_VERSION;
  api.header.version.minor = DLPACK_MINOR_VERSION;
  api.header.prev_api = nullptr;
  api.managed_tensor_allocator = allocate;
  api.managed_tensor_from_py_object_no_sync = fromPyObject;
  api.managed_tensor_to_py_object_no_sync = toPyObject;
  // A borrowed DLTensor cannot say READ_ONLY, so it is not offered.
  api.dltensor_from_py_object_no_sync = nullptr;
  api.current_work_stream = currentWorkStream;
  return PyCapsule_New(&api, "dlpack_exchange_api", nullptr);
#else
  Py_RETURN_NONE;
#endif
}

PyObject* capsuleIsReadOnly(PyObject*, PyObject* capsule) {
  if (PyCapsule_IsValid(capsule, kVersioned) == 0) Py_RETURN_FALSE;
  auto* managed = static_cast<DLManagedTensorVersioned*>(PyCapsule_GetPointer(capsule, kVersioned));
  return PyBool_FromLong(managed->version.major == DLPACK_MAJOR_VERSION &&
                         (managed->flags & DLPACK_FLAG_BITMASK_READ_ONLY) != 0);
}

}  // namespace tensor_bridge::python
