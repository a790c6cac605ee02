#include "formats/bundle.h"

#include "core/dtype.h"
#include "core/error.h"
#include "formats/protobuf_reader.h"

namespace tensor_bridge {
namespace {

constexpr uint64_t kVersion = 1;  // kTensorBundleVersion, the same in TensorFlow since 2016

class IndexReader : private ProtobufReader {
 public:
  IndexReader(const uint8_t* data, size_t size)
      : ProtobufReader(data), end_(data + size), table_(data, size) {}

  BundleIndex read() {
    while (table_.next()) {
      data_ = table_.origin().data;
      packed_at_ = table_.origin().packed_at;
      add(table_.key(), table_.value());
    }
    if (!has_header_) fail(end_, "expected a header, got an index without one");
    result_.blocks = table_.blocks();
    return std::move(result_);
  }

 private:
  void add(const std::string& key, WireReader record) {
    if (!has_header_) {
      if (!key.empty()) fail(record.next(), "expected the header as the first record");
      readHeader(record);
      has_header_ = true;
      return;
    }
    entry_ = key;
    const std::string empty;
    if (key <= (result_.entries.empty() ? empty : result_.entries.back().key)) {
      fail(record.next(), "expected keys in ascending order");
    }
    result_.entries.push_back(readEntry(key, record));
    entry_.clear();
  }

  void readHeader(WireReader record) {
    uint64_t shards = 0;
    uint64_t endianness = 0;
    eachField(record, "the header", [&](uint32_t number, uint32_t type, WireReader* field) {
      if (number == 1 && type == WireReader::kVarint) return field->varint(&shards);
      if (number == 2 && type == WireReader::kVarint) return field->varint(&endianness);
      if (number != 3 || type != WireReader::kBytes) return field->skip(type);
      WireReader versions;
      if (!field->nested(&versions)) return false;
      checkVersion(versions, kVersion);
      return true;
    });
    if (endianness != 0) {
      failUnsupported(record.next(),
                      formatted("expected a checkpoint of a little-endian machine, got endianness "
                                "%llu; write it on such a machine",
                                static_cast<unsigned long long>(endianness)));
    }
    // A file's name has five digits for their number.
    if (shards < 1 || shards > 99999) {
      fail(record.next(), "expected 1 to 99999 data files, got %llu",
           static_cast<unsigned long long>(shards));
    }
    result_.num_shards = static_cast<int32_t>(shards);
  }

  BundleEntry readEntry(const std::string& key, WireReader record) const {
    BundleEntry entry;
    uint64_t dtype = 0;
    uint64_t shard = 0;
    uint64_t offset = 0;
    uint64_t size = 0;
    std::vector<WireReader> slices;
    eachField(record, "an entry", [&](uint32_t number, uint32_t type, WireReader* field) {
      WireReader nested;
      switch (number << 3 | type) {
        case 1 << 3 | WireReader::kVarint:
          return field->varint(&dtype);
        case 2 << 3 | WireReader::kBytes:
          if (!field->nested(&nested)) return false;
          readShape(nested, &entry.shape);
          return true;
        case 3 << 3 | WireReader::kVarint:
          return field->varint(&shard);
        case 4 << 3 | WireReader::kVarint:
          return field->varint(&offset);
        case 5 << 3 | WireReader::kVarint:
          return field->varint(&size);
        case 6 << 3 | WireReader::kFixed32:
          return field->fixed32(&entry.crc32c);
        case 7 << 3 | WireReader::kBytes:
          if (!field->nested(&nested)) return false;
          slices.push_back(nested);
          return true;
        default:
          return field->skip(type);
      }
    });
    const uint8_t* place = record.next();
    if (shard >= static_cast<uint64_t>(result_.num_shards)) {
      fail(place, "expected one of %d data files, got number %lld", result_.num_shards,
           static_cast<long long>(shard));
    }
    if (offset > INT64_MAX || size > INT64_MAX - offset) {
      fail(place, "expected a place in a data file, got %llu bytes at %llu",
           static_cast<unsigned long long>(size), static_cast<unsigned long long>(offset));
    }
    if (dtype > INT32_MAX) {
      fail(place, "expected a dtype, got number %llu", static_cast<unsigned long long>(dtype));
    }
    entry.key = key;
    entry.dtype = static_cast<int32_t>(dtype);
    entry.shard = static_cast<int32_t>(shard);
    entry.offset = static_cast<int64_t>(offset);
    entry.size = static_cast<int64_t>(size);
    // Otherwise a record of a scalar could repeat a message of two bytes any number of times.
    if (!slices.empty() && entry.shape.empty()) fail(place, "expected no slices of a scalar");
    for (const WireReader& slice : slices) readSlice(slice, entry.shape, &entry.slices);
    if (slices.empty()) checkSize(entry, place);
    return entry;
  }

  void checkSize(const BundleEntry& entry, const uint8_t* place) const {
    const Dtype dtype = dtypeFromTf(entry.dtype);
    const int64_t count = elements(entry.shape, place);
    // Each string has a length of at least a byte. An unknown dtype of a newer TensorFlow is
    // refused when it is used, so that the other entries can be read.
    const int64_t itemsize = dtype == Dtype::kUnknown ? 0 : dtypeInfo(dtype).itemsize;
    const bool fits = itemsize == 0 ? entry.size >= 0 : entry.size == count * itemsize;
    if (!fits) {
      fail(place, "expected %lld bytes for %lld elements of %s, got %lld",
           static_cast<long long>(count * itemsize), static_cast<long long>(count),
           dtypeInfo(dtype).name, static_cast<long long>(entry.size));
    }
  }

  const uint8_t* end_;
  TableReader table_;
  BundleIndex result_;
  bool has_header_ = false;
};

}  // namespace

BundleIndex readBundleIndex(const uint8_t* data, size_t size) {
  return IndexReader(data, size).read();
}

int64_t readBundleStrings(const uint8_t* data, size_t size, int64_t count, int64_t* offsets) {
  WireReader reader(data, size);
  uint64_t total = 0;
  offsets[0] = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint64_t length = 0;
    if (!reader.varint(&length) || length > size - total) {
      throw FormatError(reader.next() - data, "",
                        formatted("expected the lengths of %lld strings in %zu bytes, got another "
                                  "at string %lld",
                                  static_cast<long long>(count), size, static_cast<long long>(i)));
    }
    total += length;
    offsets[i + 1] = static_cast<int64_t>(total);
  }
  if (reader.left() < 4 || reader.left() - 4 != total) {
    throw FormatError(reader.next() - data, "",
                      formatted("expected a checksum and %llu bytes of strings, got %zu bytes",
                                static_cast<unsigned long long>(total), reader.left()));
  }
  return reader.next() - data + 4;
}

}  // namespace tensor_bridge
