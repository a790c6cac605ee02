/* C functions that only the Python extension calls, in the style of c_api.h. Every tb_bundle_place
 * may be null. Not for: other callers; these functions change without notice. */
#ifndef TENSOR_BRIDGE_C_API_PRIVATE_API_H_
#define TENSOR_BRIDGE_C_API_PRIVATE_API_H_

#include "tensor_bridge/c_api.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- torch that is copied from and to ------------------------------------------------------ */

/* The entry of an adapter that copies through torch's Python functions, which the extension module
 * has; NULL for none. */
typedef const void* (*tb_py_adapter_entry)(uint32_t abi, const void* host);
TB_EXPORT void tb_py_set_copying_torch(tb_py_adapter_entry entry);

/* ---- addresses ----------------------------------------------------------------------------- */

/* The address of an EagerTensor's elements. */
TB_EXPORT tb_status tb_py_tf_address(struct _object* tensor, const void** out);

/* ---- dtypes of one byte that torch lacks ---------------------------------------------------- */

/* The exact value of each byte that TensorFlow stores, 256 elements of the nearest torch dtype, and
 * their size in bytes. Static memory; NULL where a dtype's values are not looked up. */
TB_EXPORT const void* tb_narrow_values(int32_t tf_dtype, int64_t* nbytes);

/* ---- GPUs ---------------------------------------------------------------------------------- */

/* The GPU whose memory is at `address`, by torch's number; -1 if it is not known. */
TB_EXPORT int32_t tb_gpu_of_address(const void* address);
/* Sets the function that tells which GPU a logical TensorFlow device is on, -1 for unknown; NULL
 * for none. It is called on any thread, with or without the GIL. */
TB_EXPORT void tb_py_set_gpu_of_logical(int32_t (*function)(int32_t logical));
/* TB_FRAMEWORK if torch's CUDA calls do not reach the CUDA that torch was built for. */
TB_EXPORT tb_status tb_require_torch_cuda(void);

/* ---- iterators of tf.data (GIL held) ------------------------------------------------------- */

/* The elements of a tf.data iterator as torch tensors, made on demand or ahead by a thread. The GIL
 * is released by every call that waits. Any thread may use an iterator, several at once too. */
typedef struct tb_data_iterator tb_data_iterator;

/* One element, as a flat list of slots. */
typedef struct tb_data_element tb_data_element;

/* The kind of an iterator's output, and the slots that it fills. */
enum {
  TB_DATA_DENSE = 0,   /* one slot, a tensor */
  TB_DATA_STRINGS = 1, /* two slots: bytes and offsets; with string_lists only the first is used */
  TB_DATA_RAGGED = 2,  /* values (a tensor or strings), then one tensor of row splits a partition */
  TB_DATA_SPARSE = 3,  /* three tensors: indices, values, dense shape */
  TB_DATA_OPAQUE = 4   /* one slot, a tf.Tensor */
};

typedef struct tb_data_component {
  int32_t kind;         /* TB_DATA_* */
  int32_t tf_dtype;     /* TF_DataType of the iterator's output */
  int32_t values_dtype; /* ragged, sparse: TF_DataType of the values */
  int32_t splits_dtype; /* ragged: of the row splits */
  int32_t ragged_rank;  /* ragged: number of partitions */
} tb_data_component;

typedef struct tb_data_options {
  uint32_t struct_size; /* sizeof(tb_data_options) */
  int32_t prefetch;     /* elements that the thread makes ahead; 0: each when it is asked for */
  int32_t adaptive; /* 1: a caller that only drains may make cheap elements itself, without limit */
  int32_t string_lists; /* 1: strings stay in TensorFlow's memory, for tb_data_slot_strings() */
  int32_t num_components;
  const tb_data_component* components;
  const tb_convert_options* convert; /* of every tensor; null for the defaults */
} tb_data_options;

enum { TB_DATA_ELEMENT = 0, TB_DATA_END = 1, TB_DATA_WAITING = 2 };

typedef struct tb_data_outcome {
  uint32_t struct_size; /* sizeof(tb_data_outcome) */
  int32_t state;        /* TB_DATA_*: an element, the end, or none within the time */
  int64_t ordinal;      /* number of the element, or of the failure, counted from 0 */
  int32_t tf_code;      /* of a failure in the pipeline: TF_Code */
} tb_data_outcome;

typedef struct tb_data_stats {
  uint32_t struct_size; /* sizeof(tb_data_stats) */
  int64_t elements;     /* delivered */
  int64_t bytes;        /* delivered */
  int64_t failures;
  int64_t wait_ns;    /* in tb_py_data_next() */
  int64_t compute_ns; /* between two calls of it */
  int64_t make_ns;    /* spent in making elements, mostly in TensorFlow */
  int64_t queued;     /* elements that wait to be delivered */
} tb_data_stats;

/* `resource` is the eager tensor of an initialised iterator resource, `context` TensorFlow's
 * TFE_Context. The iterator keeps the resource alive, not the dataset. */
TB_EXPORT tb_status tb_py_data_open(struct _object* resource, void* context,
                                    const tb_data_options* options, tb_data_iterator** out);

/* The next element, which the caller releases; or the end, or after `wait_ms` without either
 * TB_DATA_WAITING (with a thread only; without one the call waits as long as it takes). A failure
 * in the pipeline is returned once, TB_TENSORFLOW; the next call continues after it. `outcome` is
 * always filled. */
TB_EXPORT tb_status tb_py_data_next(tb_data_iterator* iterator, int64_t wait_ms,
                                    tb_data_outcome* outcome, tb_data_element** out);

/* Stops the thread from making elements after the current one: queued elements can be taken, and
 * the iterator resource keeps its position. `resume` undoes it; NULL is ignored there. In a forked
 * child only `close` works, because it has a copy of the memory but no thread. */
TB_EXPORT tb_status tb_py_data_pause(tb_data_iterator* iterator);
TB_EXPORT void tb_py_data_resume(tb_data_iterator* iterator);

/* Cancels TensorFlow's running call, and ends the iterator. NULL is ignored. */
TB_EXPORT void tb_py_data_cancel(tb_data_iterator* iterator);

TB_EXPORT tb_status tb_data_stats_get(const tb_data_iterator* iterator, tb_data_stats* out);

/* Cancels, waits for the thread, and frees the iterator. In a forked child it only leaks, because
 * the thread does not exist there. A thread that does not end within `wait_ms` is abandoned. Null
 * is ignored. */
TB_EXPORT void tb_py_data_close(tb_data_iterator* iterator, int64_t wait_ms);

/* A new reference to the torch.Tensor (for an opaque slot: tf.Tensor) of a slot. Once per slot. */
TB_EXPORT tb_status tb_py_data_slot(tb_data_element* element, int32_t slot, struct _object** out);

/* The shape of the first slot of strings; lives as long as the element. Null for other slots, and
 * for a number that is not a slot. */
TB_EXPORT const int64_t* tb_data_slot_shape(const tb_data_element* element, int32_t slot,
                                            int32_t* ndim);

/* With string_lists: borrowed from the element; null for a slot that holds no strings. */
TB_EXPORT const tb_strings* tb_data_slot_strings(const tb_data_element* element, int32_t slot);

/* NULL is ignored. */
TB_EXPORT void tb_data_element_release(tb_data_element* element);

/* ---- checkpoints -------------------------------------------------------------------------- */

/* The content of a TensorFlow checkpoint's index file; does not refer to the caller's memory. */
typedef struct tb_bundle tb_bundle;

/* Where reading failed. The caller sets struct_size to sizeof(tb_bundle_place) before the call. */
typedef struct tb_bundle_place {
  uint32_t struct_size;
  int32_t entry_size; /* of `entry`, which is cut off where it is longer */
  int64_t offset;     /* in the bytes that were given; -1: no place in them */
  char entry[256];    /* key of the entry; no zero at its end */
} tb_bundle_place;

/* One entry; the pointers live as long as the tb_bundle. */
typedef struct tb_bundle_entry {
  uint32_t struct_size; /* set by the caller */
  int32_t dtype;        /* TF_DataType */
  int32_t shard;        /* number of the data file, below tb_bundle_num_shards() */
  int32_t ndim;
  int32_t num_slices; /* 0, or those of a partitioned variable */
  uint32_t crc32c;    /* of the entry's bytes, masked */
  int64_t key_size;
  int64_t offset; /* in the data file */
  int64_t size;
  const char* key; /* may hold zeros */
  const int64_t* shape;
  const int64_t* slices; /* for each slice ndim pairs (start, length); length -1: all of it */
} tb_bundle_entry;

/* A stretch of the index file, and its masked CRC-32C. */
typedef struct tb_bundle_block {
  int64_t offset;
  int64_t size;
  uint32_t crc32c;
} tb_bundle_block;

/* Reads an index file that is in memory. Every length, offset and shape in it is checked, checksums
 * are not. On a failure `place`, which may be null, says where. */
TB_EXPORT tb_status tb_bundle_read(const void* data, size_t size, tb_bundle** out,
                                   tb_bundle_place* place);
TB_EXPORT int32_t tb_bundle_num_shards(const tb_bundle* bundle);
/* Entry `index`, ascending by key; TB_INVALID_OPTION past the end. */
TB_EXPORT tb_status tb_bundle_entry_get(const tb_bundle* bundle, int64_t index,
                                        tb_bundle_entry* out);
TB_EXPORT tb_status tb_bundle_block_get(const tb_bundle* bundle, int64_t index,
                                        tb_bundle_block* out);
/* NULL is ignored. */
TB_EXPORT void tb_bundle_release(tb_bundle* bundle);

/* Where the `count` strings of an entry of dtype string lie in its bytes: string i from
 * *begin + offsets[i] to *begin + offsets[i + 1]. `offsets` has room for count + 1. */
TB_EXPORT tb_status tb_bundle_strings(const void* data, size_t size, int64_t count,
                                      int64_t* offsets, int64_t* begin, tb_bundle_place* place);

/* ---- files that store tensors beside other things ----------------------------------------- */

typedef int32_t tb_stored_format;
#define TB_STORED_NONE 0
#define TB_STORED_GRAPH 1  /* GraphDef, MetaGraphDef, SavedModel: the nodes Const */
#define TB_STORED_TFLITE 2 /* TensorFlow Lite: the tensors with values */

/* The content of the file; does not refer to the file's bytes. */
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

/* The format of a file, by its first bytes. */
TB_EXPORT tb_stored_format tb_stored_format_of(const void* data, size_t size);

/* Reads a file that is in memory. Every length, offset and shape in it is checked. On TB_CHECKPOINT
 * `place`, which may be null, says where. */
TB_EXPORT tb_status tb_stored_read(const void* data, size_t size, tb_stored** out,
                                   tb_bundle_place* place);
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

/* Reads dtype and shape of a TensorProto; `shape` has room for 254 sizes. */
TB_EXPORT tb_status tb_tensor_describe(const void* message, size_t size, int32_t* dtype,
                                       int32_t* ndim, int64_t* shape, tb_bundle_place* place);

/* One value a byte of `count` values of 2 or 4 bits, lowest first. */
TB_EXPORT void tb_tflite_unpack(const void* data, int32_t bits, int64_t count, void* out);

/* The offsets of the `count` strings of a TensorFlow Lite tensor in its bytes. */
TB_EXPORT tb_status tb_tflite_strings(const void* data, size_t size, int64_t count,
                                      int64_t* offsets, tb_bundle_place* place);

/* ---- files of records ---------------------------------------------------------------------- */

/* A position in a TFRecord file, and the result of a scan; formats/tfrecord.h. */
typedef struct tb_record_scan {
  uint32_t struct_size; /* set by the caller */
  int32_t verify;       /* 1: compare the checksums of the bytes, too */
  int32_t skip;         /* 1: go on behind damage */
  int32_t final;        /* 1: the file ends where the memory does */
  int32_t searching;    /* 0 in a new file */
  int32_t fault;        /* 0 none, 1 truncated, 2 the length's checksum, 3 the bytes' */
  int64_t next;         /* the next position, from the first byte of the memory */
  int64_t budget;       /* bytes that a search may read without a record */
  int64_t fault_at;
  int64_t skipped_records;
  int64_t skipped_bytes;
} tb_record_scan;

/* Writes the beginnings and sizes of at most `most` records; both arrays have room for them. */
TB_EXPORT tb_status tb_records_scan(const void* data, int64_t size, tb_record_scan* scan,
                                    int64_t most, int64_t* begins, int64_t* sizes, int64_t* count);

/* Files whose records are numbered consecutively. */
typedef struct tb_record_files {
  uint32_t struct_size;    /* set by the caller */
  const void* const* data; /* each file's bytes; null: not in memory yet */
  const int64_t* sizes;
  const int64_t* ends; /* for each file the number of records up to its end */
  int64_t count;
  const int64_t* offsets; /* each record's offset in its file */
} tb_record_files;

/* The reason why tb_records_at() ended early. */
typedef struct tb_record_stop {
  uint32_t struct_size; /* set by the caller */
  int32_t fault;        /* as in tb_record_scan; 0: the file is not in memory */
  int64_t done;         /* number of records before */
  int64_t file;         /* -1: it did not end early */
} tb_record_stop;

/* Writes the beginnings of the records `numbers`, from `base`, which may be null, and their sizes.
 */
TB_EXPORT tb_status tb_records_at(const tb_record_files* files, const int64_t* numbers,
                                  int64_t count, int32_t verify, const void* base, int64_t* begins,
                                  int64_t* sizes, tb_record_stop* stop);

/* Copies records consecutively to `out`, and writes count + 1 offsets. */
TB_EXPORT tb_status tb_records_gather(const void* base, const int64_t* begins, const int64_t* sizes,
                                      int64_t count, void* out, int64_t* offsets);

/* Writes records in the form of a file, each with 16 bytes more than its size. */
TB_EXPORT tb_status tb_records_frame(const void* base, const int64_t* begins, const int64_t* sizes,
                                     int64_t count, void* out);

/* ---- records that hold Examples ------------------------------------------------------------ */

/* The request for one feature of tf.train.Example or tf.train.SequenceExample. */
typedef struct tb_example_column {
  uint32_t struct_size; /* set by the caller */
  int32_t in_lists;     /* 1: of a SequenceExample's feature lists */
  int32_t type;         /* 1 bytes, 2 float32, 3 int64 */
  int32_t kind;         /* 0 fixed, 1 padded, 2 sparse, 3 ragged; formats/example.h */
  int32_t required;     /* 1: a record without it is an error */
  int64_t stride;       /* number of values in a record (fixed) or in a row (padded) */
  int64_t key_size;
  const char* key;
  const void* defaults; /* `stride` values (fixed) or one (padded) as in memory; strings: bytes */
  int64_t defaults_size;
  const int64_t* default_ends; /* the end of each string in `defaults` */
  int64_t num_default_ends;
} tb_example_column;

/* The memory that a column of a batch needs; formats/example.h. */
typedef struct tb_example_size {
  uint32_t struct_size; /* set by the caller */
  int64_t values;
  int64_t bytes;
  int64_t rows;
  int64_t max_rows;
  int64_t max_values;
} tb_example_size;

/* The memory that a column is written to; null where its kind and type need nothing. */
typedef struct tb_example_memory {
  void* values;     /* `values` numbers, or `bytes` bytes */
  int64_t* offsets; /* strings: `values` + 1 */
  int64_t* index;   /* sparse: [2, or 3 in lists, values]; ragged: records + 1, then in lists
                       rows + 1 */
  int64_t* lengths; /* padded, in lists: one a record */
} tb_example_memory;

typedef struct tb_example_spec tb_example_spec;
typedef struct tb_example_batch tb_example_batch;

/* Copies everything that the columns refer to. Several threads may use a spec. */
TB_EXPORT tb_status tb_example_spec_new(const tb_example_column* columns, int32_t count,
                                        int32_t sequence, tb_example_spec** out);
/* NULL is ignored. No batch of the spec may be alive. */
TB_EXPORT void tb_example_spec_release(tb_example_spec* spec);

/* Scans `count` records: record i is sizes[i] bytes at `base` + begins[i]. The batch refers to them
 * and to the spec. On TB_CHECKPOINT `place`, which may be null, has the offset from `base`. */
TB_EXPORT tb_status tb_example_scan(const tb_example_spec* spec, const void* base,
                                    const int64_t* begins, const int64_t* sizes, int64_t count,
                                    tb_example_batch** out, tb_bundle_place* place);
TB_EXPORT tb_status tb_example_size_get(const tb_example_batch* batch, int32_t column,
                                        tb_example_size* out);
/* Decodes all columns; `count` is their number. */
TB_EXPORT tb_status tb_example_fill(const tb_example_batch* batch, const tb_example_memory* columns,
                                    int32_t count, tb_bundle_place* place);
/* NULL is ignored. */
TB_EXPORT void tb_example_batch_release(tb_example_batch* batch);

/* The features of one Example or SequenceExample. It refers to the record. */
typedef struct tb_example_keys tb_example_keys;
typedef struct tb_example_key {
  uint32_t struct_size; /* set by the caller */
  int32_t in_lists;     /* 1: a row of a feature list */
  int32_t type;         /* 1 bytes, 2 float32, 3 int64; 0: an empty Feature */
  int64_t count;        /* number of values */
  int64_t key_size;
  const char* key;
} tb_example_key;

TB_EXPORT tb_status tb_example_keys_read(const void* record, size_t size, tb_example_keys** out,
                                         tb_bundle_place* place);
/* Feature `index`, in the record's order; TB_INVALID_OPTION past the end. */
TB_EXPORT tb_status tb_example_key_get(const tb_example_keys* keys, int64_t index,
                                       tb_example_key* out);
/* NULL is ignored. */
TB_EXPORT void tb_example_keys_release(tb_example_keys* keys);

/* A batch of parsed records, or why there is none; the pointers live as long as it does. */
typedef struct tb_parsed_batch tb_parsed_batch;
typedef struct tb_parsed_info {
  uint32_t struct_size; /* set by the caller */
  int32_t failed;       /* 1: the next fields have the reason; 2: out of memory */
  int32_t fault;        /* of a record, as in tb_record_scan */
  int32_t columns;
  int64_t file; /* -1: of no file */
  int64_t offset;
  int64_t count; /* records */
  int64_t bytes;
  int64_t skipped_records;
  int64_t skipped_bytes;
  int64_t nanoseconds;
  const char* message;
} tb_parsed_info;

typedef struct tb_parsed_column {
  uint32_t struct_size; /* set by the caller */
  int32_t type;         /* 1 bytes, 2 float32, 3 int64 */
  /* As in tb_example_memory, each with the number of its elements. */
  void* values;
  int64_t num_values; /* number of bytes, if they are strings */
  int64_t* offsets;
  int64_t num_offsets;
  int64_t* index;
  int64_t num_index;
  int64_t* lengths;
  int64_t num_lengths;
  /* As in tb_example_size. */
  int64_t count;
  int64_t max_rows;
  int64_t max_values;
} tb_parsed_column;

/* Parses `count` records, as tb_example_scan() is given them. */
TB_EXPORT tb_status tb_example_parse(const tb_example_spec* spec, const void* base,
                                     const int64_t* begins, const int64_t* sizes, int64_t count,
                                     tb_parsed_batch** out, tb_bundle_place* place);
TB_EXPORT tb_status tb_parsed_batch_info(const tb_parsed_batch* batch, tb_parsed_info* out);
/* Column `index`; TB_INVALID_OPTION past the end. */
TB_EXPORT tb_status tb_parsed_column_get(const tb_parsed_batch* batch, int64_t index,
                                         tb_parsed_column* out);
/* Adds a reference. It and the release may be called on any thread; the last release frees the
 * memory. */
TB_EXPORT void tb_parsed_batch_retain(tb_parsed_batch* batch);
/* NULL is ignored. */
TB_EXPORT void tb_parsed_batch_release(tb_parsed_batch* batch);
/* A new torch.Tensor of this shape over part of a column: 0 values, 1 offsets, 2 index, 3 lengths;
 * it keeps the batch alive. TB_FRAMEWORK if torch's memory layout is not known in this process. */
TB_EXPORT tb_status tb_py_parsed_tensor(tb_parsed_batch* batch, int64_t column, int32_t part,
                                        const int64_t* shape, int32_t ndim, struct _object** out);

/* Threads that read, check and parse whole batches ahead of the caller; formats/example_queue.h. */
typedef struct tb_example_queue tb_example_queue;
typedef struct tb_queue_options {
  uint32_t struct_size; /* set by the caller */
  int32_t verify;
  int32_t skip;
  int32_t drop_last;
  int32_t threads;
  int32_t reserved;
  int64_t batch_size;
  int64_t ahead; /* batches that are made and not taken */
  /* The records: by number; or, if NULL, every `step`-th from `first` on, for which the files need
   * neither ends nor offsets. */
  const int64_t* numbers;
  int64_t num_numbers;
  int64_t first;
  int64_t step;
} tb_queue_options;

/* `spec` may be null: raw records. It, and what `files` and `options` refer to, outlive the queue.
 */
TB_EXPORT tb_status tb_example_queue_new(const tb_example_spec* spec, const tb_record_files* files,
                                         const tb_queue_options* options, tb_example_queue** out);
/* How many batches are ready. */
TB_EXPORT int64_t tb_example_queue_ready(tb_example_queue* queue);
/* Waits for the next batch; NULL at the end. */
TB_EXPORT tb_status tb_example_queue_take(tb_example_queue* queue, tb_parsed_batch** out);
/* Waits for batches that are being made. NULL is ignored. */
TB_EXPORT void tb_example_queue_release(tb_example_queue* queue);

/* ---- checkpoints of the first format ------------------------------------------------------- */

/* A file's descriptions of its tensors; does not refer to the file's bytes. */
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

/* The unpacked length that packed bytes claim; -1 if there is none, or one that so few bytes cannot
 * have. The second function unpacks to `out`, which has room for `length`, and returns 0 unless the
 * bytes unpack to exactly that length. */
TB_EXPORT int64_t tb_snappy_length(const void* packed, size_t size);
TB_EXPORT int32_t tb_snappy_unpack(const void* packed, size_t size, void* out, size_t length);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* TENSOR_BRIDGE_C_API_PRIVATE_API_H_ */
