#include "formats/v1_checkpoint.h"

#include <unordered_set>
#include <utility>

#include "core/error.h"
#include "formats/protobuf_reader.h"

namespace tensor_bridge {
namespace {

// TensorFlow has not raised it since there are versions (TF_CHECKPOINT_VERSION).
constexpr uint64_t kVersion = 1;

class MetaReader : private ProtobufReader {
 public:
  explicit MetaReader(const Origin& origin) : ProtobufReader(origin.data) {
    packed_at_ = origin.packed_at;
  }

  std::vector<V1Tensor> read(WireReader record) {
    bool found = false;
    std::vector<V1Tensor> tensors;
    eachField(record, "the description", [&](uint32_t number, uint32_t type, WireReader* field) {
      if (number != 1 || type != WireReader::kBytes) return field->skip(type);
      WireReader meta;
      if (!field->nested(&meta)) return false;
      found = true;
      readMeta(meta, &tensors);
      return true;
    });
    if (!found) {
      fail(record.next(),
           "expected a description of the tensors, there is none; the name of an index file of the "
           "second format ends in .index");
    }
    return tensors;
  }

 private:
  void readMeta(WireReader message, std::vector<V1Tensor>* tensors) {
    std::unordered_set<std::string> names;
    eachField(message, "the description", [&](uint32_t number, uint32_t type, WireReader* field) {
      WireReader nested;
      if (type != WireReader::kBytes || (number != 1 && number != 2)) return field->skip(type);
      if (!field->nested(&nested)) return false;
      if (number == 2) {
        checkVersion(nested);
        return true;
      }
      tensors->push_back(readTensor(nested));
      if (!names.insert(tensors->back().name).second) {
        entry_ = tensors->back().name;
        fail(nested.next(), "expected each tensor once, got it twice");
      }
      return true;
    });
  }

  void checkVersion(WireReader message) const {
    uint64_t needed = 0;
    eachField(message, "versions", [&](uint32_t number, uint32_t type, WireReader* field) {
      if (number == 2 && type == WireReader::kVarint) return field->varint(&needed);
      return field->skip(type);
    });
    if (needed > kVersion) {
      fail(message.next(), "expected a checkpoint for readers of version %llu, got one for %llu",
           static_cast<unsigned long long>(kVersion), static_cast<unsigned long long>(needed));
    }
  }

  V1Tensor readTensor(WireReader message) {
    V1Tensor tensor;
    uint64_t dtype = 0;
    std::vector<WireReader> slices;
    eachField(message, "a tensor", [&](uint32_t number, uint32_t type, WireReader* field) {
      WireReader nested;
      if (number == 3 && type == WireReader::kVarint) return field->varint(&dtype);
      if (type != WireReader::kBytes || number > 4) return field->skip(type);
      if (!field->nested(&nested)) return false;
      if (number == 1) {
        tensor.name.assign(reinterpret_cast<const char*>(nested.next()), nested.left());
      } else if (number == 2) {
        readShape(nested, &tensor.shape);
      } else if (number == 4) {
        slices.push_back(nested);
      }
      return true;
    });
    entry_ = tensor.name;
    if (dtype > INT32_MAX) {
      fail(message.next(), "expected a dtype, got number %llu",
           static_cast<unsigned long long>(dtype));
    }
    if (slices.empty() || (tensor.shape.empty() && slices.size() != 1)) {
      fail(message.next(), "expected slices, of a scalar one, got %zu", slices.size());
    }
    tensor.dtype = static_cast<int32_t>(dtype);
    tensor.num_slices = static_cast<int32_t>(slices.size());
    for (const WireReader& slice : slices) readSlice(slice, tensor.shape, &tensor.slices);
    entry_.clear();
    return tensor;
  }
};

// The TensorProto in the record of a slice.
class RecordReader : private ProtobufReader {
 public:
  explicit RecordReader(const Origin& origin) : ProtobufReader(origin.data) {
    packed_at_ = origin.packed_at;
  }

  WireReader read(WireReader record) const { return only(only(record, 2), 3); }

 private:
  WireReader only(WireReader message, uint32_t wanted) const {
    int found = 0;
    WireReader nested;
    eachField(message, "a slice", [&](uint32_t number, uint32_t type, WireReader* field) {
      if (number != wanted || type != WireReader::kBytes) return field->skip(type);
      ++found;
      return field->nested(&nested);
    });
    if (found != 1) fail(message.next(), "expected a slice with values, got %d of them", found);
    return nested;
  }
};

}  // namespace

V1Index readV1Index(const uint8_t* data, size_t size) {
  TableReader table(data, size);
  if (!table.next() || !table.key().empty()) {
    throw FormatError(0, "", "expected a description of the tensors as the first record");
  }
  return {MetaReader(table.origin()).read(table.value()), table.blocks()};
}

V1Slice::V1Slice(const uint8_t* data, size_t size, std::string_view key, int32_t dtype,
                 int64_t count)
    : table_(data, size) {
  if (!table_.seek(key)) throw FormatError(-1, "", "expected a record of the slice, there is none");
  values_.dtype = dtype;
  values_.count = count;
  values_.message = RecordReader(table_.origin()).read(table_.value());
  const int64_t found = countValues();
  if (found != count) {
    throw FormatError(table_.origin().offsetOf(values_.message.next()), "",
                      formatted("expected %lld values, got %lld", static_cast<long long>(count),
                                static_cast<long long>(found)));
  }
}

TensorExtent V1Slice::place() const {
  if (table_.origin().packed_at >= 0) return {};
  return {table_.origin().offsetOf(values_.message.next()),
          static_cast<int64_t>(values_.message.left())};
}

TensorExtent V1Slice::extent() const {
  if (table_.origin().packed_at >= 0) return {};
  return findTensorValues(table_.origin().data, values_, "");
}

int64_t V1Slice::countValues() const {
  const Origin& origin = table_.origin();
  try {
    return countTensorValues(origin.data, values_, "");
  } catch (const FormatError& e) {
    if (origin.packed_at < 0) throw;
    throw FormatError(origin.packed_at, e.entry(), e.what());
  }
}

}  // namespace tensor_bridge
