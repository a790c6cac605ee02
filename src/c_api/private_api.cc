// The private entries, called only by the extension: GPUs, and the C ABI over formats/graph_def.h,
// tensor_proto.h, tflite.h and snappy.h.

#include "c_api/private_api.h"

#include <algorithm>
#include <vector>

#include "adapters/tensorflow/gpu.h"
#include "bridge/torch_cuda.h"
#include "c_api/placed.h"
#include "core/dtype.h"
#include "core/narrow_dtypes.h"
#include "formats/graph_def.h"
#include "formats/snappy.h"
#include "formats/tensor_proto.h"
#include "formats/tflite.h"

using namespace tensor_bridge;  // NOLINT: every function below is one call into it

struct tb_stored {
  const uint8_t* data;  // to count offsets from
  std::vector<GraphConstant> constants;
  std::vector<TfliteTensor> tensors;  // one of the two is empty
};

namespace {

void fill(const tb_stored& stored, const GraphConstant& constant, tb_stored_tensor* out) {
  out->dtype = constant.tensor.dtype;
  out->ndim = static_cast<int32_t>(constant.tensor.shape.size());
  out->shape = constant.tensor.shape.data();
  out->offset = constant.extent.offset;
  out->size = constant.extent.size;
  out->name = constant.name.data();
  out->name_size = static_cast<int64_t>(constant.name.size());
  out->message_offset = constant.tensor.message.next() - stored.data;
  out->message_size = static_cast<int64_t>(constant.tensor.message.left());
  out->read_as_variable = constant.read_as_variable ? 1 : 0;
}

void fill(const TfliteTensor& tensor, tb_stored_tensor* out) {
  out->dtype = tensor.dtype;
  out->ndim = static_cast<int32_t>(tensor.shape.size());
  out->shape = tensor.shape.data();
  out->axis = tensor.axis;
  out->offset = tensor.data.offset;
  out->size = tensor.data.size;
  out->name = tensor.name.data();
  out->name_size = static_cast<int64_t>(tensor.name.size());
  out->subgraph_index = tensor.subgraph_index;
  out->subgraph = tensor.subgraph.data();
  out->subgraph_size = static_cast<int64_t>(tensor.subgraph.size());
  out->type = tensor.type;
  out->bits = tensor.bits;
  out->storage = static_cast<int32_t>(tensor.storage);
  out->num_scales = static_cast<int32_t>(tensor.scales.size());
  out->scales = tensor.scales.data();
  out->zero_points = tensor.zero_points.data();
}

TensorProto tensorOf(const void* message, size_t size, int32_t dtype, int64_t count) {
  require(message, "the bytes of a tensor");
  checkCount(count);
  TensorProto tensor;
  tensor.dtype = dtype;
  tensor.count = count;
  tensor.message = WireReader(static_cast<const uint8_t*>(message), size);
  return tensor;
}

}  // namespace

const void* tb_narrow_values(int32_t tf_dtype, int64_t* nbytes) {
  if (isNull(nbytes, "a place for the size")) return nullptr;
  const Dtype dtype = dtypeFromTf(tf_dtype);
  const void* values = lookupTable(dtype);
  if (values != nullptr) *nbytes = int64_t{256} * dtypeInfo(dtypeInfo(dtype).nearest).itemsize;
  return values;
}

int32_t tb_gpu_of_address(const void* address) { return gpuOfAddress(address); }

void tb_py_set_gpu_of_logical(int32_t (*function)(int32_t)) { setGpuOfLogical(function); }

tb_status tb_require_torch_cuda(void) {
  return guarded([] { requireTorchCuda(); });
}

tb_stored_format tb_stored_format_of(const void* data, size_t size) {
  if (isNull(data, "the bytes of a file")) return TB_STORED_NONE;
  const auto* bytes = static_cast<const uint8_t*>(data);
  if (isTflite(bytes, size)) return TB_STORED_TFLITE;
  return isGraph(bytes, size) ? TB_STORED_GRAPH : TB_STORED_NONE;
}

tb_status tb_stored_read(const void* data, size_t size, tb_stored** out, tb_bundle_place* place) {
  return placed(place, [&] {
    require(data, "the bytes of a file");
    require(out, "a place for the result");
    const auto* bytes = static_cast<const uint8_t*>(data);
    if (isTflite(bytes, size)) {
      *out = new tb_stored{bytes, {}, readTflite(bytes, size)};
    } else {
      *out = new tb_stored{bytes, readGraphConstants(bytes, size), {}};
    }
  });
}

tb_status tb_stored_get(const tb_stored* stored, int64_t index, tb_stored_tensor* out) {
  return guarded([&] {
    checkStructSize(out, "tb_stored_tensor");
    require(stored, "a tb_stored");
    checkIndex(index, stored->constants.size() + stored->tensors.size());
    *out = {};
    out->struct_size = sizeof(*out);
    if (stored->tensors.empty()) {
      fill(*stored, stored->constants[static_cast<size_t>(index)], out);
    } else {
      fill(stored->tensors[static_cast<size_t>(index)], out);
    }
  });
}

void tb_stored_release(tb_stored* stored) { delete stored; }

tb_status tb_tensor_values(const void* message, size_t size, int32_t dtype, int64_t count,
                           void* out, tb_bundle_place* place) {
  return placed(place, [&] {
    const TensorProto tensor = tensorOf(message, size, dtype, count);
    require(out, "a place for the values");
    decodeTensorValues(tensor.message.next(), tensor, "", static_cast<uint8_t*>(out));
  });
}

tb_status tb_tensor_strings(const void* message, size_t size, int64_t count, int64_t* total,
                            int64_t* offsets, void* out, tb_bundle_place* place) {
  return placed(place, [&] {
    const TensorProto tensor = tensorOf(message, size, 0, count);
    require(total, "a place for the result");
    *total = tensorStringsSize(tensor.message.next(), tensor, "");
    if (offsets == nullptr) return;
    if (*total > 0) require(out, "a place for the strings");
    decodeTensorStrings(tensor.message.next(), tensor, "", offsets, static_cast<uint8_t*>(out));
  });
}

tb_status tb_tensor_describe(const void* message, size_t size, int32_t* dtype, int32_t* ndim,
                             int64_t* shape, tb_bundle_place* place) {
  return placed(place, [&] {
    const auto* bytes = static_cast<const uint8_t*>(message);
    require(bytes, "the bytes of a tensor");
    require(dtype, "a place for the dtype");
    require(ndim, "a place for the rank");
    require(shape, "a place for the shape");
    const TensorProto tensor = readTensorProto(bytes, WireReader(bytes, size), "");
    *dtype = tensor.dtype;
    *ndim = static_cast<int32_t>(tensor.shape.size());
    std::copy(tensor.shape.begin(), tensor.shape.end(), shape);
  });
}

void tb_tflite_unpack(const void* data, int32_t bits, int64_t count, void* out) {
  if (isNull(data, "the bytes of a tensor") || isNull(out, "a place for the values")) return;
  if (bits != 2 && bits != 4) return;
  unpackTflite(static_cast<const uint8_t*>(data), bits, count, static_cast<uint8_t*>(out));
}

tb_status tb_tflite_strings(const void* data, size_t size, int64_t count, int64_t* offsets,
                            tb_bundle_place* place) {
  return placed(place, [&] {
    require(data, "the bytes of a tensor");
    require(offsets, "a place for the offsets");
    checkCount(count);
    readTfliteStrings(static_cast<const uint8_t*>(data), size, count, offsets);
  });
}

int64_t tb_snappy_length(const void* packed, size_t size) {
  size_t length = 0;
  if (packed == nullptr || !snappyLength(static_cast<const uint8_t*>(packed), size, &length)) {
    return -1;
  }
  return static_cast<int64_t>(length);
}

int32_t tb_snappy_unpack(const void* packed, size_t size, void* out, size_t length) {
  if (packed == nullptr || out == nullptr) return 0;
  return snappyUnpack(static_cast<const uint8_t*>(packed), size, static_cast<uint8_t*>(out), length)
             ? 1
             : 0;
}
