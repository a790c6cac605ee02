// The C ABI of checkpoints: results, offsets of errors, bounds. Not for: the contents of files
// (tests/cpp/formats/bundle_test.cc).

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <string>

#include "c_api/private_api.h"

namespace {

// Checkpoint(w=Variable([1., 2.])) without an object graph, byte by byte.
std::string indexFile() {
  const std::string header("\x08\x01", 2);
  const std::string entry("\x08\x01\x12\x04\x12\x02\x08\x02\x28\x08\x35\x04\x03\x02\x01", 15);
  const std::string records =
      std::string("\0\0\x02", 3) + header + std::string("\0\x01\x0f", 3) + "w" + entry;
  const std::string end("\0\0\0\0\x01\0\0\0\0crc!", 13);  // one restart point, the trailer
  const std::string data = records + end;
  const std::string meta = end;
  const auto handle = [](size_t offset, size_t size) {
    return std::string{static_cast<char>(offset), static_cast<char>(size)};
  };
  const std::string index = std::string("\0\x01\x02", 3) + "x" + handle(0, data.size() - 5) + end;
  std::string footer =
      handle(data.size(), meta.size() - 5) + handle(data.size() + meta.size(), index.size() - 5);
  footer.resize(40, '\0');
  const uint64_t magic = 0xdb4775248b80fb57;
  footer.append(reinterpret_cast<const char*>(&magic), 8);
  return data + meta + index + footer;
}

TEST(CheckpointApi, ReadsAnIndex) {
  const std::string file = indexFile();
  tb_bundle* bundle = nullptr;
  ASSERT_EQ(tb_bundle_read(file.data(), file.size(), &bundle, nullptr), TB_OK) << tb_last_error();
  EXPECT_EQ(tb_bundle_num_shards(bundle), 1);
  tb_bundle_entry entry;
  entry.struct_size = sizeof(entry);
  ASSERT_EQ(tb_bundle_entry_get(bundle, 0, &entry), TB_OK) << tb_last_error();
  EXPECT_EQ(std::string(entry.key, static_cast<size_t>(entry.key_size)), "w");
  EXPECT_EQ(entry.dtype, 1);
  ASSERT_EQ(entry.ndim, 1);
  EXPECT_EQ(entry.shape[0], 2);
  EXPECT_EQ(entry.size, 8);
  EXPECT_EQ(entry.offset, 0);
  EXPECT_EQ(entry.crc32c, 0x01020304u);
  EXPECT_EQ(entry.num_slices, 0);
  tb_bundle_block block;
  EXPECT_EQ(tb_bundle_block_get(bundle, 0, &block), TB_OK);
  EXPECT_EQ(block.offset, 37);  // the metaindex block, which the reader reads first

  EXPECT_EQ(tb_bundle_entry_get(bundle, 1, &entry), TB_INVALID_OPTION);
  EXPECT_EQ(tb_bundle_entry_get(bundle, -1, &entry), TB_INVALID_OPTION);
  EXPECT_EQ(tb_bundle_block_get(bundle, 2, &block), TB_OK);
  EXPECT_EQ(tb_bundle_block_get(bundle, 3, &block), TB_INVALID_OPTION);
  entry.struct_size = 1;
  EXPECT_EQ(tb_bundle_entry_get(bundle, 0, &entry), TB_INVALID_OPTION);
  tb_bundle_release(bundle);
  tb_bundle_release(nullptr);
}

TEST(CheckpointApi, SaysWhereAnIndexIsDamaged) {
  std::string file = indexFile();
  // The size of the entry: 9 bytes do not make two floats.
  file[file.find("\x28\x08") + 1] = 9;
  tb_bundle* bundle = nullptr;
  tb_bundle_place place;
  place.struct_size = sizeof(place);
  ASSERT_EQ(tb_bundle_read(file.data(), file.size(), &bundle, &place), TB_CHECKPOINT);
  EXPECT_EQ(bundle, nullptr);
  EXPECT_EQ(std::string(place.entry, static_cast<size_t>(place.entry_size)), "w");
  EXPECT_EQ(place.offset, 9);
  EXPECT_THAT(tb_last_error(), ::testing::HasSubstr("8 bytes"));
  EXPECT_EQ(tb_bundle_read(file.data(), file.size(), &bundle, nullptr), TB_CHECKPOINT);
  place.struct_size = 0;
  EXPECT_EQ(tb_bundle_read(file.data(), file.size(), &bundle, &place), TB_INVALID_OPTION);
  EXPECT_EQ(tb_bundle_read(nullptr, 0, &bundle, nullptr), TB_INVALID_HANDLE);
  EXPECT_EQ(tb_bundle_read(file.data(), file.size(), nullptr, nullptr), TB_INVALID_HANDLE);
}

TEST(CheckpointApi, FindsStrings) {
  const std::string data(
      "\x02\x01"
      "crc!"
      "abc",
      9);
  int64_t offsets[3];
  int64_t begin = 0;
  ASSERT_EQ(tb_bundle_strings(data.data(), data.size(), 2, offsets, &begin, nullptr), TB_OK);
  EXPECT_EQ(begin, 6);
  EXPECT_EQ(offsets[1], 2);
  EXPECT_EQ(offsets[2], 3);
  tb_bundle_place place;
  place.struct_size = sizeof(place);
  EXPECT_EQ(tb_bundle_strings(data.data(), 8, 2, offsets, &begin, &place), TB_CHECKPOINT);
  EXPECT_EQ(place.entry_size, 0);
  EXPECT_EQ(tb_bundle_strings(data.data(), 9, 2, nullptr, &begin, nullptr), TB_INVALID_HANDLE);
}

}  // namespace
