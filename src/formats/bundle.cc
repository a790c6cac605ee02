#include "formats/bundle.h"

#include "core/dtype.h"
#include "core/error.h"
#include "formats/protobuf_reader.h"
#include "formats/wire.h"

namespace tensor_bridge {
namespace {

// The table format is LevelDB's: blocks of records with shared key prefixes, an index block of
// handles, and a footer of two handles and a magic number.
constexpr size_t kFooterSize = 48;
constexpr uint64_t kMagic = 0xdb4775248b80fb57;
constexpr size_t kTrailerSize = 5;  // compression, checksum
// A key is stored in full once in 16 records or fewer, so that honest keys take at most 16 times
// the file. Without a limit a record of 4 bytes could repeat a key of any length.
constexpr uint64_t kMaxKeysPerByte = 64;

struct Handle {
  uint64_t offset = 0;
  uint64_t size = 0;
};

class IndexReader : private ProtobufReader {
 public:
  IndexReader(const uint8_t* data, size_t size) : ProtobufReader(data), size_(size) {}

  BundleIndex read() {
    if (size_ < kFooterSize)
      fail(data_, "expected an index of %zu bytes or more, got %zu", kFooterSize, size_);
    const uint8_t* footer = data_ + size_ - kFooterSize;
    WireReader magic(footer + kFooterSize - 8, 8);
    uint64_t number = 0;
    if (!magic.fixed64(&number) || number != kMagic) {
      fail(footer + kFooterSize - 8,
           "expected the magic number of a TensorFlow checkpoint index, got %016llx",
           static_cast<unsigned long long>(number));
    }
    WireReader reader(footer, kFooterSize - 8);
    const Handle metaindex = readHandleOrFail(&reader);
    const Handle index = readHandleOrFail(&reader);
    // It is empty, and has a checksum all the same.
    static_cast<void>(openBlock(metaindex, footer));
    const WireReader block = openBlock(index, footer);
    uint64_t end_of_last = 0;
    readBlock(block, [&](const std::string&, WireReader value) {
      const uint8_t* place = value.next();
      const Handle handle = readHandleOrFail(&value);
      // Blocks that overlap would let a small file say the same records any number of times.
      if (handle.offset < end_of_last) {
        fail(place,
             "expected blocks one behind the other, got one at %llu before the end of "
             "another at %llu",
             static_cast<unsigned long long>(handle.offset),
             static_cast<unsigned long long>(end_of_last));
      }
      const WireReader records = openBlock(handle, place);
      end_of_last = handle.offset + handle.size + kTrailerSize;
      readBlock(records, [&](const std::string& key, WireReader record) { add(key, record); });
    });
    if (!has_header_) fail(footer, "expected a header, got an index without one");
    return std::move(result_);
  }

 private:
  static bool readHandle(WireReader* reader, Handle* out) {
    return reader->varint(&out->offset) && reader->varint(&out->size);
  }

  Handle readHandleOrFail(WireReader* reader) const {
    const uint8_t* place = reader->next();
    Handle handle;
    if (!readHandle(reader, &handle)) fail(place, "expected offset and size of a block");
    return handle;
  }

  // The records of a block, and its checksum remembered.
  WireReader openBlock(const Handle& handle, const uint8_t* place) {
    const uint64_t space = size_ - kFooterSize;
    if (handle.offset > space || space - handle.offset < kTrailerSize ||
        handle.size > space - handle.offset - kTrailerSize) {
      fail(place, "expected a block inside the %zu bytes of the file, got %llu bytes at %llu",
           size_, static_cast<unsigned long long>(handle.size),
           static_cast<unsigned long long>(handle.offset));
    }
    const uint8_t* begin = data_ + handle.offset;
    const uint8_t compression = begin[handle.size];
    if (compression != 0) {
      fail(begin + handle.size,
           "expected a block without compression, as TensorFlow writes them, got compression %d",
           compression);
    }
    uint32_t crc = 0;
    WireReader trailer(begin + handle.size + 1, 4);
    static_cast<void>(trailer.fixed32(&crc));
    result_.blocks.push_back(
        {static_cast<int64_t>(handle.offset), static_cast<int64_t>(handle.size) + 1, crc});
    uint32_t restarts = 0;
    if (handle.size >= 4) {
      WireReader last(begin + handle.size - 4, 4);
      static_cast<void>(last.fixed32(&restarts));
    }
    if (handle.size < 4 || restarts > (handle.size - 4) / 4) {
      fail(begin, "expected a block that ends with its restart points, got %llu bytes with %u",
           static_cast<unsigned long long>(handle.size), restarts);
    }
    return WireReader(begin, static_cast<size_t>(handle.size) - 4 - size_t{4} * restarts);
  }

  template <typename Visit>
  void readBlock(WireReader block, Visit visit) {
    std::string key;
    while (!block.done()) {
      const uint8_t* place = block.next();
      uint32_t shared = 0;
      uint32_t own = 0;
      uint32_t length = 0;
      const uint8_t* suffix = nullptr;
      const uint8_t* value = nullptr;
      if (!block.varint32(&shared) || !block.varint32(&own) || !block.varint32(&length) ||
          shared > key.size() || !block.bytes(own, &suffix) || !block.bytes(length, &value)) {
        fail(place, "expected a record, got lengths that do not fit its block");
      }
      key_bytes_ += uint64_t{shared} + own;
      if (key_bytes_ > kMaxKeysPerByte * size_) {
        fail(place, "expected keys of at most %llu times the file, got more",
             static_cast<unsigned long long>(kMaxKeysPerByte));
      }
      key.resize(shared);
      key.append(reinterpret_cast<const char*>(suffix), own);
      visit(key, WireReader(value, length));
    }
  }

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
      return field->skip(type);
    });
    if (endianness != 0) {
      fail(record.next(), "expected a checkpoint of a little-endian machine, got endianness %llu",
           static_cast<unsigned long long>(endianness));
    }
    // Their number is written with five digits in a file's name.
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
    for (const WireReader& slice : slices) readSlice(slice, &entry);
    if (slices.empty()) checkSize(entry, place);
    return entry;
  }

  void readSlice(WireReader message, BundleEntry* entry) const {
    size_t axis = 0;
    const uint8_t* place = message.next();
    eachField(message, "a slice", [&](uint32_t number, uint32_t type, WireReader* field) {
      if (number != 1 || type != WireReader::kBytes) return field->skip(type);
      WireReader extent;
      if (!field->nested(&extent)) return false;
      uint64_t start = 0;
      uint64_t length = 0;
      bool whole = true;
      eachField(extent, "an extent", [&](uint32_t part, uint32_t part_type, WireReader* value) {
        if (part == 1 && part_type == WireReader::kVarint) return value->varint(&start);
        if (part == 2 && part_type == WireReader::kVarint) {
          whole = false;
          return value->varint(&length);
        }
        return value->skip(part_type);
      });
      const uint64_t bound =
          axis < entry->shape.size() ? static_cast<uint64_t>(entry->shape[axis]) : 0;
      if (axis == entry->shape.size() || start > bound || (!whole && length > bound - start) ||
          (whole && start != 0)) {
        fail(extent.next(), "expected a slice inside the shape, got %lld from %lld on axis %zu",
             whole ? -1LL : static_cast<long long>(length), static_cast<long long>(start), axis);
      }
      entry->slices.push_back(static_cast<int64_t>(start));
      entry->slices.push_back(whole ? -1 : static_cast<int64_t>(length));
      ++axis;
      return true;
    });
    if (axis != entry->shape.size()) {
      fail(place, "expected a slice with %zu extents, got %zu", entry->shape.size(), axis);
    }
    // Else a record could repeat a message of two bytes as often as it likes, for a scalar.
    if (axis == 0) fail(place, "expected no slices of a scalar");
  }

  void checkSize(const BundleEntry& entry, const uint8_t* place) const {
    const Dtype dtype = dtypeFromTf(entry.dtype);
    const int64_t count = elements(entry.shape, place);
    // Each string has a length of at least a byte. What a newer TensorFlow adds is refused where it
    // is used, so that the other entries can be read.
    const int64_t itemsize = dtype == Dtype::kUnknown ? 0 : dtypeInfo(dtype).itemsize;
    const bool fits = itemsize == 0 ? entry.size >= 0 : entry.size == count * itemsize;
    if (!fits) {
      fail(place, "expected %lld bytes for %lld elements of %s, got %lld",
           static_cast<long long>(count * itemsize), static_cast<long long>(count),
           dtypeInfo(dtype).name, static_cast<long long>(entry.size));
    }
  }

  size_t size_;
  BundleIndex result_;
  uint64_t key_bytes_ = 0;
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
