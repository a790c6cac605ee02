/* C functions that only the Python extension calls, in the manner of c_api.h. Not for: anybody
 * else; they change without notice. */
#ifndef TENSOR_BRIDGE_C_API_PRIVATE_API_H_
#define TENSOR_BRIDGE_C_API_PRIVATE_API_H_

#include "tensor_bridge/c_api.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- GPUs ---------------------------------------------------------------------------------- */

/* The GPU whose memory is at `address`, as torch counts them; -1 where nobody knows. */
TB_EXPORT int32_t tb_gpu_of_address(const void* address);
/* Who says which GPU a logical device of TensorFlow's is on, -1 for unknown; NULL for nobody. It is
 * called on any thread, with or without the GIL. */
TB_EXPORT void tb_py_set_gpu_of_logical(int32_t (*function)(int32_t logical));
/* TB_FRAMEWORK where torch's calls of CUDA do not reach the CUDA that it was built for. */
TB_EXPORT tb_status tb_require_torch_cuda(void);

/* ---- files that store tensors beside other things ----------------------------------------- */

typedef int32_t tb_stored_format;
#define TB_STORED_NONE 0
#define TB_STORED_GRAPH 1  /* GraphDef, MetaGraphDef, SavedModel: the nodes Const */
#define TB_STORED_TFLITE 2 /* TensorFlow Lite: the tensors with values */

/* What the file says; nothing refers to its bytes. */
typedef struct tb_stored tb_stored;

/* One tensor; the pointers live as long as the tb_stored. */
typedef struct tb_stored_tensor {
  uint32_t struct_size; /* set by the caller */
  int32_t dtype;        /* TF_DataType; 0 for one that it has no number for */
  int32_t ndim;
  int32_t axis;   /* of the scales, where there are several */
  int64_t offset; /* of the values in the file; -1: they have to be decoded */
  int64_t size;
  const int64_t* shape;
  const char* name;
  int64_t name_size;
  /* Of a graph. */
  int64_t message_offset; /* of the TensorProto */
  int64_t message_size;
  int32_t read_as_variable; /* 1 if a node reads it as variables are read */
  /* Of TensorFlow Lite. */
  int32_t subgraph_index;
  const char* subgraph; /* its name */
  int64_t subgraph_size;
  int32_t type;    /* number in TensorFlow Lite's schema */
  int32_t bits;    /* of an element; 0 for strings */
  int32_t storage; /* 0: as it is; 1: sparse; 2: in another file; 3: quantized in another way */
  int32_t num_scales;
  const double* scales;
  const int64_t* zero_points; /* as many */
} tb_stored_tensor;

/* What the bytes begin like. */
TB_EXPORT tb_stored_format tb_stored_format_of(const void* data, size_t size);

/* Reads a file that is in memory. Every length, offset and shape in it is checked. On TB_CHECKPOINT
 * `place`, which may be null, says where. */
TB_EXPORT tb_status tb_stored_read(const void* data, size_t size, tb_stored** out,
                                   tb_bundle_place* place);
TB_EXPORT int64_t tb_stored_count(const tb_stored* stored);
/* Tensor `index`, in the order of the file; TB_INVALID_OPTION past the end. */
TB_EXPORT tb_status tb_stored_get(const tb_stored* stored, int64_t index, tb_stored_tensor* out);
/* NULL is ignored. */
TB_EXPORT void tb_stored_release(tb_stored* stored);

/* ---- values ------------------------------------------------------------------------------- */

/* Decodes the `count` values of a TensorProto of `size` bytes to `out`, which has room for them:
 * missing ones repeat the last one. A `place` is counted from `message`. */
TB_EXPORT tb_status tb_tensor_values(const void* message, size_t size, int32_t dtype, int64_t count,
                                     void* out, tb_bundle_place* place);

/* The `count` strings of a TensorProto: how many bytes all take; then, where `offsets` is not null,
 * count + 1 offsets, and the strings to `out`, which has room for them. */
TB_EXPORT tb_status tb_tensor_strings(const void* message, size_t size, int64_t count,
                                      int64_t* total, int64_t* offsets, void* out,
                                      tb_bundle_place* place);

/* One value a byte of `count` values of 2 or 4 bits, lowest first. */
TB_EXPORT void tb_tflite_unpack(const void* data, int32_t bits, int64_t count, void* out);

/* Where the `count` strings of a tensor of TensorFlow Lite lie in its bytes. */
TB_EXPORT tb_status tb_tflite_strings(const void* data, size_t size, int64_t count,
                                      int64_t* offsets, tb_bundle_place* place);

/* ---- checkpoints of the first format ------------------------------------------------------- */

/* What a file says of its tensors; nothing refers to its bytes. */
typedef struct tb_v1 tb_v1;

/* One tensor; the pointers live as long as the tb_v1. */
typedef struct tb_v1_tensor {
  uint32_t struct_size; /* set by the caller */
  int32_t dtype;        /* TF_DataType */
  int32_t ndim;
  int32_t num_slices;
  int64_t name_size;
  const char* name;
  const int64_t* shape;
  const int64_t* slices; /* as tb_bundle_entry has them */
} tb_v1_tensor;

TB_EXPORT tb_status tb_v1_read(const void* data, size_t size, tb_v1** out, tb_bundle_place* place);
/* Tensor or block `index`; TB_INVALID_OPTION past the end. */
TB_EXPORT tb_status tb_v1_tensor_get(const tb_v1* v1, int64_t index, tb_v1_tensor* out);
TB_EXPORT tb_status tb_v1_block_get(const tb_v1* v1, int64_t index, tb_bundle_block* out);
/* NULL is ignored. */
TB_EXPORT void tb_v1_release(tb_v1* v1);

/* One slice, found by its key. It refers to the bytes of the file. */
typedef struct tb_v1_slice tb_v1_slice;

typedef struct tb_v1_values {
  uint32_t struct_size; /* set by the caller */
  int64_t offset; /* of the values in the file; -1: they have to be decoded from the message */
  int64_t size;
  int64_t message_offset; /* in the file; -1: it was unpacked */
  int64_t message_size;
  const void* message; /* a TensorProto without dtype and shape */
} tb_v1_values;

/* The slice of `key` with `count` values of `dtype`; another number of them is TB_CHECKPOINT.
 * `data` is the file that `v1` was read from. From any thread. */
TB_EXPORT tb_status tb_v1_slice_find(tb_v1* v1, const void* data, size_t size, const char* key,
                                     size_t key_size, int32_t dtype, int64_t count,
                                     tb_v1_slice** out, tb_bundle_place* place);
TB_EXPORT tb_status tb_v1_slice_values(const tb_v1_slice* slice, tb_v1_values* out);
/* NULL is ignored. */
TB_EXPORT void tb_v1_slice_release(tb_v1_slice* slice);

/* ---- Snappy's packed blocks ---------------------------------------------------------------- */

/* The length that packed bytes say they have unpacked; -1 if there is none, or one that so few
 * bytes cannot have. Then the bytes to `out`, which has room for `length`: 0 unless they are that
 * many. */
TB_EXPORT int64_t tb_snappy_length(const void* packed, size_t size);
TB_EXPORT int32_t tb_snappy_unpack(const void* packed, size_t size, void* out, size_t length);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* TENSOR_BRIDGE_C_API_PRIVATE_API_H_ */
