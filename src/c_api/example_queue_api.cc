// The private C ABI of queues of batches over formats/example_queue.h.

#include <atomic>

#include "c_api/example_handles.h"
#include "c_api/placed.h"
#include "c_api/private_api.h"
#include "formats/example_queue.h"

using namespace tensor_bridge;  // NOLINT: every function below is one call into it

struct tb_example_queue {
  ExampleQueue queue;
};

struct tb_parsed_batch {
  std::unique_ptr<ParsedBatch> batch;
  std::atomic<int64_t> references{1};
};

tb_status tb_example_queue_new(const tb_example_spec* spec, const tb_record_files* files,
                               int32_t verify, int32_t skip, int32_t threads,
                               tb_example_queue** out) {
  return guarded([&] {
    checkStructSize(files, "tb_record_files");
    require(out, "a place for the result");
    checkCount(files->count);
    if (threads < 1) {
      throwError(ErrorCode::kInvalidOption, "expected at least one thread, got %d", threads);
    }
    if (files->count > 0) {
      require(files->data, "the files");
      require(files->sizes, "the sizes of files");
      require(files->ends, "the numbers of records");
      require(files->offsets, "the places of records");
    }
    const RecordFiles all{reinterpret_cast<const uint8_t* const*>(files->data), files->sizes,
                          files->ends, files->count, files->offsets};
    *out = new tb_example_queue{
        {spec == nullptr ? nullptr : &spec->spec, all, {verify != 0, skip != 0, threads}}};
  });
}

tb_status tb_example_queue_submit(tb_example_queue* queue, const int64_t* numbers, int64_t count) {
  return guarded([&] {
    require(queue, "a tb_example_queue");
    checkCount(count);
    require(numbers, "the numbers of records");
    queue->queue.submit(numbers, count);
  });
}

int64_t tb_example_queue_ready(tb_example_queue* queue) {
  return isNull(queue, "a tb_example_queue") ? 0 : queue->queue.ready();
}

tb_status tb_example_queue_take(tb_example_queue* queue, tb_parsed_batch** out) {
  return guarded([&] {
    require(queue, "a tb_example_queue");
    require(out, "a place for the result");
    std::unique_ptr<ParsedBatch> batch = queue->queue.take();
    if (batch == nullptr) throwError(ErrorCode::kInvalidOption, "no batch was asked for");
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

void tb_parsed_batch_retain(tb_parsed_batch* batch) {
  if (!isNull(batch, "a tb_parsed_batch")) batch->references.fetch_add(1);
}

void tb_parsed_batch_release(tb_parsed_batch* batch) {
  if (batch != nullptr && batch->references.fetch_sub(1) == 1) delete batch;
}

void tb_example_queue_release(tb_example_queue* queue) { delete queue; }
