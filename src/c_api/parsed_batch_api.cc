// Parsed batches: the private C ABI over formats/parsed_batch.h, and their torch tensors.

#include "bridge/torch_loader.h"
#include "c_api/example_handles.h"
#include "c_api/placed.h"
#include "c_api/private_api.h"
#include "core/layout.h"
#include "formats/parsed_batch.h"

using namespace tensor_bridge;  // NOLINT: every function below is one call into it

namespace {

void dropBatch(void* batch) { tb_parsed_batch_release(static_cast<tb_parsed_batch*>(batch)); }

Dtype valuesDtype(FeatureType type) {
  return type == FeatureType::kBytes   ? Dtype::kUInt8
         : type == FeatureType::kFloat ? Dtype::kFloat32
                                       : Dtype::kInt64;
}

}  // namespace

tb_status tb_example_parse(const tb_example_spec* spec, const void* base, const int64_t* begins,
                           const int64_t* sizes, int64_t count, tb_parsed_batch** out,
                           tb_bundle_place* place) {
  return placed(place, [&] {
    require(spec, "a tb_example_spec");
    require(out, "a place for the result");
    checkRecords(base, begins, sizes, count);
    auto batch = std::make_unique<ParsedBatch>();
    batch->pool = spec->pool;
    const auto* bytes = static_cast<const uint8_t*>(base);
    const std::unique_lock<std::mutex> lock(spec->mutex, std::try_to_lock);
    if (lock) {
      if (spec->scratch == nullptr) spec->scratch = std::make_unique<ExampleBatch>(spec->spec);
      parseRecords(spec->scratch.get(), bytes, begins, sizes, count, batch.get());
    } else {
      ExampleBatch scratch(spec->spec);
      parseRecords(&scratch, bytes, begins, sizes, count, batch.get());
    }
    *out = new tb_parsed_batch{std::move(batch)};
  });
}

tb_status tb_parsed_batch_info(const tb_parsed_batch* batch, tb_parsed_info* out) {
  return guarded([&] {
    checkStructSize(out, "tb_parsed_info");
    require(batch, "a tb_parsed_batch");
    const ParsedBatch& made = *batch->batch;
    out->failed = made.out_of_memory ? 2 : made.failed ? 1 : 0;
    out->fault = static_cast<int32_t>(made.fault);
    out->columns = made.failed ? 0 : static_cast<int32_t>(made.columns.size());
    out->file = made.file;
    out->offset = made.offset;
    out->count = made.count;
    out->bytes = made.bytes;
    out->skipped_records = made.skipped_records;
    out->skipped_bytes = made.skipped_bytes;
    out->nanoseconds = made.nanoseconds;
    out->message = made.message.c_str();
  });
}

tb_status tb_parsed_column_get(const tb_parsed_batch* batch, int64_t index, tb_parsed_column* out) {
  return guarded([&] {
    checkStructSize(out, "tb_parsed_column");
    require(batch, "a tb_parsed_batch");
    checkIndex(index, batch->batch->columns.size());
    const ParsedBatch::Column& column = batch->batch->columns[static_cast<size_t>(index)];
    out->type = static_cast<int32_t>(column.type);
    out->values = column.memory.values;
    out->num_values = column.elements[0];
    out->offsets = column.memory.offsets;
    out->num_offsets = column.elements[1];
    out->index = column.memory.index;
    out->num_index = column.elements[2];
    out->lengths = column.memory.lengths;
    out->num_lengths = column.elements[3];
    out->count = column.size.values;
    out->max_rows = column.size.max_rows;
    out->max_values = column.size.max_values;
  });
}

tb_status tb_py_parsed_tensor(tb_parsed_batch* batch, int64_t column, int32_t part,
                              const int64_t* shape, int32_t ndim, _object** out) {
  return guarded([&]() -> tb_status {
    require(batch, "a tb_parsed_batch");
    require(out, "a place for the result");
    if (ndim > 0) require(shape, "a shape");
    checkIndex(column, batch->batch->columns.size());
    checkIndex(part, 4);
    checkIndex(ndim, kMaxDims + 1);
    const TorchAdapter* adapter = torchAdapterInUse();
    // Returned, not thrown: it happens for each tensor, and the caller has another way.
    if (adapter == nullptr || adapter->copies) return TB_FRAMEWORK;
    const ParsedBatch::Column& from = batch->batch->columns[static_cast<size_t>(column)];
    void* const parts[] = {from.memory.values, from.memory.offsets, from.memory.index,
                           from.memory.lengths};
    int64_t count = 0;
    if (!elementCount(shape, ndim, &count) || count != from.elements[part]) {
      throwError(ErrorCode::kInvalidOption, "expected a shape of %lld elements",
                 static_cast<long long>(from.elements[part]));
    }
    const Dtype dtype = part == 0 ? valuesDtype(from.type) : Dtype::kInt64;
    TensorView view{};
    view.dl.data = parts[part];
    view.dl.device = {kDLCPU, 0};
    view.dl.ndim = ndim;
    view.dl.dtype = dtypeInfo(dtype).dl;
    view.dl.shape = const_cast<int64_t*>(shape);
    view.dtype = dtype;
    view.nbytes = count * dtypeInfo(dtype).itemsize;
    WrapSpec spec{};
    spec.action = WrapAction::kShare;
    spec.on_write = TB_ON_WRITE_ALIAS;  // nobody else has this memory
    spec.dtype = dtype;
    spec.device = view.dl.device;
    tb_parsed_batch_retain(batch);
    TensorRef ref(view, batch, dropBatch);
    _object* made = adapter->sharePython(&ref, &spec);
    if (made == nullptr) rethrowLastError();
    *out = made;
    return TB_OK;
  });
}

void tb_parsed_batch_retain(tb_parsed_batch* batch) {
  if (!isNull(batch, "a tb_parsed_batch")) batch->references.fetch_add(1);
}

void tb_parsed_batch_release(tb_parsed_batch* batch) {
  if (batch != nullptr && batch->references.fetch_sub(1) == 1) delete batch;
}
