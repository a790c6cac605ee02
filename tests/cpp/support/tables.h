// Tables made byte by byte: records, blocks, footer.
// Not for: correct checksums; the readers in C++ do not compare them.
#ifndef TENSOR_BRIDGE_TESTS_SUPPORT_TABLES_H_
#define TENSOR_BRIDGE_TESTS_SUPPORT_TABLES_H_

#include <cstdint>
#include <string>

#include "support/protobuf_bytes.h"

namespace tensor_bridge::testing {

inline std::string record(const std::string& key, const std::string& value, size_t shared = 0) {
  return varint(shared) + varint(key.size() - shared) + varint(value.size()) + key.substr(shared) +
         value;
}

// The records of a block and one restart point, before compression.
inline std::string contents(const std::string& records) {
  return records + fixed32(0) + fixed32(1);
}

// A block as stored in a file: contents, kind of compression, checksum.
inline std::string stored(const std::string& contents, char compression) {
  return contents + std::string(1, compression) + fixed32(0xabcdef01);
}

inline std::string block(const std::string& records) { return stored(contents(records), 0); }

// Bytes packed in Snappy's format without copies, as literals of at most 60 bytes.
inline std::string packed(const std::string& bytes) {
  std::string out = varint(bytes.size());
  for (size_t at = 0; at < bytes.size(); at += 60) {
    const std::string literal = bytes.substr(at, 60);
    out += static_cast<char>((literal.size() - 1) << 2) + literal;
  }
  return out;
}

inline std::string handle(uint64_t offset, uint64_t size) { return varint(offset) + varint(size); }

inline std::string footer(const std::string& handles) {
  std::string out = handles;
  out.resize(40, '\0');
  const uint64_t magic = 0xdb4775248b80fb57;
  out.append(reinterpret_cast<const char*>(&magic), 8);
  return out;
}

// A table of these blocks, as stored; `index` has the records of the index block.
inline std::string tableOf(const std::string& blocks, const std::string& index) {
  const std::string metaindex = block("");
  const std::string last = block(index);
  return blocks + metaindex + last +
         footer(handle(blocks.size(), metaindex.size() - 5) +
                handle(blocks.size() + metaindex.size(), last.size() - 5));
}

// A table of one block of records, with the given `index` or the correct one.
inline std::string indexOf(const std::string& records, const std::string& index = "") {
  const std::string data = block(records);
  return tableOf(data, index.empty() ? record("~", handle(0, data.size() - 5)) : index);
}

}  // namespace tensor_bridge::testing

#endif  // TENSOR_BRIDGE_TESTS_SUPPORT_TABLES_H_
