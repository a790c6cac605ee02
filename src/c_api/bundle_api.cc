// Checkpoints: the C ABI over formats/bundle.h.

#include "c_api/placed.h"
#include "c_api/private_api.h"
#include "formats/bundle.h"

using namespace tensor_bridge;  // NOLINT: every function below is one call into it

struct tb_bundle {
  BundleIndex index;
};

tb_status tb_bundle_read(const void* data, size_t size, tb_bundle** out, tb_bundle_place* place) {
  return placed(place, [&] {
    require(data, "the bytes of an index file");
    require(out, "a place for the result");
    *out = new tb_bundle{readBundleIndex(static_cast<const uint8_t*>(data), size)};
  });
}

int32_t tb_bundle_num_shards(const tb_bundle* bundle) {
  return isNull(bundle, "a tb_bundle") ? 0 : bundle->index.num_shards;
}

tb_status tb_bundle_entry_get(const tb_bundle* bundle, int64_t index, tb_bundle_entry* out) {
  return guarded([&] {
    checkStructSize(out, "tb_bundle_entry");
    require(bundle, "a tb_bundle");
    checkIndex(index, bundle->index.entries.size());
    const BundleEntry& entry = bundle->index.entries[static_cast<size_t>(index)];
    const auto ndim = static_cast<int32_t>(entry.shape.size());
    out->dtype = entry.dtype;
    out->shard = entry.shard;
    out->ndim = ndim;
    out->num_slices =
        ndim == 0 ? 0 : static_cast<int32_t>(entry.slices.size() / (2 * entry.shape.size()));
    out->crc32c = entry.crc32c;
    out->key_size = static_cast<int64_t>(entry.key.size());
    out->offset = entry.offset;
    out->size = entry.size;
    out->key = entry.key.data();
    out->shape = entry.shape.data();
    out->slices = entry.slices.data();
  });
}

tb_status tb_bundle_block_get(const tb_bundle* bundle, int64_t index, tb_bundle_block* out) {
  return guarded([&] {
    require(bundle, "a tb_bundle");
    require(out, "a place for the result");
    checkIndex(index, bundle->index.blocks.size());
    const TableBlock& block = bundle->index.blocks[static_cast<size_t>(index)];
    *out = {block.offset, block.size, block.crc32c};
  });
}

void tb_bundle_release(tb_bundle* bundle) { delete bundle; }

tb_status tb_bundle_strings(const void* data, size_t size, int64_t count, int64_t* offsets,
                            int64_t* begin, tb_bundle_place* place) {
  return placed(place, [&] {
    require(data, "the bytes of an entry");
    require(offsets, "a place for the offsets");
    require(begin, "a place for the result");
    checkCount(count);
    *begin = readBundleStrings(static_cast<const uint8_t*>(data), size, count, offsets);
  });
}
