// Iterators of tf.data: the C ABI over bridge/dataset_stream.h.

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "bridge/dataset_stream.h"
#include "bridge/torch_loader.h"
#include "c_api/barrier.h"
#include "c_api/eager.h"
#include "c_api/gil.h"
#include "c_api/private_api.h"

using namespace tensor_bridge;  // NOLINT: every function below is one call into it

struct tb_data_iterator {
  std::unique_ptr<DataStream> stream;
};

namespace {

// In a forked child the thread does not exist, and a mutex that it held stays locked.
DataStream& streamOf(const tb_data_iterator* iterator) {
  require(iterator, "a tb_data_iterator");
  if (!iterator->stream->isHere()) {
    throwError(ErrorCode::kInvalidHandle,
               "this process was forked from the one that made the iterator, where its thread "
               "and TensorFlow's are; iterate there");
  }
  return *iterator->stream;
}

DataSlot& slotAt(tb_data_element* element, int32_t slot) {
  require(element, "a tb_data_element");
  if (slot < 0 || static_cast<size_t>(slot) >= element->slots.size()) {
    throwError(ErrorCode::kInvalidOption, "expected a slot from 0 to %zu, got %d",
               element->slots.size() - 1, slot);
  }
  return element->slots[static_cast<size_t>(slot)];
}

bool hasSlot(const tb_data_element* element, int32_t slot) {
  return !isNull(element, "a tb_data_element") && slot >= 0 &&
         static_cast<size_t>(slot) < element->slots.size();
}

}  // namespace

tb_status tb_py_data_open(_object* resource, void* context, const tb_data_options* options,
                          tb_data_iterator** out) {
  return guarded([&] {
    require(out, "a place for the result");
    checkStructSize(options, "tb_data_options");
    require(context, "a TFE_Context");
    if (options->prefetch < 0) {
      throwError(ErrorCode::kInvalidOption, "prefetch must be at least 0, got %d",
                 options->prefetch);
    }
    const TfApi& api = requireEagerApi();
    static_cast<void>(torchAdapter());
    DataPlan plan = makeDataPlan(*options);
    std::vector<int> dtypes;
    for (const tb_data_component& component : plan.components) {
      dtypes.push_back(component.tf_dtype);
    }
    auto source = std::make_unique<DatasetIterator>(api, static_cast<TFE_Context*>(context),
                                                    handleOf(api, resource), std::move(dtypes));
    auto iterator = std::make_unique<tb_data_iterator>();
    iterator->stream = std::make_unique<DataStream>(std::move(source), std::move(plan),
                                                    options->prefetch, options->adaptive != 0);
    *out = iterator.release();
  });
}

tb_status tb_py_data_next(tb_data_iterator* iterator, int64_t wait_ms, tb_data_outcome* outcome,
                          tb_data_element** out) {
  return guarded([&] {
    DataStream& stream = streamOf(iterator);
    checkStructSize(outcome, "tb_data_outcome");
    require(out, "a place for the element");
    DataItem item;
    DataStream::Wait wait;
    {
      GilRelease without_gil(!stream.hasItem());
      wait = stream.next(std::chrono::milliseconds(wait_ms), &item);
    }
    if (wait == DataStream::Wait::kTimeout) {
      outcome->state = TB_DATA_WAITING;
      return;
    }
    outcome->ordinal = item.ordinal;
    outcome->tf_code = item.tf_code;
    outcome->state = item.is_end() ? TB_DATA_END : TB_DATA_ELEMENT;
    if (item.status != TB_OK) {
      throw Error(static_cast<ErrorCode>(item.status), item.message);
    }
    *out = item.element.release();
  });
}

tb_status tb_py_data_pause(tb_data_iterator* iterator) {
  return guarded([&] {
    DataStream& stream = streamOf(iterator);
    GilRelease without_gil(true);
    stream.pause();
  });
}

void tb_py_data_resume(tb_data_iterator* iterator) {
  if (iterator != nullptr && iterator->stream->isHere()) iterator->stream->resume();
}

void tb_py_data_cancel(tb_data_iterator* iterator) {
  if (iterator == nullptr || !iterator->stream->isHere()) return;
  // Cancelling may run code that needs the GIL.
  GilRelease without_gil(true);
  iterator->stream->cancel();
}

tb_status tb_data_stats_get(const tb_data_iterator* iterator, tb_data_stats* out) {
  return guarded([&] {
    const DataStream& stream = streamOf(iterator);
    checkStructSize(out, "tb_data_stats");
    *out = stream.stats();
  });
}

void tb_py_data_close(tb_data_iterator* iterator, int64_t wait_ms) {
  if (iterator == nullptr || !iterator->stream->isHere()) return;
  GilRelease without_gil(true);
  iterator->stream->close(std::chrono::milliseconds(wait_ms));
  delete iterator;
}

tb_status tb_py_data_slot(tb_data_element* element, int32_t slot, _object** out) {
  return guarded([&] {
    require(out, "a place for the result");
    DataSlot& found = slotAt(element, slot);
    if (found.handle == nullptr) {
      if (found.tensor == nullptr) {
        throwError(ErrorCode::kInvalidHandle, "the slot holds no value, or it was taken");
      }
      // The adapter always takes it over.
      _object* object = torchAdapter().toPython(std::exchange(found.tensor, nullptr));
      if (object == nullptr) rethrowLastError();
      *out = object;
      return;
    }
    const TfApi& api = requireEagerApi();
    if (api.EagerTensorFromHandle == nullptr) throwNoPython();
    *out = eagerTensor(api, std::move(found.handle));
  });
}

const int64_t* tb_data_slot_shape(const tb_data_element* element, int32_t slot, int32_t* ndim) {
  if (isNull(ndim, "a place for the number of dimensions") || !hasSlot(element, slot)) {
    return nullptr;
  }
  const std::vector<int64_t>& shape = element->slots[static_cast<size_t>(slot)].shape;
  *ndim = static_cast<int32_t>(shape.size());
  // A scalar has a shape too, but no size to point to.
  static const int64_t none = 0;
  return shape.empty() ? &none : shape.data();
}

const tb_strings* tb_data_slot_strings(const tb_data_element* element, int32_t slot) {
  if (!hasSlot(element, slot)) return nullptr;
  return element->slots[static_cast<size_t>(slot)].strings.get();
}

void tb_data_element_release(tb_data_element* element) { delete element; }
