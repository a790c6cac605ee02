/* The C ABI of libtensor_bridge.so: plain structs, fixed-width integers, opaque handles.
 * Two families: `tb_*` works on TF_Tensor* in any process, `tb_py_*` on Python objects and is
 * called with the GIL held (ctypes.PyDLL). Not for: C++ types; those are in the other headers.
 *
 * Errors. Every function that can fail returns a tb_status; TB_OK is zero. After a failure
 * tb_last_error() gives the message of this thread's latest failure: what was expected, what
 * came, what to do. On failure out-parameters are untouched and inputs stay with the caller; an
 * input is consumed only by a call that says so, and only when it succeeds.
 * Null. Options of a conversion may be null. Another null where nothing says that it may be is
 * TB_INVALID_HANDLE; a function without a status gives 0 or NULL, and leaves a message. What
 * cannot be told, and is undefined: a handle or an object that is none, or was released or
 * consumed; memory smaller than its size says.
 * Threads. Every function may be called from any thread. Handles may be released on any thread.
 */
#ifndef TENSOR_BRIDGE_C_API_H_
#define TENSOR_BRIDGE_C_API_H_

#include <stddef.h>
#include <stdint.h>

#include "tensor_bridge/export.h"

#ifdef __cplusplus
extern "C" {
#endif

struct TF_Tensor;                /* TensorFlow's tensor, tensorflow/c/tf_tensor.h */
struct TFE_TensorHandle;         /* TensorFlow's eager handle, tensorflow/c/eager/c_api.h */
struct DLManagedTensorVersioned; /* DLPack 1.x, dlpack/dlpack.h */
struct _object;                  /* CPython's PyObject */

/* ---- status ------------------------------------------------------------------------------- */

typedef int32_t tb_status;
enum {
  TB_OK = 0,
  TB_INVALID_OPTION = 1,     /* an option, or a combination of options, that means nothing */
  TB_UNSUPPORTED_DTYPE = 2,  /* the other side has no such dtype */
  TB_UNSUPPORTED_TYPE = 3,   /* not a tensor of the framework asked for */
  TB_SYMBOLIC_TENSOR = 4,    /* a graph tensor: it has no value */
  TB_COPY_REQUIRED = 5,      /* copy = TB_COPY_NEVER, and sharing is not possible */
  TB_UNSUPPORTED_DEVICE = 6, /* remote, packed, or a device that the other side lacks */
  TB_INVALID_HANDLE = 7,     /* null, deleted, or inconsistent */
  TB_TENSORFLOW = 8,         /* TensorFlow reported an error, e.g. that of an asynchronous op */
  TB_TORCH = 9,              /* torch reported an error */
  TB_FRAMEWORK = 10,         /* a framework is missing, not loaded, or of an unsupported version */
  TB_OUT_OF_MEMORY = 11,
  TB_INTERNAL = 12,
  TB_VALUE_OUT_OF_RANGE = 13, /* an element that the dtype cannot hold, an offset out of range */
  TB_CHECKPOINT = 14          /* a file of a checkpoint that is damaged or of another format */
};

/* The message of this thread's latest failure; "" before the first. Valid until this thread's
 * next failing call. */
TB_EXPORT const char* tb_last_error(void);

/* "INVALID_OPTION" and so on; "UNKNOWN" for a number that is no status. Static memory. */
TB_EXPORT const char* tb_status_name(tb_status status);

/* "major.minor.patch" of this library. Static memory. */
TB_EXPORT const char* tb_version(void);

/* ---- options ------------------------------------------------------------------------------ */

enum { TB_COPY_AUTO = -1, TB_COPY_NEVER = 0, TB_COPY_ALWAYS = 1 };
enum { TB_ON_WRITE_COPY = 0, TB_ON_WRITE_RAISE = 1, TB_ON_WRITE_ALIAS = 2 };

/* Same fields and defaults as tensor_bridge::ConvertOptions and the Python keywords. */
typedef struct tb_convert_options {
  uint32_t struct_size; /* sizeof(tb_convert_options) of the caller */
  int32_t copy;         /* TB_COPY_AUTO: share if possible, else copy */
  int32_t on_write;     /* TB_ON_WRITE_COPY: a first write moves torch if TensorFlow holds it */
  int32_t raw;          /* 0; 1 gives the stored bytes of a dtype that torch lacks */
  int32_t has_device;   /* 0: stay where TensorFlow has the tensor */
  int32_t device_type;  /* DLDeviceType: 1 CPU, 2 CUDA, ... */
  int32_t device_id;    /* -1: the current device of that type */
  int32_t has_axis;     /* 0: per-tensor quantization */
  int64_t axis;         /* the channel axis of per-channel quantization */
  int64_t num_scales;   /* 0: no quantization parameters */
  const double* scale;  /* num_scales values */
  const int64_t* zero_point; /* num_scales values */
} tb_convert_options;

/* Fills `options` with the defaults. NULL is ignored. */
TB_EXPORT void tb_convert_options_init(tb_convert_options* options);

enum { TB_GRAD_DETACH = 0, TB_GRAD_RAISE = 1 };

/* torch to TensorFlow. Same fields and defaults as tensor_bridge::ConvertBackOptions. */
typedef struct tb_convert_back_options {
  uint32_t struct_size;
  int32_t copy;     /* TB_COPY_AUTO */
  int32_t grad;     /* TB_GRAD_DETACH: a tensor that requires grad is shared, values only */
  int32_t tf_dtype; /* TF_DataType of a dtype that torch lacks; 0: the twin of torch's */
} tb_convert_back_options;

/* Fills `options` with the defaults. NULL is ignored. */
TB_EXPORT void tb_convert_back_options_init(tb_convert_back_options* options);

/* ---- frameworks --------------------------------------------------------------------------- */

/* Tells the bridge which loaded TensorFlow to use: a handle from dlopen on which TF_* (and, for
 * eager tensors, TFE_*) are found; another pointer is undefined. Needed only where none of
 * TensorFlow's own libraries is loaded under its SONAME, and before the first conversion:
 * TB_FRAMEWORK while tensors of another TensorFlow are alive. The handle must stay open. */
TB_EXPORT tb_status tb_use_tensorflow(void* dlopen_handle);

/* Loads the adapter for the torch release that this process runs, e.g. (2, 13). torch must be
 * loaded already. Idempotent; asking for another release afterwards is TB_FRAMEWORK. */
TB_EXPORT tb_status tb_use_torch(int32_t major, int32_t minor);

/* ---- neutral tensors ---------------------------------------------------------------------- */

/* A read-only view of a tensor's memory that keeps the memory alive. */
typedef struct tb_tensor tb_tensor;
enum { TB_FLAG_READ_ONLY = 1, TB_FLAG_COPIED = 2 };

/* Views `tensor` without copying. The caller keeps `tensor` and may delete it at once: the view
 * holds a reference of its own. */
TB_EXPORT tb_status tb_tensor_from_tf(struct TF_Tensor* tensor, tb_tensor** out);
TB_EXPORT const void* tb_tensor_data(const tb_tensor* tensor);
TB_EXPORT int32_t tb_tensor_ndim(const tb_tensor* tensor);
TB_EXPORT const int64_t* tb_tensor_shape(const tb_tensor* tensor);
/* Strides in elements. */
TB_EXPORT const int64_t* tb_tensor_strides(const tb_tensor* tensor);
/* TensorFlow's name of the dtype ("float32"), static memory. */
TB_EXPORT const char* tb_tensor_dtype(const tb_tensor* tensor);
TB_EXPORT int64_t tb_tensor_nbytes(const tb_tensor* tensor);
TB_EXPORT uint64_t tb_tensor_flags(const tb_tensor* tensor);
/* Either place may be NULL. */
TB_EXPORT void tb_tensor_device(const tb_tensor* tensor, int32_t* device_type, int32_t* device_id);
/* A DLPack 1.x structure with READ_ONLY set, which the caller releases through its deleter. It
 * holds a reference of its own; `tensor` stays with the caller. TB_UNSUPPORTED_DTYPE for a dtype
 * that DLPack lacks. */
TB_EXPORT tb_status tb_tensor_to_dlpack(const tb_tensor* tensor,
                                        struct DLManagedTensorVersioned** out);
/* Ends the view. NULL is ignored. */
TB_EXPORT void tb_tensor_release(tb_tensor* tensor);

/* ---- torch tensors ------------------------------------------------------------------------ */

/* A torch tensor: the at::TensorImpl* itself, with one reference that the holder owns. */
typedef struct tb_torch_tensor tb_torch_tensor;

/* Converts `tensor`; `options` may be NULL. tb_use_torch comes first. The caller keeps `tensor`
 * and may delete it at once; the result keeps the buffer alive. */
TB_EXPORT tb_status tb_tf_to_torch(struct TF_Tensor* tensor, const tb_convert_options* options,
                                   tb_torch_tensor** out);
/* The same, but on success the bridge owns `tensor` and deletes it; the caller must not use it
 * any more. Saves the second reference. On failure the caller still owns it. */
TB_EXPORT tb_status tb_tf_to_torch_consume(struct TF_Tensor* tensor,
                                           const tb_convert_options* options,
                                           tb_torch_tensor** out);
/* A view of the torch tensor's memory that materialises nothing; it keeps the tensor alive. */
TB_EXPORT tb_status tb_torch_tensor_view(tb_torch_tensor* tensor, tb_tensor** out);
/* The pointer to write through: a protected tensor first moves onto torch's own memory. */
TB_EXPORT tb_status tb_torch_tensor_mutable_data(tb_torch_tensor* tensor, void** out);
/* Gives back the memory that the tensor's storage left at its last move, and keeps for those who
 * still read it: 1 in `out` if there was some, else 0. The caller knows that no operation runs any
 * more that began before the write, and that no pointer and no view taken before it is used. */
TB_EXPORT tb_status tb_torch_tensor_release_previous(tb_torch_tensor* tensor, int32_t* out);
/* Gives the reference back. NULL is ignored. */
TB_EXPORT void tb_torch_tensor_release(tb_torch_tensor* tensor);

/* A TF_Tensor with the values of `tensor`, which stays with the caller; `options` may be NULL. The
 * caller deletes the result and must not write to it: it may share torch's memory. The next write
 * on torch's side moves torch onto memory of its own, so TensorFlow's values never change. */
TB_EXPORT tb_status tb_torch_to_tf(tb_torch_tensor* tensor, const tb_convert_back_options* options,
                                   struct TF_Tensor** out);

/* ---- explain ------------------------------------------------------------------------------ */

enum { TB_ACTION_SHARED = 0, TB_ACTION_COPIED = 1, TB_ACTION_REFUSED = 2 };

/* What a conversion would do. The caller sets struct_size to sizeof(tb_explanation) before the
 * call; another size is TB_INVALID_OPTION. Strings are static, except `reason` and `device`, which
 * live in the struct. */
typedef struct tb_explanation {
  uint32_t struct_size;
  int32_t action;   /* TB_ACTION_* */
  tb_status status; /* what the conversion would return */
  int32_t on_write; /* TB_ON_WRITE_*, or -1 where it does not apply (a copy) */
  int32_t ndim;
  int64_t nbytes;          /* bytes of the result */
  const char* tf_dtype;    /* "" where unknown */
  const char* torch_dtype; /* "torch.float32"; "" where refused */
  char device[32];         /* torch's name: "cpu", "cuda:0" */
  char reason[1024];
} tb_explanation;

/* TB_OK also where the conversion would be refused, were it for a null `tensor`: `out` says so. */
TB_EXPORT tb_status tb_tf_explain(struct TF_Tensor* tensor, const tb_convert_options* options,
                                  tb_explanation* out);

/* ---- Python: call through ctypes.PyDLL, GIL held ------------------------------------------ */

/* The addresses of PyEval_SaveThread and PyEval_RestoreThread of this interpreter: with them the
 * bridge releases the GIL while it waits for a pending tensor and for large copies. If either is
 * NULL it never does. */
TB_EXPORT void tb_py_set_gil_functions(void* (*save)(void), void (*restore)(void*));

/* tb_use_torch for Python: a torch newer than those known, one that is not `proven` (0: a
 * pre-release), and one with which its adapter does not load or fails the self-test, is used
 * through an adapter of the extension module, which copies. Tensors of the neutral family are then
 * handles that only this library understands, and tb_use_torch is TB_FRAMEWORK. */
TB_EXPORT tb_status tb_py_use_torch(int32_t major, int32_t minor, int32_t proven);
/* Why every conversion copies, or NULL where memory is shared. */
TB_EXPORT const char* tb_py_copying_reason(void);

/* 1 if `object` is exactly TensorFlow's EagerTensor, else 0 (also when TensorFlow is not loaded).
 */
TB_EXPORT int32_t tb_py_is_eager_tensor(struct _object* object);
/* 1 if `tensor` is an EagerTensor with a live handle, else 0. */
TB_EXPORT int32_t tb_py_has_handle(struct _object* tensor);
/* A new reference to a torch.Tensor from an EagerTensor, which the caller keeps. */
TB_EXPORT tb_status tb_py_tf_to_torch(struct _object* tensor, const tb_convert_options* options,
                                      struct _object** out);
/* As tb_tf_explain. The shape is written to `shape` (room for `capacity` dimensions), which may be
 * NULL where `capacity` is 0. */
TB_EXPORT tb_status tb_py_tf_explain(struct _object* tensor, const tb_convert_options* options,
                                     tb_explanation* out, int64_t* shape, int32_t capacity);
/* The current value of a resource variable: `handle` is its EagerTensor of dtype resource,
 * `context` the TFE_Context*, `tf_dtype` TensorFlow's number of its dtype. */
TB_EXPORT tb_status tb_py_variable_to_torch(struct _object* handle, void* context, int32_t tf_dtype,
                                            const tb_convert_options* options,
                                            struct _object** out);
TB_EXPORT tb_status tb_py_variable_explain(struct _object* handle, void* context, int32_t tf_dtype,
                                           const tb_convert_options* options, tb_explanation* out,
                                           int64_t* shape, int32_t capacity);
/* A new reference to an EagerTensor from `tensor`, an object whose type the caller has checked to
 * be torch.Tensor or a subclass of it. TensorFlow's Python context must be initialised. */
TB_EXPORT tb_status tb_py_torch_to_tf(struct _object* tensor,
                                      const tb_convert_back_options* options, struct _object** out);
/* For the way back: action, status, on_write (-1), ndim, nbytes, dtypes, reason. */
TB_EXPORT tb_status tb_py_torch_explain(struct _object* tensor,
                                        const tb_convert_back_options* options, tb_explanation* out,
                                        int64_t* shape, int32_t capacity);
/* As tb_torch_tensor_release_previous, of a torch.Tensor. */
TB_EXPORT tb_status tb_py_torch_release_previous(struct _object* tensor, int32_t* out);
/* ---- DLPack: Python family ----------------------------------------------------------------- */

/* A DLPack 1.x structure of an EagerTensor, which the caller releases through its deleter. `copy`:
 * TB_COPY_AUTO or NEVER shares, with READ_ONLY set; ALWAYS copies host memory, with IS_COPIED set.
 */
TB_EXPORT tb_status tb_py_tf_to_dlpack(struct _object* tensor, int32_t copy,
                                       struct DLManagedTensorVersioned** out);
/* A structure over new host memory, not filled; `prototype` is a DLTensor*, of which dtype, ndim,
 * shape and device count. 0, or -1 after `set_error`, which may be NULL, was called with an
 * exception's name. */
TB_EXPORT int32_t tb_dlpack_allocate(void* prototype, struct DLManagedTensorVersioned** out,
                                     void* error_context,
                                     void (*set_error)(void* error_context, const char* kind,
                                                       const char* message));
/* The structure around one of DLPack's old kind (DLManagedTensor), which is taken over. */
TB_EXPORT tb_status tb_dlpack_from_unversioned(void* managed,
                                               struct DLManagedTensorVersioned** out);
/* A new reference to a torch.Tensor over any producer's memory; `managed` is taken over in any
 * case, also on failure. READ_ONLY memory is protected as on_write says, and so is that of the old
 * kind, which cannot say; writable memory is shared as DLPack means it, both sides see writes. */
TB_EXPORT tb_status tb_py_dlpack_to_torch(struct DLManagedTensorVersioned* managed,
                                          const tb_convert_options* options, struct _object** out);

/* ---- strings ------------------------------------------------------------------------------ */

/* Byte strings with a shape, row-major: a view of a TensorFlow tensor of dtype string, or of one
 * block of bytes with offsets. Strings are not terminated and may hold any byte. */
typedef struct tb_strings tb_strings;

typedef struct tb_string {
  const char* data;
  int64_t size;
} tb_string;

/* Views `tensor` without copying. The caller keeps it, and must not delete it before the view is
 * released. */
TB_EXPORT tb_status tb_strings_from_tf(struct TF_Tensor* tensor, tb_strings** out);
/* Views a block of `nbytes` bytes in which string i goes from offsets[i] to offsets[i + 1], as in
 * Arrow's large_binary: there is one offset more than `shape` has elements. The memory stays the
 * caller's and must outlive the view. `shape` may be NULL where `ndim` is 0, `bytes` where `nbytes`
 * is. Offsets that descend or leave the block are
 * TB_VALUE_OUT_OF_RANGE where they are used, never followed. */
TB_EXPORT tb_status tb_strings_from_memory(const char* bytes, int64_t nbytes,
                                           const int64_t* offsets, int64_t num_offsets,
                                           const int64_t* shape, int32_t ndim, tb_strings** out);
/* The same over two torch tensors of one dimension, uint8 and int64, which the view keeps alive. It
 * works on a copy of memory that is strided or not on the host. */
TB_EXPORT tb_status tb_strings_from_torch(tb_torch_tensor* bytes, tb_torch_tensor* offsets,
                                          const int64_t* shape, int32_t ndim, tb_strings** out);
TB_EXPORT int32_t tb_strings_ndim(const tb_strings* strings);
TB_EXPORT const int64_t* tb_strings_shape(const tb_strings* strings);
TB_EXPORT int64_t tb_strings_count(const tb_strings* strings);
/* Where strings `first` to `first + count` lie; valid while the view is. `out` has room for `count`
 * of them, and may be NULL for none. */
TB_EXPORT tb_status tb_strings_get(const tb_strings* strings, int64_t first, int64_t count,
                                   tb_string* out);
/* Bytes of all strings together. */
TB_EXPORT tb_status tb_strings_nbytes(const tb_strings* strings, int64_t* out);
/* Writes the strings one behind the other into `bytes`, whose size is that of tb_strings_nbytes(),
 * and their offsets, one more than there are strings, into `offsets` unless it is NULL. `bytes` may
 * be NULL where `nbytes` is 0. */
TB_EXPORT tb_status tb_strings_gather(const tb_strings* strings, int64_t* offsets, char* bytes,
                                      int64_t nbytes);
/* The block and the offsets as two torch tensors (uint8, int64) of torch's own memory; `options`
 * may be NULL. device_type moves both, TB_COPY_NEVER is TB_COPY_REQUIRED, on_write does not apply.
 * tb_use_torch comes first. */
TB_EXPORT tb_status tb_strings_to_torch(const tb_strings* strings,
                                        const tb_convert_options* options, tb_torch_tensor** bytes,
                                        tb_torch_tensor** offsets);
/* A TF_Tensor of dtype string with memory of its own, which the caller deletes; `options` may be
 * NULL. */
TB_EXPORT tb_status tb_strings_to_tf(const tb_strings* strings,
                                     const tb_convert_back_options* options,
                                     struct TF_Tensor** out);
/* What tb_strings_to_torch would do. */
TB_EXPORT tb_status tb_strings_explain(const tb_strings* strings, const tb_convert_options* options,
                                       tb_explanation* out);
/* What tb_strings_to_tf would do. */
TB_EXPORT tb_status tb_strings_explain_back(const tb_strings* strings,
                                            const tb_convert_back_options* options,
                                            tb_explanation* out);
/* Ends the view. NULL is ignored. */
TB_EXPORT void tb_strings_release(tb_strings* strings);

/* The Python family of the same: an EagerTensor, of which the view keeps the buffer; and objects
 * whose type the caller has checked to be torch.Tensor or a subclass of it. Results are new
 * references. */
TB_EXPORT tb_status tb_py_strings_from_tf(struct _object* tensor, tb_strings** out);
TB_EXPORT tb_status tb_py_strings_from_torch(struct _object* bytes, struct _object* offsets,
                                             const int64_t* shape, int32_t ndim, tb_strings** out);
TB_EXPORT tb_status tb_py_strings_to_torch(const tb_strings* strings,
                                           const tb_convert_options* options,
                                           struct _object** bytes, struct _object** offsets);
/* TensorFlow's Python context must be initialised. */
TB_EXPORT tb_status tb_py_strings_to_tf(const tb_strings* strings,
                                        const tb_convert_back_options* options,
                                        struct _object** out);

/* ---- dtype table -------------------------------------------------------------------------- */

/* The caller sets struct_size to sizeof(tb_dtype_row) before the call. */
typedef struct tb_dtype_row {
  uint32_t struct_size;
  int32_t tf_enum;      /* 0: TensorFlow has no such dtype */
  int32_t torch_scalar; /* torch's ScalarType number; -1: torch has no such dtype */
  int32_t itemsize;     /* bytes an element in TensorFlow's memory; 0: no fixed size */
  const char* name;
  const char* torch_name; /* "torch.float32" or "" */
  const char* kind;       /* "shared", "viewed", "converted", "quantized", "refused" */
  const char* nearest;    /* torch dtype of the default result where torch has no twin, or "" */
  const char* reason;
} tb_dtype_row;

/* Row `index` of the dtype table; TB_INVALID_OPTION past the end. */
TB_EXPORT tb_status tb_dtype_row_get(int32_t index, tb_dtype_row* out);

/* ---- bookkeeping -------------------------------------------------------------------------- */

/* Buffers that the bridge keeps alive right now, in both directions, summed over all threads. */
TB_EXPORT int64_t tb_live_owners(void);

#ifdef __cplusplus
}
#endif
#endif /* TENSOR_BRIDGE_C_API_H_ */
