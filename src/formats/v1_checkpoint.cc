#include "formats/v1_checkpoint.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "core/error.h"
#include "formats/protobuf_reader.h"

namespace tensor_bridge {
namespace {

constexpr uint64_t kVersion = 1;  // TF_CHECKPOINT_VERSION, which TensorFlow has never raised

// An ordinary block takes 256 KB, or contains one record that is larger. A tensor is read once or
// twice, to check it and to use it.
constexpr int kMaxUnpackings = 8;

class MetaReader : private ProtobufReader {
 public:
  MetaReader(const Origin& origin, uint64_t max_key_bytes)
      : ProtobufReader(origin.data), max_key_bytes_(max_key_bytes) {
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
        checkVersion(nested, kVersion);
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
    // The key of each slice contains the name, which this message has only once.
    key_bytes_ += tensor.name.size() * slices.size();
    if (key_bytes_ > max_key_bytes_) {
      fail(message.next(), "expected slices with keys of at most %llu bytes in all, got more",
           static_cast<unsigned long long>(max_key_bytes_));
    }
    tensor.dtype = static_cast<int32_t>(dtype);
    tensor.num_slices = static_cast<int32_t>(slices.size());
    for (const WireReader& slice : slices) readSlice(slice, tensor.shape, &tensor.slices);
    entry_.clear();
    return tensor;
  }

  uint64_t max_key_bytes_;
  uint64_t key_bytes_ = 0;
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
  return {MetaReader(table.origin(), table.maxKeyBytes()).read(table.value()), table.blocks()};
}

void V1Records::walk(const uint8_t* data, size_t size) {
  TableReader table(data, size);
  while (table.next()) {
    const size_t key_begin = keys_.size();
    if (!places_.empty() && table.key() <= keyOf(places_.back())) {
      throw FormatError(table.origin().offsetOf(table.value().next()), "",
                        "expected keys in ascending order");
    }
    keys_ += table.key();
    if (blocks_.empty() || blocks_.back().handle.offset != table.block().offset) {
      blocks_.push_back({table.block(), table.origin().packed_at >= 0, 0, nullptr});
    }
    places_.push_back({key_begin, table.key().size(), blocks_.size() - 1,
                       static_cast<size_t>(table.value().next() - table.origin().data),
                       table.value().left()});
  }
}

std::shared_ptr<const BlockReader> V1Records::unpacked(const uint8_t* data, Block* block) {
  if (block->kept != nullptr) return block->kept;
  auto opened = std::make_shared<const BlockReader>(openBlock(data, block->handle));
  if (++block->opened >= kMaxUnpackings) block->kept = opened;
  return opened;
}

V1Records::Record V1Records::find(const uint8_t* data, size_t size, std::string_view key) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!walked_) {
    keys_.clear();
    places_.clear();
    blocks_.clear();
    walk(data, size);
    walked_ = true;
  }
  const auto place =
      std::lower_bound(places_.begin(), places_.end(), key,
                       [&](const Place& a, std::string_view b) { return keyOf(a) < b; });
  if (place == places_.end() || keyOf(*place) != key) {
    throw FormatError(-1, "", "expected a record of the slice, there is none");
  }
  Block& block = blocks_[place->block];
  if (!block.packed) return {WireReader(data + place->begin, place->size), Origin{data}, nullptr};
  auto opened = unpacked(data, &block);
  const Origin origin = opened->origin();
  // The file may have changed meanwhile.
  if (origin.packed_at < 0 || place->begin > opened->unpackedBytes() ||
      place->size > opened->unpackedBytes() - place->begin) {
    throw FormatError(static_cast<int64_t>(block.handle.offset), "",
                      "expected the block that was there before; the file has changed");
  }
  return {WireReader(origin.data + place->begin, place->size), origin, std::move(opened)};
}

V1Slice::V1Slice(V1Records* records, const uint8_t* data, size_t size, std::string_view key,
                 int32_t dtype, int64_t count)
    : record_(records->find(data, size, key)) {
  values_.dtype = dtype;
  values_.count = count;
  values_.message = RecordReader(record_.origin).read(record_.value);
  const int64_t found = countValues();
  if (found != count) {
    throw FormatError(record_.origin.offsetOf(values_.message.next()), "",
                      formatted("expected %lld values, got %lld", static_cast<long long>(count),
                                static_cast<long long>(found)));
  }
}

TensorExtent V1Slice::place() const {
  if (record_.origin.packed_at >= 0) return {};
  return {record_.origin.offsetOf(values_.message.next()),
          static_cast<int64_t>(values_.message.left())};
}

TensorExtent V1Slice::extent() const {
  if (record_.origin.packed_at >= 0) return {};
  return findTensorValues(record_.origin.data, values_, "");
}

int64_t V1Slice::countValues() const {
  const Origin& origin = record_.origin;
  try {
    return countTensorValues(origin.data, values_, "");
  } catch (const FormatError& e) {
    if (origin.packed_at < 0) throw;
    throw FormatError(origin.packed_at, e.entry(), e.what());
  }
}

}  // namespace tensor_bridge
