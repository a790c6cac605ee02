// The private C ABI of files of records over formats/tfrecord.h.

#include <cstring>

#include "c_api/placed.h"
#include "c_api/private_api.h"
#include "formats/tfrecord.h"

using namespace tensor_bridge;  // NOLINT: every function below is one call into it

tb_status tb_records_scan(const void* data, int64_t size, tb_record_scan* scan, int64_t most,
                          int64_t* begins, int64_t* sizes, int64_t* count) {
  return guarded([&] {
    checkStructSize(scan, "tb_record_scan");
    checkCount(size);
    checkCount(most);
    checkCount(scan->next);
    if (size > 0) require(data, "the bytes of a file");
    require(begins, "memory for where records begin");
    require(sizes, "memory for the sizes of records");
    require(count, "a place for the count");
    RecordScan state;
    state.verify = scan->verify != 0;
    state.skip = scan->skip != 0;
    state.final = scan->final != 0;
    state.searching = scan->searching != 0;
    state.next = scan->next;
    state.budget = scan->budget;
    *count = state.scan(static_cast<const uint8_t*>(data), size, most, begins, sizes);
    scan->next = state.next;
    scan->searching = state.searching ? 1 : 0;
    scan->budget = state.budget;
    scan->fault = static_cast<int32_t>(state.fault);
    scan->fault_at = state.fault_at;
    scan->skipped_records = state.skipped_records;
    scan->skipped_bytes = state.skipped_bytes;
  });
}

tb_status tb_records_at(const tb_record_files* files, const int64_t* numbers, int64_t count,
                        int32_t verify, const void* base, int64_t* begins, int64_t* sizes,
                        tb_record_stop* stop) {
  return guarded([&] {
    checkStructSize(files, "tb_record_files");
    checkStructSize(stop, "tb_record_stop");
    checkCount(files->count);
    checkCount(count);
    require(files->data, "the memory of files");
    require(files->sizes, "the sizes of files");
    require(files->ends, "the ends of files");
    require(files->offsets, "the offsets of records");
    require(numbers, "the numbers of records");
    require(begins, "memory for where records begin");
    require(sizes, "memory for the sizes of records");
    const RecordFiles found{reinterpret_cast<const uint8_t* const*>(files->data), files->sizes,
                            files->ends, files->count, files->offsets};
    const int64_t total = files->count == 0 ? 0 : files->ends[files->count - 1];
    stop->file = -1;
    stop->fault = 0;
    for (int64_t i = 0; i < count; ++i) checkIndex(numbers[i], static_cast<size_t>(total));
    RecordPlace next{};
    if (count > 0) next = placeOf(found, numbers[0]);
    for (int64_t i = 0; i < count; ++i) {
      const RecordPlace place = next;
      const uint8_t* data = found.data[place.file];
      if (i + 1 < count) next = placeOf(found, numbers[i + 1]);
      stop->done = i;
      stop->file = place.file;
      if (data == nullptr) return;
      // Only prefetched, never read: it is meaningless if the file is not in memory.
      const void* ahead = i + 1 < count ? found.data[next.file] + next.offset : nullptr;
      const RecordAt record = recordAt(found, place, verify != 0, ahead);
      stop->fault = static_cast<int32_t>(record.fault);
      if (record.fault != RecordFault::kNone) return;
      begins[i] = (data - static_cast<const uint8_t*>(base)) + place.offset + kRecordHeader;
      sizes[i] = record.size;
    }
    stop->done = count;
    stop->file = -1;
  });
}

tb_status tb_records_gather(const void* base, const int64_t* begins, const int64_t* sizes,
                            int64_t count, void* out, int64_t* offsets) {
  return guarded([&] {
    checkRecords(base, begins, sizes, count);
    require(out, "memory for the records");
    require(offsets, "memory for the offsets");
    auto* next = static_cast<uint8_t*>(out);
    offsets[0] = 0;
    for (int64_t i = 0; i < count; ++i) {
      if (sizes[i] > 0) {
        std::memcpy(next, static_cast<const uint8_t*>(base) + begins[i],
                    static_cast<size_t>(sizes[i]));
      }
      next += sizes[i];
      offsets[i + 1] = offsets[i] + sizes[i];
    }
  });
}

tb_status tb_records_frame(const void* base, const int64_t* begins, const int64_t* sizes,
                           int64_t count, void* out) {
  return guarded([&] {
    checkRecords(base, begins, sizes, count);
    require(out, "memory for the file");
    frameRecords(static_cast<const uint8_t*>(base), begins, sizes, count,
                 static_cast<uint8_t*>(out));
  });
}
