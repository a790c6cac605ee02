// The private C ABI of queues of batches over formats/example_queue.h.

#include "c_api/example_handles.h"
#include "c_api/placed.h"
#include "c_api/private_api.h"
#include "formats/example_queue.h"

using namespace tensor_bridge;  // NOLINT: every function below is one call into it

struct tb_example_queue {
  ExampleQueue queue;
};

namespace {

void checkAtLeast(int64_t least, int64_t got, const char* what) {
  if (got < least) {
    throwError(ErrorCode::kInvalidOption, "expected %s of at least %lld, got %lld", what,
               static_cast<long long>(least), static_cast<long long>(got));
  }
}

}  // namespace

tb_status tb_example_queue_new(const tb_example_spec* spec, const tb_record_files* files,
                               const tb_queue_options* options, tb_example_queue** out) {
  return guarded([&] {
    checkStructSize(files, "tb_record_files");
    checkStructSize(options, "tb_queue_options");
    require(out, "a place for the result");
    checkCount(files->count);
    checkCount(options->num_numbers);
    checkAtLeast(1, options->threads, "a number of threads");
    checkAtLeast(1, options->batch_size, "a batch size");
    checkAtLeast(1, options->ahead, "a number of batches");
    checkAtLeast(0, options->first, "a first record");
    checkAtLeast(1, options->step, "a step");
    if (files->count > 0) {
      require(files->data, "the files");
      require(files->sizes, "the sizes of files");
    }
    if (options->numbers != nullptr) {
      require(files->ends, "the numbers of records");
      require(files->offsets, "the places of records");
      const int64_t total = files->count == 0 ? 0 : files->ends[files->count - 1];
      for (int64_t i = 0; i < options->num_numbers; ++i) {
        checkIndex(options->numbers[i], static_cast<size_t>(total));
      }
    }
    const RecordFiles all{reinterpret_cast<const uint8_t* const*>(files->data), files->sizes,
                          files->ends, files->count, files->offsets};
    const RecordOrder order{options->numbers, options->num_numbers, options->first, options->step};
    *out = new tb_example_queue{{spec == nullptr ? nullptr : &spec->spec,
                                 all,
                                 order,
                                 {options->verify != 0, options->skip != 0, options->drop_last != 0,
                                  options->threads, options->batch_size, options->ahead}}};
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
    *out = batch == nullptr ? nullptr : new tb_parsed_batch{std::move(batch)};
  });
}

void tb_example_queue_release(tb_example_queue* queue) { delete queue; }
