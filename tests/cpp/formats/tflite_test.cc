// Models of TensorFlow Lite made byte by byte: the contents of a correct model, and the error for
// each wrong offset. tests/python/checkpoint reads models of TensorFlow's converter.

#include "formats/tflite.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "support/expect_error.h"

namespace tensor_bridge::testing {
namespace {

// A flatbuffer, written from front to back: each object comes before the objects it refers to.
class Bytes {
 public:
  Bytes() : text_(std::string(4, '\0') + "TFL3") {}

  // Writes fields of 4 bytes in order; absent fields take no space. Returns the places of the
  // fields.
  std::vector<size_t> table(size_t from, const std::vector<bool>& fields) {
    const size_t vtable = text_.size();
    const auto present = static_cast<uint16_t>(std::count(fields.begin(), fields.end(), true));
    put<uint16_t>(static_cast<uint16_t>(4 + 2 * fields.size()));
    put<uint16_t>(static_cast<uint16_t>(4 + 4 * present));
    uint16_t offset = 4;
    for (const bool field : fields) {
      put<uint16_t>(field ? offset : 0);
      if (field) offset += 4;
    }
    refer(from);
    put<int32_t>(static_cast<int32_t>(text_.size() - vtable));
    std::vector<size_t> places;
    for (const bool field : fields) {
      places.push_back(field ? text_.size() : 0);
      if (field) put<uint32_t>(0);
    }
    return places;
  }

  size_t vectorOf(size_t from, uint32_t count) {
    refer(from);
    put<uint32_t>(count);
    const size_t begin = text_.size();
    text_.resize(begin + 4 * size_t{count});
    return begin;
  }

  void text(size_t from, const std::string& value) {
    refer(from);
    put<uint32_t>(static_cast<uint32_t>(value.size()));
    text_ += value;
  }

  void set(size_t place, uint32_t value) { std::memcpy(text_.data() + place, &value, 4); }
  uint32_t get(size_t place) const {
    uint32_t value;
    std::memcpy(&value, text_.data() + place, 4);
    return value;
  }
  size_t size() const { return text_.size(); }
  const std::string& all() const { return text_; }

 private:
  template <typename T>
  void put(T value) {
    text_.append(reinterpret_cast<const char*>(&value), sizeof(T));
  }

  // Makes the offset at `from` point to the end.
  void refer(size_t from) { set(from, static_cast<uint32_t>(text_.size() - from)); }

  std::string text_;
};

// A model with one tensor "w" of floats and the shape (2).
struct Model {
  Bytes bytes;
  size_t subgraphs = 0;  // places of the elements of vectors, and of fields
  size_t tensors = 0;
  size_t buffers = 0;
  size_t shape = 0;
  size_t buffer_number = 0;

  explicit Model(uint32_t repeated = 1) {
    const std::vector<size_t> model = bytes.table(0, {false, false, true, false, true});
    subgraphs = bytes.vectorOf(model[2], repeated);
    const std::vector<size_t> subgraph = bytes.table(subgraphs, {true});
    tensors = bytes.vectorOf(subgraph[0], repeated);
    const std::vector<size_t> tensor = bytes.table(tensors, {true, false, true, true});
    shape = bytes.vectorOf(tensor[0], 1);
    bytes.set(shape, 2);
    buffer_number = tensor[2];
    bytes.set(buffer_number, 1);
    bytes.text(tensor[3], "w");
    buffers = bytes.vectorOf(model[4], 2);
    bytes.table(buffers, {});
    const std::vector<size_t> buffer = bytes.table(buffers + 4, {true});
    bytes.text(buffer[0], "12345678");
    // Every further element points to the first element's table.
    for (const size_t vector : {subgraphs, tensors}) {
      for (uint32_t i = 1; i < repeated; ++i) {
        bytes.set(vector + size_t{4} * i, bytes.get(vector) - 4 * i);
      }
    }
  }
};

std::vector<TfliteTensor> read(const std::string& text) {
  return readTflite(reinterpret_cast<const uint8_t*>(text.data()), text.size());
}

TEST(Tflite, ATensorIsFoundWithItsValues) {
  const std::string text = Model().bytes.all();
  EXPECT_TRUE(isTflite(reinterpret_cast<const uint8_t*>(text.data()), text.size()));
  const std::vector<TfliteTensor> found = read(text);
  ASSERT_EQ(found.size(), 1);
  EXPECT_EQ(found[0].name, "w");
  EXPECT_EQ(found[0].dtype, 1);
  EXPECT_EQ(found[0].shape, (std::vector<int64_t>{2}));
  EXPECT_EQ(text.substr(static_cast<size_t>(found[0].data.offset), 8), "12345678");
  EXPECT_EQ(found[0].data.size, 8);
  EXPECT_TRUE(found[0].scales.empty());
}

TEST(Tflite, OffsetsThatLeadOutAreRefused) {
  const auto refused = [](size_t Model::* place, uint32_t value, const std::string& part) {
    Model model;
    model.bytes.set(model.*place, value);
    expectError(ErrorCode::kCheckpoint, {part}, [&] { read(model.bytes.all()); });
  };
  refused(&Model::subgraphs, 0xffffffff, "a table inside the");
  refused(&Model::tensors, 1 << 20, "a table inside the");
  refused(&Model::buffer_number, 2, "one of 2 buffers, got number 2");
  refused(&Model::shape, 3, "expected 12 bytes for the shape and dtype float32, got 8");
  refused(&Model::shape, 0x80000000, "sizes of at least 0");
}

TEST(Tflite, EveryWrongByteIsAnsweredWithAnError) {
  const std::string good = Model().bytes.all();
  int refused = 0;
  for (size_t i = 0; i < good.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      try {
        for (const TfliteTensor& tensor : read(bad)) {
          EXPECT_LE(tensor.data.offset + tensor.data.size, static_cast<int64_t>(bad.size()));
        }
      } catch (const FormatError& e) {
        EXPECT_GE(e.offset(), 0);
        EXPECT_LE(e.offset(), static_cast<int64_t>(bad.size()));
        ++refused;
      }
    }
  }
  EXPECT_GT(refused, 300);
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_THROW(read(good.substr(0, size)), FormatError);
  }
}

// A million tensors in four kilobytes.
TEST(Tflite, SharedTablesCannotBeVisitedWithoutEnd) {
  EXPECT_EQ(read(Model(2).bytes.all()).size(), 4);
  const Model model(500);
  EXPECT_LT(model.bytes.size(), 5000);
  expectError(ErrorCode::kCheckpoint, {"stores each part once", "more than 4 times"},
              [&] { read(model.bytes.all()); });
}

TEST(Tflite, SmallNumbersAreUnpackedLowestFirst) {
  const uint8_t data[] = {0x21, 0xf8};
  std::vector<uint8_t> out(3);
  unpackTflite(data, 4, 3, out.data());
  EXPECT_EQ(out, (std::vector<uint8_t>{1, 2, 8}));
  out.resize(5);
  unpackTflite(data, 2, 5, out.data());
  EXPECT_EQ(out, (std::vector<uint8_t>{1, 0, 2, 0, 0}));
}

TEST(Tflite, StringsAreFoundOneBehindTheOther) {
  const auto readStrings = [](const std::vector<int32_t>& head, const std::string& strings,
                              int64_t count) {
    std::string text(reinterpret_cast<const char*>(head.data()), 4 * head.size());
    text += strings;
    std::vector<int64_t> offsets(static_cast<size_t>(count) + 1);
    readTfliteStrings(reinterpret_cast<const uint8_t*>(text.data()), text.size(), count,
                      offsets.data());
    return offsets;
  };
  EXPECT_EQ(readStrings({2, 16, 17, 19}, "abc", 2), (std::vector<int64_t>{16, 17, 19}));
  EXPECT_EQ(readStrings({0, 8}, "", 0), (std::vector<int64_t>{8}));
  for (const std::vector<int32_t>& head : std::vector<std::vector<int32_t>>{{3, 16, 17, 19},
                                                                            {2, 15, 17, 19},
                                                                            {2, 16, 20, 19},
                                                                            {2, 16, 17, 20},
                                                                            {2, 16, 17},
                                                                            {2, -16, 17, 19},
                                                                            {}}) {
    EXPECT_THROW(readStrings(head, "abc", 2), FormatError);
  }
}

}  // namespace
}  // namespace tensor_bridge::testing
