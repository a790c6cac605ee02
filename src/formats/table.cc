#include "formats/table.h"

#include <utility>

#include "core/error.h"
#include "formats/snappy.h"

namespace tensor_bridge {
namespace {

constexpr size_t kFooterSize = 48;
constexpr uint64_t kMagic = 0xdb4775248b80fb57;
constexpr size_t kTrailerSize = 5;  // compression, checksum
enum Compression : uint8_t { kNone = 0, kSnappy = 1 };
// At least every 16th key is stored in full, so ordinary keys take at most 16 times the file.
// Packed keys may take more, the longer they are; but beside each is a checksum, which cannot be
// packed.
constexpr uint64_t kMaxKeysPerByte = 64;
constexpr uint64_t kMaxKeysPerUnpackedByte = 4;

unsigned long long number(uint64_t value) { return value; }

[[noreturn]] void fail(const Origin& origin, const uint8_t* place, const std::string& message) {
  throw FormatError(origin.offsetOf(place), "", message);
}

// The records, without the restart points after them.
WireReader recordsOf(const uint8_t* begin, size_t size, const Origin& origin) {
  uint32_t restarts = 0;
  if (size >= 4) {
    WireReader last(begin + size - 4, 4);
    static_cast<void>(last.fixed32(&restarts));
  }
  if (size < 4 || restarts > (size - 4) / 4) {
    fail(origin, begin,
         formatted("expected a block that ends with its restart points, got %zu bytes with %u",
                   size, restarts));
  }
  return WireReader(begin, size - 4 - size_t{4} * restarts);
}

}  // namespace

bool BlockReader::next() {
  if (records_.done()) return false;
  const uint8_t* place = records_.next();
  uint32_t shared = 0;
  uint32_t own = 0;
  uint32_t length = 0;
  const uint8_t* suffix = nullptr;
  const uint8_t* value = nullptr;
  if (!records_.varint32(&shared) || !records_.varint32(&own) || !records_.varint32(&length) ||
      shared > key_.size() || !records_.bytes(own, &suffix) || !records_.bytes(length, &value)) {
    fail(origin_, place, formatted("expected a record, got lengths that do not fit its block"));
  }
  key_.resize(shared);
  key_.append(reinterpret_cast<const char*>(suffix), own);
  value_ = WireReader(value, length);
  return true;
}

BlockReader openBlock(const uint8_t* data, const BlockHandle& handle) {
  const uint8_t* begin = data + handle.offset;
  const auto size = static_cast<size_t>(handle.size);
  Origin origin{data};
  const uint8_t compression = begin[size];
  if (compression == kNone) {
    const WireReader records = recordsOf(begin, size, origin);
    return BlockReader(records, origin, nullptr, 0);
  }
  if (compression != kSnappy) {
    fail(origin, begin + size,
         formatted("expected a block that is not packed or by Snappy (1), got compression %d",
                   compression));
  }
  size_t length = 0;
  if (!snappyLength(begin, size, &length)) {
    fail(
        origin, begin,
        formatted("expected %zu bytes packed by Snappy, got a length that they cannot have", size));
  }
  // Not cleared first: either all of it is written, or the call fails.
  std::unique_ptr<uint8_t[]> unpacked(new uint8_t[length]);
  if (!snappyUnpack(begin, size, unpacked.get(), length)) {
    fail(origin, begin,
         formatted("expected %zu bytes that Snappy packed from %zu, got something else", size,
                   length));
  }
  origin = {unpacked.get(), static_cast<int64_t>(handle.offset)};
  const WireReader records = recordsOf(unpacked.get(), length, origin);
  return BlockReader(records, origin, std::move(unpacked), length);
}

TableReader::TableReader(const uint8_t* data, size_t size) : data_(data), size_(size) {
  const Origin origin{data};
  if (size < kFooterSize) {
    fail(origin, data,
         formatted("expected a table of %zu bytes or more, got %zu", kFooterSize, size));
  }
  const uint8_t* footer = data + size - kFooterSize;
  WireReader magic(footer + kFooterSize - 8, 8);
  uint64_t found = 0;
  if (!magic.fixed64(&found) || found != kMagic) {
    fail(origin, footer + kFooterSize - 8,
         formatted("expected the magic number of a TensorFlow checkpoint index, got %016llx; the "
                   "file was damaged or not written to its end: fetch or save it again",
                   number(found)));
  }
  WireReader handles(footer, kFooterSize - 8);
  metaindex_handle_ = readHandle(&handles, origin);
  index_handle_ = readHandle(&handles, origin);
  handles_.index = openBlock(data_, index_handle_);
}

BlockHandle TableReader::readHandle(WireReader* reader, const Origin& origin) const {
  const uint8_t* place = reader->next();
  BlockHandle handle;
  if (!reader->varint(&handle.offset) || !reader->varint(&handle.size)) {
    fail(origin, place, formatted("expected offset and size of a block"));
  }
  const uint64_t space = size_ - kFooterSize;
  if (handle.offset > space || space - handle.offset < kTrailerSize ||
      handle.size > space - handle.offset - kTrailerSize) {
    fail(origin, place,
         formatted("expected a block inside the %zu bytes of the file, got %llu bytes at %llu",
                   size_, number(handle.size), number(handle.offset)));
  }
  return handle;
}

bool TableReader::next(Handles* handles, BlockHandle* out) const {
  if (!handles->index.next()) return false;
  WireReader value = handles->index.value();
  const uint8_t* place = value.next();
  *out = readHandle(&value, handles->index.origin());
  // If blocks could overlap, a small file could repeat its records any number of times.
  if (out->offset < handles->end_of_last) {
    fail(handles->index.origin(), place,
         formatted("expected blocks one behind the other, got one at %llu before the end of "
                   "another at %llu",
                   number(out->offset), number(handles->end_of_last)));
  }
  handles->end_of_last = out->offset + out->size + kTrailerSize;
  return true;
}

bool TableReader::next() {
  while (!block_.next()) {
    if (!next(&handles_, &block_handle_)) return false;
    block_ = openBlock(data_, block_handle_);
    unpacked_bytes_ += block_.unpackedBytes();
  }
  key_bytes_ += key().size();
  if (key_bytes_ > maxKeyBytes()) {
    fail(origin(), value().next(),
         formatted("expected keys of at most %llu bytes in all, got more", number(maxKeyBytes())));
  }
  return true;
}

uint64_t TableReader::maxKeyBytes() const noexcept {
  return kMaxKeysPerByte * size_ + kMaxKeysPerUnpackedByte * unpacked_bytes_;
}

TableBlock TableReader::stored(const BlockHandle& handle) const {
  uint32_t crc = 0;
  WireReader trailer(data_ + handle.offset + handle.size + 1, 4);
  static_cast<void>(trailer.fixed32(&crc));
  return {static_cast<int64_t>(handle.offset), static_cast<int64_t>(handle.size) + 1, crc};
}

std::vector<TableBlock> TableReader::blocks() const {
  std::vector<TableBlock> found{stored(metaindex_handle_), stored(index_handle_)};
  Handles handles{openBlock(data_, index_handle_)};
  BlockHandle handle;
  while (next(&handles, &handle)) found.push_back(stored(handle));
  return found;
}

}  // namespace tensor_bridge
