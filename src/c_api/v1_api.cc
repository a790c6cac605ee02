// Checkpoints of the first format: the private C ABI over formats/v1_checkpoint.h.

#include "c_api/placed.h"
#include "c_api/private_api.h"
#include "formats/v1_checkpoint.h"

using namespace tensor_bridge;  // NOLINT: every function below is one call into it

struct tb_v1 {
  V1Index index;
  V1Records records;
};

struct tb_v1_slice {
  V1Slice slice;
};

tb_status tb_v1_read(const void* data, size_t size, tb_v1** out, tb_bundle_place* place) {
  return placed(place, [&] {
    require(data, "the bytes of a checkpoint");
    require(out, "a place for the result");
    *out = new tb_v1{readV1Index(static_cast<const uint8_t*>(data), size), {}};
  });
}

tb_status tb_v1_tensor_get(const tb_v1* v1, int64_t index, tb_v1_tensor* out) {
  return guarded([&] {
    checkStructSize(out, "tb_v1_tensor");
    require(v1, "a tb_v1");
    checkIndex(index, v1->index.tensors.size());
    const V1Tensor& tensor = v1->index.tensors[static_cast<size_t>(index)];
    out->dtype = tensor.dtype;
    out->ndim = static_cast<int32_t>(tensor.shape.size());
    out->num_slices = tensor.num_slices;
    out->name_size = static_cast<int64_t>(tensor.name.size());
    out->name = tensor.name.data();
    out->shape = tensor.shape.data();
    out->slices = tensor.slices.data();
  });
}

tb_status tb_v1_block_get(const tb_v1* v1, int64_t index, tb_bundle_block* out) {
  return guarded([&] {
    require(v1, "a tb_v1");
    require(out, "a place for the result");
    checkIndex(index, v1->index.blocks.size());
    const TableBlock& block = v1->index.blocks[static_cast<size_t>(index)];
    *out = {block.offset, block.size, block.crc32c};
  });
}

void tb_v1_release(tb_v1* v1) { delete v1; }

tb_status tb_v1_slice_find(tb_v1* v1, const void* data, size_t size, const char* key,
                           size_t key_size, int32_t dtype, int64_t count, tb_v1_slice** out,
                           tb_bundle_place* place) {
  return placed(place, [&] {
    require(v1, "a tb_v1");
    require(data, "the bytes of a checkpoint");
    require(key, "the key of a slice");
    require(out, "a place for the result");
    *out = new tb_v1_slice{V1Slice(&v1->records, static_cast<const uint8_t*>(data), size,
                                   {key, key_size}, dtype, count)};
  });
}

tb_status tb_v1_slice_values(const tb_v1_slice* slice, tb_v1_values* out) {
  return guarded([&] {
    checkStructSize(out, "tb_v1_values");
    require(slice, "a tb_v1_slice");
    const TensorExtent extent = slice->slice.extent();
    const TensorExtent place = slice->slice.place();
    const WireReader message = slice->slice.message();
    out->offset = extent.offset;
    out->size = extent.size;
    out->message_offset = place.offset;
    out->message_size = static_cast<int64_t>(message.left());
    out->message = message.next();
  });
}

void tb_v1_slice_release(tb_v1_slice* slice) { delete slice; }
