#include "bridge/dataset_element.h"

#include "adapters/tensorflow/reader.h"
#include "adapters/tensorflow/strings.h"
#include "bridge/to_torch.h"
#include "bridge/torch_loader.h"
#include "core/error.h"

namespace tensor_bridge {
namespace {

// tensorflow/core/framework/types.proto
constexpr int kTfString = 7;

size_t slotsOf(const tb_data_component& component) {
  switch (component.kind) {
    case TB_DATA_STRINGS:
      return 2;
    case TB_DATA_RAGGED:
      return static_cast<size_t>(component.ragged_rank) +
             (component.values_dtype == kTfString ? 2 : 1);
    case TB_DATA_SPARSE:
      return 3;
    default:
      return 1;
  }
}

class ElementFiller {
 public:
  ElementFiller(const DataPlan& plan, DatasetIterator* iterator, tb_data_element* element)
      : plan_(plan), iterator_(iterator), api_(iterator->api()), element_(element) {}

  void component(const tb_data_component& component, HandleList* outputs, size_t i) {
    switch (component.kind) {
      case TB_DATA_DENSE:
        tensor((*outputs)[i], plan_.values, plan_.defaults);
        break;
      case TB_DATA_STRINGS:
        strings((*outputs)[i]);
        break;
      case TB_DATA_RAGGED: {
        HandleList parts(api_);
        iterator_->decodeRagged((*outputs)[i], component.ragged_rank, component.values_dtype,
                                component.splits_dtype, &parts);
        if (component.values_dtype == kTfString) {
          strings(parts[0]);
        } else {
          tensor(parts[0], plan_.values, plan_.defaults);
        }
        for (size_t k = 1; k < parts.size(); ++k)
          tensor(parts[k], plan_.structural, plan_.defaults);
        break;
      }
      case TB_DATA_SPARSE: {
        HandleList parts(api_);
        iterator_->decodeSparse((*outputs)[i], component.values_dtype, &parts);
        tensor(parts[0], plan_.structural, plan_.defaults);
        tensor(parts[1], plan_.values, plan_.defaults);
        tensor(parts[2], plan_.structural, plan_.defaults);
        break;
      }
      default:
        element_->slots[slot_++].handle = outputs->take(i);
    }
  }

 private:
  void tensor(TFE_TensorHandle* handle, const tb_convert_options& options, bool defaults) {
    int64_t shape[kMaxDims];
    TensorRef ref;
    if (!api_.isReady(handle) || !exportReadyHandle(api_, handle, shape, &ref)) {
      exportHandle(api_, handle, shape, &ref);
    }
    DataSlot& slot = element_->slots[slot_++];
    element_->nbytes += ref.nbytes;
    const TorchAdapter& adapter = torchAdapter();
    const WrapSpec* common = defaults ? commonPlan(ref, adapter) : nullptr;
    if (common != nullptr) {
      if (adapter.wrap(&ref, common, &slot.tensor) != TB_OK) rethrowLastError();
    } else {
      slot.tensor = convert(&ref, options, Source::kTensor);
    }
  }

  void strings(TFE_TensorHandle* handle) {
    int64_t shape[kMaxDims];
    TensorRef ref;
    exportStrings(api_, handle, shape, &ref);
    StringsPointer found = stringsOfTf(std::move(ref));
    DataSlot& slot = element_->slots[slot_];
    slot_ += 2;
    if (plan_.string_lists) {
      element_->nbytes += measure(*found, nullptr);
      slot.strings = std::move(found);
      return;
    }
    const TorchStrings converted = stringsToTorch(*found, plan_.values);
    slot.tensor = converted.bytes;
    (&slot)[1].tensor = converted.offsets;
    slot.shape = found->shape;
    TorchFacts facts;
    torchAdapter().describe(slot.tensor, /*hold=*/false, &facts);
    element_->nbytes += facts.nbytes + 8 * (found->count + 1);
  }

  const DataPlan& plan_;
  DatasetIterator* iterator_;
  const TfApi& api_;
  tb_data_element* element_;
  size_t slot_ = 0;
};

}  // namespace

DataPlan makeDataPlan(const tb_data_options& options) {
  DataPlan plan;
  plan.string_lists = options.string_lists != 0;
  plan.defaults = options.convert == nullptr;
  plan.values = checkedOptions(options.convert);
  if (plan.values.num_scales != 0 || plan.values.has_device != 0) {
    throwError(ErrorCode::kInvalidOption,
               "elements of a dataset are converted without scale, zero_point and device");
  }
  plan.structural = defaultOptions();
  plan.structural.copy = plan.values.copy;
  if (plan.values.on_write != TB_ON_WRITE_ALIAS) plan.structural.on_write = plan.values.on_write;
  if (options.num_components < 0 || (options.num_components > 0 && options.components == nullptr)) {
    throwError(ErrorCode::kInvalidOption, "expected the components of the element, got none");
  }
  for (int32_t i = 0; i < options.num_components; ++i) {
    const tb_data_component& component = options.components[i];
    if (component.kind < TB_DATA_DENSE || component.kind > TB_DATA_OPAQUE ||
        component.ragged_rank < (component.kind == TB_DATA_RAGGED ? 1 : 0)) {
      throwError(ErrorCode::kInvalidOption,
                 "component %d: expected one of TB_DATA_*, and a ragged rank of at least 1 for a "
                 "ragged one; got %d and %d",
                 i, component.kind, component.ragged_rank);
    }
    plan.components.push_back(component);
    plan.num_slots += slotsOf(component);
  }
  return plan;
}

void fillElement(const DataPlan& plan, DatasetIterator* iterator, HandleList* outputs,
                 tb_data_element* element) {
  element->slots.resize(plan.num_slots);
  ElementFiller filler(plan, iterator, element);
  for (size_t i = 0; i < plan.components.size(); ++i) {
    filler.component(plan.components[i], outputs, i);
  }
}

}  // namespace tensor_bridge

tb_data_element::~tb_data_element() {
  using namespace tensor_bridge;  // NOLINT: a member of a C type
  for (DataSlot& slot : slots) {
    if (slot.tensor != nullptr) torchAdapter().release(slot.tensor);
  }
}
