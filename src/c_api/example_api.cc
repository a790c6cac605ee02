// The private C ABI of Examples over formats/example.h.

#include "c_api/example_handles.h"
#include "c_api/placed.h"
#include "c_api/private_api.h"
#include "formats/example.h"
#include "formats/example_keys.h"

using namespace tensor_bridge;  // NOLINT: every function below is one call into it

struct tb_example_batch {
  ExampleBatch batch;
};

struct tb_example_keys {
  std::vector<ExampleKey> keys;
};

namespace {

ExampleColumn columnOf(const tb_example_column& given) {
  checkStructSize(&given, "tb_example_column");
  checkCount(given.key_size);
  checkCount(given.defaults_size);
  checkCount(given.num_default_ends);
  require(given.key, "the key of a feature");
  ExampleColumn column;
  column.key.assign(given.key, static_cast<size_t>(given.key_size));
  column.in_lists = given.in_lists != 0;
  column.type = static_cast<FeatureType>(given.type);
  column.kind = static_cast<ColumnKind>(given.kind);
  column.stride = given.stride;
  column.required = given.required != 0;
  if (given.defaults_size > 0) {
    require(given.defaults, "default values");
    column.defaults.assign(static_cast<const char*>(given.defaults),
                           static_cast<size_t>(given.defaults_size));
  }
  if (given.num_default_ends > 0) {
    require(given.default_ends, "the ends of default values");
    column.default_ends.assign(given.default_ends, given.default_ends + given.num_default_ends);
  }
  return column;
}

}  // namespace

tb_status tb_example_spec_new(const tb_example_column* columns, int32_t count, int32_t sequence,
                              tb_example_spec** out) {
  return guarded([&] {
    checkCount(count);
    if (count > 0) require(columns, "the columns");
    require(out, "a place for the result");
    std::vector<ExampleColumn> made;
    made.reserve(static_cast<size_t>(count));
    for (int32_t i = 0; i < count; ++i) made.push_back(columnOf(columns[i]));
    *out = new tb_example_spec{ExampleSpec(std::move(made), sequence != 0)};
  });
}

void tb_example_spec_release(tb_example_spec* spec) { delete spec; }

tb_status tb_example_scan(const tb_example_spec* spec, const void* base, const int64_t* begins,
                          const int64_t* sizes, int64_t count, tb_example_batch** out,
                          tb_bundle_place* place) {
  return placed(place, [&] {
    require(spec, "a tb_example_spec");
    require(out, "a place for the result");
    checkRecords(base, begins, sizes, count);
    *out = new tb_example_batch{
        ExampleBatch(spec->spec, static_cast<const uint8_t*>(base), begins, sizes, count)};
  });
}

tb_status tb_example_size_get(const tb_example_batch* batch, int32_t column, tb_example_size* out) {
  return guarded([&] {
    checkStructSize(out, "tb_example_size");
    require(batch, "a tb_example_batch");
    checkIndex(column, batch->batch.spec().columns().size());
    fillSize(batch->batch.size(column), out);
  });
}

tb_status tb_example_fill(const tb_example_batch* batch, const tb_example_memory* columns,
                          int32_t count, tb_bundle_place* place) {
  return placed(place, [&] {
    require(batch, "a tb_example_batch");
    require(columns, "memory for the columns");
    const ExampleSpec& spec = batch->batch.spec();
    if (static_cast<size_t>(count) != spec.columns().size()) {
      throwError(ErrorCode::kInvalidOption, "expected memory for %zu columns, got %d",
                 spec.columns().size(), count);
    }
    for (int32_t i = 0; i < count; ++i) {
      const ColumnSize& size = batch->batch.size(i);
      const tb_example_memory& out = columns[i];
      const bool strings = spec.columns()[static_cast<size_t>(i)].type == FeatureType::kBytes;
      if (strings) require(out.offsets, "memory for the offsets of strings");
      if ((strings ? size.bytes : size.values) > 0) require(out.values, "memory for values");
      batch->batch.fill(i, {out.values, out.offsets, out.index, out.lengths});
    }
  });
}

void tb_example_batch_release(tb_example_batch* batch) { delete batch; }

tb_status tb_example_keys_read(const void* record, size_t size, tb_example_keys** out,
                               tb_bundle_place* place) {
  return placed(place, [&] {
    require(record, "the bytes of a record");
    require(out, "a place for the result");
    *out = new tb_example_keys{readExampleKeys(static_cast<const uint8_t*>(record), size)};
  });
}

tb_status tb_example_key_get(const tb_example_keys* keys, int64_t index, tb_example_key* out) {
  return guarded([&] {
    checkStructSize(out, "tb_example_key");
    require(keys, "a tb_example_keys");
    checkIndex(index, keys->keys.size());
    const ExampleKey& key = keys->keys[static_cast<size_t>(index)];
    out->in_lists = key.in_lists ? 1 : 0;
    out->type = static_cast<int32_t>(key.type);
    out->count = key.count;
    out->key_size = static_cast<int64_t>(key.key.size());
    out->key = key.key.data();
  });
}

void tb_example_keys_release(tb_example_keys* keys) { delete keys; }
