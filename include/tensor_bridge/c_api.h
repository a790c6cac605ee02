/* The C interface of libtensor_bridge.so: plain structs, fixed-width integers, opaque handles.
 * There are two families. `tb_*` takes TF_Tensor* and works in any process. `tb_py_*` takes Python
 * objects and is called with the GIL held (ctypes.PyDLL). Not for: C++ types (the other headers).
 *
 * Errors. Every function that can fail returns a tb_status; TB_OK is zero. tb_last_error() returns
 * the message of this thread's latest failure: what was expected, what the call got, what to do.
 * After a failure out-parameters are unchanged, and the caller still owns its inputs. A call takes
 * an input over only if its comment says so, and only if it succeeds.
 *
 * Null. Options of a conversion may be NULL, and so may parameters whose comment says so. Any other
 * null fails with TB_INVALID_HANDLE; a function without a status then returns 0 or NULL, and sets
 * the message. These cannot be detected, and their behaviour is undefined: a pointer that is not a
 * handle or object of the stated type, or that was released or consumed; memory smaller than its
 * size.
 *
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
  TB_INVALID_OPTION = 1,     /* an invalid option, or an invalid combination of options */
  TB_UNSUPPORTED_DTYPE = 2,  /* the other framework has no such dtype */
  TB_UNSUPPORTED_TYPE = 3,   /* not a tensor of the expected framework */
  TB_SYMBOLIC_TENSOR = 4,    /* a graph tensor: it has no value */
  TB_COPY_REQUIRED = 5,      /* copy = TB_COPY_NEVER, and sharing is not possible */
  TB_UNSUPPORTED_DEVICE = 6, /* remote, packed, or a device that the other framework lacks */
  TB_INVALID_HANDLE = 7,     /* null, deleted, or inconsistent */
  TB_TENSORFLOW = 8,         /* TensorFlow reported an error, e.g. that of an asynchronous op */
  TB_TORCH = 9,              /* torch reported an error */
  TB_FRAMEWORK = 10,         /* a framework is missing, not loaded, or of an unsupported version */
  TB_OUT_OF_MEMORY = 11,
  TB_INTERNAL = 12,
  TB_VALUE_OUT_OF_RANGE = 13, /* an element that the dtype cannot hold, an offset out of range */
  TB_CHECKPOINT = 14,         /* a file of a checkpoint is damaged or of another format */
  TB_UNSUPPORTED_FILE = 15    /* the same, of a kind that others can read */
};

/* Returns the message of this thread's latest failure; "" before the first. Valid until this
 * thread's next failing call. */
TB_EXPORT const char* tb_last_error(void);

/* Returns "INVALID_OPTION" and so on; "UNKNOWN" for a number that is not a status. Static memory.
 */
TB_EXPORT const char* tb_status_name(tb_status status);

/* Returns "major.minor.patch" of this library. Static memory. */
TB_EXPORT const char* tb_version(void);

/* ---- options ------------------------------------------------------------------------------ */

enum { TB_COPY_AUTO = -1, TB_COPY_NEVER = 0, TB_COPY_ALWAYS = 1 };
enum { TB_ON_WRITE_COPY = 0, TB_ON_WRITE_RAISE = 1, TB_ON_WRITE_ALIAS = 2 };

/* Same fields and defaults as tensor_bridge::ConvertOptions and the Python keywords. */
typedef struct tb_convert_options {
  uint32_t struct_size; /* sizeof(tb_convert_options) of the caller */
  int32_t copy;         /* TB_COPY_AUTO: share if possible, else copy */
  int32_t on_write;     /* TB_ON_WRITE_COPY: a first write moves torch if TensorFlow holds it */
  int32_t raw;          /* 0; 1: the stored bytes of a dtype that torch lacks */
  int32_t has_device;   /* 0: the result stays on TensorFlow's device */
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
  int32_t grad;     /* TB_GRAD_DETACH: of a tensor that requires grad, the values are converted */
  int32_t tf_dtype; /* TF_DataType of a dtype that torch lacks; 0: that of the same name */
} tb_convert_back_options;

/* Fills `options` with the defaults. NULL is ignored. */
TB_EXPORT void tb_convert_back_options_init(tb_convert_back_options* options);

/* ---- frameworks --------------------------------------------------------------------------- */

/* Uses the TensorFlow of `dlopen_handle`, a handle from dlopen that exports TF_* (and TFE_* for
 * eager tensors) and must stay open; for any other pointer the behaviour is undefined. Needed only
 * if none of TensorFlow's own libraries is loaded under its SONAME; call it before the first
 * conversion. TB_FRAMEWORK while tensors of another TensorFlow are alive. */
TB_EXPORT tb_status tb_use_tensorflow(void* dlopen_handle);

/* Loads the adapter for the torch release of this process, e.g. (2, 13). torch must be loaded. You
 * may call it again with the same release; another release fails with TB_FRAMEWORK. */
TB_EXPORT tb_status tb_use_torch(int32_t major, int32_t minor);

/* ---- neutral tensors ---------------------------------------------------------------------- */

/* A read-only view of a tensor's memory that keeps the memory alive. */
typedef struct tb_tensor tb_tensor;
enum { TB_FLAG_READ_ONLY = 1, TB_FLAG_COPIED = 2 };

/* Views `tensor` without a copy. The caller keeps `tensor` and may delete it at once: the view
 * holds its own reference. The caller releases the view with tb_tensor_release.
 * TB_UNSUPPORTED_DTYPE for strings, resources and variants. */
TB_EXPORT tb_status tb_tensor_from_tf(struct TF_Tensor* tensor, tb_tensor** out);
/* Address of the first element, on the tensor's device; may be NULL for an empty tensor. This and
 * all other pointers are valid while the view exists. */
TB_EXPORT const void* tb_tensor_data(const tb_tensor* tensor);
TB_EXPORT int32_t tb_tensor_ndim(const tb_tensor* tensor);
TB_EXPORT const int64_t* tb_tensor_shape(const tb_tensor* tensor);
/* tb_tensor_ndim() strides, in elements. */
TB_EXPORT const int64_t* tb_tensor_strides(const tb_tensor* tensor);
/* TensorFlow's name of the dtype ("float32"), static memory. */
TB_EXPORT const char* tb_tensor_dtype(const tb_tensor* tensor);
TB_EXPORT int64_t tb_tensor_nbytes(const tb_tensor* tensor);
TB_EXPORT uint64_t tb_tensor_flags(const tb_tensor* tensor);
/* DLPack's device type, and the number of the device as torch counts. Either pointer may be NULL.
 */
TB_EXPORT void tb_tensor_device(const tb_tensor* tensor, int32_t* device_type, int32_t* device_id);
/* Makes a DLPack 1.x structure with READ_ONLY set and its own reference. The caller keeps `tensor`,
 * and releases the structure with its deleter. TB_UNSUPPORTED_DTYPE for a dtype that DLPack lacks.
 */
TB_EXPORT tb_status tb_tensor_to_dlpack(const tb_tensor* tensor,
                                        struct DLManagedTensorVersioned** out);
/* Ends the view. NULL is ignored. */
TB_EXPORT void tb_tensor_release(tb_tensor* tensor);

/* ---- torch tensors ------------------------------------------------------------------------ */

/* A torch tensor: the at::TensorImpl* itself, with one reference that the holder owns. */
typedef struct tb_torch_tensor tb_torch_tensor;

/* Converts `tensor` to a torch tensor of the same shape, shared or copied as `options` (may be
 * NULL) and the dtype table say. Call tb_use_torch first. The caller keeps `tensor` and may delete
 * it at once, because the result keeps the buffer alive. The caller releases the result with
 * tb_torch_tensor_release. TB_UNSUPPORTED_DTYPE, TB_COPY_REQUIRED, TB_INVALID_OPTION,
 * TB_UNSUPPORTED_DEVICE, TB_OUT_OF_MEMORY. */
TB_EXPORT tb_status tb_tf_to_torch(struct TF_Tensor* tensor, const tb_convert_options* options,
                                   tb_torch_tensor** out);
/* As above, but takes `tensor` over on success, which saves a reference: the caller must not use it
 * any more. On failure the caller still owns it. */
TB_EXPORT tb_status tb_tf_to_torch_consume(struct TF_Tensor* tensor,
                                           const tb_convert_options* options,
                                           tb_torch_tensor** out);
/* Views the torch tensor's memory for reading, which does not move it. The view keeps the tensor
 * alive; the caller releases it with tb_tensor_release. */
TB_EXPORT tb_status tb_torch_tensor_view(tb_torch_tensor* tensor, tb_tensor** out);
/* Returns the pointer to write through. A protected tensor is first moved to its own memory. */
TB_EXPORT tb_status tb_torch_tensor_mutable_data(tb_torch_tensor* tensor, void** out);
/* Releases the memory that the tensor's storage has kept since its last move. `out` is 1 if there
 * was any, else 0. The caller guarantees that no operation that began before the write still runs,
 * and that no pointer and no view from before the write is used any more. */
TB_EXPORT tb_status tb_torch_tensor_release_previous(tb_torch_tensor* tensor, int32_t* out);
/* Releases the reference. NULL is ignored. */
TB_EXPORT void tb_torch_tensor_release(tb_torch_tensor* tensor);

/* Converts `tensor` to a TF_Tensor with the same shape and values; `options` may be NULL. It shares
 * the memory if that is on the host, row-major and aligned to 64 bytes; else it is a copy. The
 * caller keeps `tensor`. The caller deletes the result, and must not write to it, because it may
 * share torch's memory. The next write in torch moves the torch tensor, so TensorFlow's values
 * never change. TB_UNSUPPORTED_TYPE, TB_UNSUPPORTED_DTYPE, TB_UNSUPPORTED_DEVICE, TB_COPY_REQUIRED,
 * TB_VALUE_OUT_OF_RANGE, TB_INVALID_OPTION, TB_OUT_OF_MEMORY. */
TB_EXPORT tb_status tb_torch_to_tf(tb_torch_tensor* tensor, const tb_convert_back_options* options,
                                   struct TF_Tensor** out);

/* ---- explain ------------------------------------------------------------------------------ */

enum { TB_ACTION_SHARED = 0, TB_ACTION_COPIED = 1, TB_ACTION_REFUSED = 2 };

/* What a conversion would do. The caller sets struct_size to sizeof(tb_explanation) before the
 * call; another size fails with TB_INVALID_OPTION. Strings are static, except `reason` and
 * `device`, which are in the struct. */
typedef struct tb_explanation {
  uint32_t struct_size;
  int32_t action;   /* TB_ACTION_* */
  tb_status status; /* what the conversion would return */
  int32_t on_write; /* TB_ON_WRITE_*, or -1 if it does not apply (a copy) */
  int32_t ndim;
  int64_t nbytes;          /* bytes of the result */
  const char* tf_dtype;    /* "" if unknown */
  const char* torch_dtype; /* "torch.float32"; "" if refused */
  char device[32];         /* torch's name: "cpu", "cuda:0" */
  char reason[1024];
} tb_explanation;

/* Explains tb_tf_to_torch. TB_OK also if the conversion would be refused, even for a null `tensor`;
 * `out` then has the status and the reason. */
TB_EXPORT tb_status tb_tf_explain(struct TF_Tensor* tensor, const tb_convert_options* options,
                                  tb_explanation* out);

/* ---- Python: call through ctypes.PyDLL, GIL held ------------------------------------------ */

/* Sets PyEval_SaveThread and PyEval_RestoreThread of this interpreter. With them the library
 * releases the GIL while it waits for a pending tensor and during large copies. If either is NULL,
 * it never releases the GIL. */
TB_EXPORT void tb_py_set_gil_functions(void* (*save)(void), void (*restore)(void*));

/* tb_use_torch for Python. The adapter of the extension module, which copies, is used if torch is
 * newer than the known releases, if it is not `proven` (0: a pre-release), or if the adapter does
 * not load or fails its self-test. Then a tb_torch_tensor is a handle that only this library
 * understands, and tb_use_torch fails with TB_FRAMEWORK. */
TB_EXPORT tb_status tb_py_use_torch(int32_t major, int32_t minor, int32_t proven);
/* Returns why every conversion copies, or NULL if memory is shared. Static memory. */
TB_EXPORT const char* tb_py_copying_reason(void);

/* Returns 1 if `object` is exactly TensorFlow's EagerTensor, else 0 (also if TensorFlow is not
 * loaded). */
TB_EXPORT int32_t tb_py_is_eager_tensor(struct _object* object);
/* Returns 1 if `tensor` is an EagerTensor with a live handle, else 0. */
TB_EXPORT int32_t tb_py_has_handle(struct _object* tensor);
/* As tb_tf_to_torch, from an EagerTensor to a torch.Tensor, a new reference. The caller keeps
 * `tensor`. */
TB_EXPORT tb_status tb_py_tf_to_torch(struct _object* tensor, const tb_convert_options* options,
                                      struct _object** out);
/* As tb_tf_explain. Writes the shape to `shape`, which has room for `capacity` dimensions and may
 * be NULL if `capacity` is 0. */
TB_EXPORT tb_status tb_py_tf_explain(struct _object* tensor, const tb_convert_options* options,
                                     tb_explanation* out, int64_t* shape, int32_t capacity);
/* Converts the current value of a resource variable to a torch.Tensor, a new reference. `handle` is
 * the variable's EagerTensor of dtype resource, `context` the TFE_Context*, `tf_dtype` TensorFlow's
 * number of its dtype. */
TB_EXPORT tb_status tb_py_variable_to_torch(struct _object* handle, void* context, int32_t tf_dtype,
                                            const tb_convert_options* options,
                                            struct _object** out);
TB_EXPORT tb_status tb_py_variable_explain(struct _object* handle, void* context, int32_t tf_dtype,
                                           const tb_convert_options* options, tb_explanation* out,
                                           int64_t* shape, int32_t capacity);
/* As tb_torch_to_tf, from a torch.Tensor to an EagerTensor, a new reference. The caller has checked
 * that the type of `tensor` is torch.Tensor or a subclass. TensorFlow's Python context must be
 * initialised. */
TB_EXPORT tb_status tb_py_torch_to_tf(struct _object* tensor,
                                      const tb_convert_back_options* options, struct _object** out);
/* Explains tb_py_torch_to_tf: action, status, on_write (-1), ndim, nbytes, dtypes, reason. */
TB_EXPORT tb_status tb_py_torch_explain(struct _object* tensor,
                                        const tb_convert_back_options* options, tb_explanation* out,
                                        int64_t* shape, int32_t capacity);
/* As tb_torch_tensor_release_previous, for a torch.Tensor. */
TB_EXPORT tb_status tb_py_torch_release_previous(struct _object* tensor, int32_t* out);

/* ---- DLPack: Python family ----------------------------------------------------------------- */

/* Makes a DLPack 1.x structure of an EagerTensor, which the caller releases with its deleter.
 * TB_COPY_AUTO and TB_COPY_NEVER share, with READ_ONLY set; TB_COPY_ALWAYS copies host memory, with
 * IS_COPIED set. */
TB_EXPORT tb_status tb_py_tf_to_dlpack(struct _object* tensor, int32_t copy,
                                       struct DLManagedTensorVersioned** out);
/* Makes a structure over new host memory, which is not initialised. `prototype` is a DLTensor*; its
 * dtype, ndim, shape and device are used. Returns 0, or -1 after it called `set_error`, which may
 * be NULL, with the name of an exception. */
TB_EXPORT int32_t tb_dlpack_allocate(void* prototype, struct DLManagedTensorVersioned** out,
                                     void* error_context,
                                     void (*set_error)(void* error_context, const char* kind,
                                                       const char* message));
/* Makes a DLPack 1.x structure from one of the old kind (`managed`, a DLManagedTensor*), which it
 * takes over on success. */
TB_EXPORT tb_status tb_dlpack_from_unversioned(void* managed,
                                               struct DLManagedTensorVersioned** out);
/* Makes a torch.Tensor, a new reference, over any producer's memory. Takes `managed` over in any
 * case, also on failure. Memory marked READ_ONLY, and memory of the old kind, which has no mark, is
 * protected as on_write says. Writable memory is shared as DLPack intends: both sides see writes.
 */
TB_EXPORT tb_status tb_py_dlpack_to_torch(struct DLManagedTensorVersioned* managed,
                                          const tb_convert_options* options, struct _object** out);

/* ---- strings ------------------------------------------------------------------------------ */

/* Byte strings with a shape, row-major: a view of a TensorFlow tensor of dtype string, or of one
 * block of bytes with offsets. Strings are not null-terminated and may contain any byte. */
typedef struct tb_strings tb_strings;

typedef struct tb_string {
  const char* data;
  int64_t size;
} tb_string;

/* Views `tensor`, of dtype string, without a copy. The caller keeps it, and must not delete it
 * before the view is released with tb_strings_release. */
TB_EXPORT tb_status tb_strings_from_tf(struct TF_Tensor* tensor, tb_strings** out);
/* Views a block of `nbytes` bytes in which string i is the bytes from offsets[i] to offsets[i + 1],
 * as in Arrow's large_binary: there is one more offset than `shape` has elements. The caller keeps
 * the memory, which must outlive the view. `shape` may be NULL if `ndim` is 0, `bytes` if `nbytes`
 * is 0. When strings are read, offsets that descend or leave the block fail with
 * TB_VALUE_OUT_OF_RANGE. */
TB_EXPORT tb_status tb_strings_from_memory(const char* bytes, int64_t nbytes,
                                           const int64_t* offsets, int64_t num_offsets,
                                           const int64_t* shape, int32_t ndim, tb_strings** out);
/* As above, over two torch tensors of one dimension, uint8 and int64, which the view keeps alive.
 * Memory that is strided or not on the host is copied. */
TB_EXPORT tb_status tb_strings_from_torch(tb_torch_tensor* bytes, tb_torch_tensor* offsets,
                                          const int64_t* shape, int32_t ndim, tb_strings** out);
/* The shape is valid while the view exists; tb_strings_count is the product of its sizes. */
TB_EXPORT int32_t tb_strings_ndim(const tb_strings* strings);
TB_EXPORT const int64_t* tb_strings_shape(const tb_strings* strings);
TB_EXPORT int64_t tb_strings_count(const tb_strings* strings);
/* Writes the places of strings `first` to `first + count` to `out`, which has room for `count` of
 * them and may be NULL if `count` is 0. They are valid while the view exists. */
TB_EXPORT tb_status tb_strings_get(const tb_strings* strings, int64_t first, int64_t count,
                                   tb_string* out);
/* Writes the number of bytes of all strings to `out`. */
TB_EXPORT tb_status tb_strings_nbytes(const tb_strings* strings, int64_t* out);
/* Writes all strings as one block to `bytes`, whose size `nbytes` is that of tb_strings_nbytes(),
 * and their offsets, one more than there are strings, to `offsets` unless it is NULL. `bytes` may
 * be NULL if `nbytes` is 0. */
TB_EXPORT tb_status tb_strings_gather(const tb_strings* strings, int64_t* offsets, char* bytes,
                                      int64_t nbytes);
/* Makes the block and the offsets two torch tensors (uint8, int64; one dimension) in torch's own
 * memory, which the caller releases. `options` may be NULL: device_type moves both, TB_COPY_NEVER
 * fails with TB_COPY_REQUIRED, on_write does not apply. Call tb_use_torch first. */
TB_EXPORT tb_status tb_strings_to_torch(const tb_strings* strings,
                                        const tb_convert_options* options, tb_torch_tensor** bytes,
                                        tb_torch_tensor** offsets);
/* Makes a TF_Tensor of dtype string with its own memory, which the caller deletes. `options` may be
 * NULL; TB_COPY_NEVER fails with TB_COPY_REQUIRED. */
TB_EXPORT tb_status tb_strings_to_tf(const tb_strings* strings,
                                     const tb_convert_back_options* options,
                                     struct TF_Tensor** out);
/* Explains tb_strings_to_torch. */
TB_EXPORT tb_status tb_strings_explain(const tb_strings* strings, const tb_convert_options* options,
                                       tb_explanation* out);
/* Explains tb_strings_to_tf. */
TB_EXPORT tb_status tb_strings_explain_back(const tb_strings* strings,
                                            const tb_convert_back_options* options,
                                            tb_explanation* out);
/* Ends the view. NULL is ignored. */
TB_EXPORT void tb_strings_release(tb_strings* strings);

/* The same for Python objects: from an EagerTensor, whose buffer the view keeps alive, and from
 * objects whose type the caller has checked to be torch.Tensor or a subclass. Results are new
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
  const char* nearest;    /* torch dtype of the default result if torch lacks the dtype, else "" */
  const char* reason;
} tb_dtype_row;

/* Writes row `index` of the dtype table to `out`; TB_INVALID_OPTION past the end. Strings are
 * static. */
TB_EXPORT tb_status tb_dtype_row_get(int32_t index, tb_dtype_row* out);

/* ---- bookkeeping -------------------------------------------------------------------------- */

/* Returns the number of buffers that the library keeps alive, in both directions, over all threads.
 * Exact while no other thread converts or releases. */
TB_EXPORT int64_t tb_live_owners(void);

#ifdef __cplusplus
}
#endif
#endif /* TENSOR_BRIDGE_C_API_H_ */
