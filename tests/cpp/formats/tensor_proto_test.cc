// TensorProtos made byte by byte: the place of their values, the decoded values, and the error for
// each wrong length.

#include "formats/tensor_proto.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "support/expect_error.h"
#include "support/protobuf_bytes.h"

namespace tensor_bridge::testing {
namespace {

constexpr uint64_t kFloat = 1;
constexpr uint64_t kInt8 = 6;
constexpr uint64_t kString = 7;
constexpr uint64_t kComplex64 = 8;
constexpr uint64_t kInt64 = 9;
constexpr uint64_t kBool = 10;
constexpr uint64_t kResource = 20;
constexpr uint64_t kFloat8 = 25;
constexpr uint64_t kInt4 = 29;

std::string tensorOf(uint64_t dtype, const std::vector<uint64_t>& shape,
                     const std::string& values) {
  return number(1, dtype) + bytes(2, shapeOf(shape)) + values;
}

std::string floatsOf(const std::vector<float>& values) {
  std::string out(values.size() * 4, '\0');
  if (!values.empty()) std::memcpy(out.data(), values.data(), out.size());
  return out;
}

// A file with one message.
class Message {
 public:
  explicit Message(std::string text)
      : text_(std::move(text)), tensor(readTensorProto(file(), message(), "w")) {}

  const uint8_t* file() const { return reinterpret_cast<const uint8_t*>(text_.data()); }
  WireReader message() const { return {file(), text_.size()}; }
  TensorExtent find() const { return findTensorValues(file(), tensor, "w"); }

  template <typename T>
  std::vector<T> values() const {
    std::vector<T> out(static_cast<size_t>(tensor.count));
    decodeTensorValues(file(), tensor, "w", reinterpret_cast<uint8_t*>(out.data()));
    return out;
  }

  std::vector<std::string> strings() const {
    std::vector<int64_t> offsets(static_cast<size_t>(tensor.count) + 1, -1);
    std::string data(static_cast<size_t>(tensorStringsSize(file(), tensor, "w")), '\0');
    decodeTensorStrings(file(), tensor, "w", offsets.data(),
                        reinterpret_cast<uint8_t*>(data.data()));
    EXPECT_EQ(offsets.back(), static_cast<int64_t>(data.size()));
    std::vector<std::string> out;
    for (size_t i = 0; i + 1 < offsets.size(); ++i) {
      out.push_back(data.substr(static_cast<size_t>(offsets[i]),
                                static_cast<size_t>(offsets[i + 1] - offsets[i])));
    }
    return out;
  }

 private:
  std::string text_;

 public:
  TensorProto tensor;
};

TEST(TensorProto, ContentIsFoundWhereItLies) {
  const std::string head = number(1, kFloat) + bytes(2, shapeOf({2, 1}));
  const Message message(head + bytes(4, floatsOf({1, 2})));
  EXPECT_EQ(message.tensor.dtype, 1);
  EXPECT_EQ(message.tensor.shape, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(message.find().offset, static_cast<int64_t>(head.size()) + 2);
  EXPECT_EQ(message.find().size, 8);
  EXPECT_EQ(message.values<float>(), (std::vector<float>{1, 2}));
}

TEST(TensorProto, OnePackedFieldIsFoundWhereItLies) {
  const Message message(tensorOf(kFloat, {2}, bytes(5, floatsOf({1, 2, 3}))));
  EXPECT_EQ(message.find().offset, static_cast<int64_t>(message.message().left()) - 12);
  EXPECT_EQ(message.find().size, 8);
  EXPECT_EQ(message.values<float>(), (std::vector<float>{1, 2}));
}

TEST(TensorProto, ValuesInPiecesAreDecoded) {
  const std::string one = varint(5 << 3 | 5) + floatsOf({9});
  const Message message(
      tensorOf(kFloat, {5}, bytes(5, floatsOf({1, 2})) + one + bytes(5, floatsOf({4}))));
  EXPECT_EQ(message.find().offset, -1);
  EXPECT_EQ(message.values<float>(), (std::vector<float>{1, 2, 9, 4, 4}));
}

TEST(TensorProto, MissingValuesRepeatTheLastOne) {
  const Message message(tensorOf(kFloat, {2, 3}, bytes(5, floatsOf({1, 2}))));
  EXPECT_EQ(message.find().offset, -1);
  EXPECT_EQ(message.values<float>(), (std::vector<float>{1, 2, 2, 2, 2, 2}));
}

TEST(TensorProto, NoValuesAtAllAreZeros) {
  EXPECT_EQ(Message(tensorOf(kFloat, {3}, "")).values<float>(), (std::vector<float>{0, 0, 0}));
  EXPECT_EQ(Message(tensorOf(kFloat, {}, "")).values<float>(), (std::vector<float>{0}));
  EXPECT_TRUE(Message(tensorOf(kFloat, {0}, "")).values<float>().empty());
}

TEST(TensorProto, IntegersLoseTheirUpperBits) {
  const std::string minus_one(9, '\xff');
  const std::string packed = varint(300) + minus_one + '\x01' + varint(7);
  EXPECT_EQ(Message(tensorOf(kInt8, {4}, bytes(7, packed))).values<int8_t>(),
            (std::vector<int8_t>{44, -1, 7, 7}));
  EXPECT_EQ(Message(tensorOf(kInt4, {3}, bytes(7, packed))).values<uint8_t>(),
            (std::vector<uint8_t>{12, 15, 7}));
  EXPECT_EQ(
      Message(tensorOf(kInt64, {2}, number(10, 300) + number(10, 1ULL << 63))).values<int64_t>(),
      (std::vector<int64_t>{300, INT64_MIN}));
  EXPECT_EQ(Message(tensorOf(kBool, {3}, bytes(11, varint(0) + varint(256)))).values<uint8_t>(),
            (std::vector<uint8_t>{0, 1, 1}));
}

TEST(TensorProto, HalfAComplexNumberIsNone) {
  EXPECT_EQ(Message(tensorOf(kComplex64, {2}, bytes(9, floatsOf({1, 2, 3})))).values<uint64_t>(),
            Message(tensorOf(kComplex64, {2}, bytes(9, floatsOf({1, 2})))).values<uint64_t>());
  EXPECT_EQ(Message(tensorOf(kComplex64, {2}, bytes(9, floatsOf({1})))).values<uint64_t>(),
            (std::vector<uint64_t>{0, 0}));
}

TEST(TensorProto, TheLastFieldOfBytesCounts) {
  const Message message(tensorOf(kFloat8, {3}, bytes(18, "abc") + bytes(18, "de")));
  EXPECT_EQ(message.values<char>(), (std::vector<char>{'d', 'e', 'e'}));
  EXPECT_EQ(Message(tensorOf(kFloat8, {2}, bytes(18, "de"))).find().size, 2);
}

TEST(TensorProto, StringsInFieldsAndInContent) {
  using Strings = std::vector<std::string>;
  EXPECT_EQ(Message(tensorOf(kString, {2}, bytes(8, "a") + bytes(8, "bc"))).strings(),
            (Strings{"a", "bc"}));
  EXPECT_EQ(Message(tensorOf(kString, {3}, bytes(8, "a") + bytes(8, "bc"))).strings(),
            (Strings{"a", "bc", "bc"}));
  EXPECT_EQ(Message(tensorOf(kString, {1}, bytes(8, "a") + bytes(8, "bc"))).strings(),
            (Strings{"a"}));
  EXPECT_EQ(Message(tensorOf(kString, {2}, "")).strings(), (Strings{"", ""}));
  EXPECT_EQ(Message(tensorOf(kString, {0}, bytes(4, "x"))).strings(), Strings{});
  EXPECT_EQ(Message(tensorOf(kString, {2},
                             bytes(4,
                                   "\x01\x02"
                                   "abc")))
                .strings(),
            (Strings{"a", "bc"}));
}

TEST(TensorProto, AClaimAllocatesNothing) {
  const Message huge(tensorOf(kFloat, {1ULL << 50}, bytes(5, floatsOf({1}))));
  EXPECT_EQ(huge.tensor.count, int64_t{1} << 50);
  EXPECT_EQ(huge.find().offset, -1);
  const Message strings(tensorOf(kString, {1ULL << 50}, bytes(8, "ab")));
  EXPECT_EQ(tensorStringsSize(strings.file(), strings.tensor, "w"), int64_t{1} << 51);
  const Message more(tensorOf(kString, {1ULL << 56}, bytes(8, std::string(1000, 'x'))));
  expectError(ErrorCode::kCheckpoint, {"strings that memory can hold"},
              [&] { tensorStringsSize(more.file(), more.tensor, "w"); });
}

TEST(TensorProto, DtypesWithoutNumbersAreNotDecoded) {
  const Message resource(tensorOf(kResource, {}, ""));
  EXPECT_EQ(resource.find().offset, -1);
  expectError(ErrorCode::kCheckpoint, {"expected a dtype of numbers, got number 20"},
              [&] { resource.values<float>(); });
  expectError(ErrorCode::kCheckpoint, {"got number 99"},
              [&] { Message(tensorOf(99, {}, "")).values<float>(); });
}

TEST(TensorProto, WhatCannotBeIsRefused) {
  const auto refused = [](const std::string& text, const std::vector<std::string>& parts) {
    expectError(ErrorCode::kCheckpoint, parts, [&] {
      try {
        const Message message(text);
        message.find();
        if (message.tensor.dtype == static_cast<int32_t>(kString)) {
          message.strings();
        } else {
          message.values<uint64_t>();
        }
      } catch (const FormatError& e) {
        EXPECT_EQ(e.entry(), "w");
        EXPECT_GE(e.offset(), 0);
        EXPECT_LE(e.offset(), static_cast<int64_t>(text.size()));
        throw;
      }
    });
  };
  refused(number(1, kFloat) + bytes(2, number(3, 1)), {"expected a shape", "unknown rank"});
  refused(tensorOf(kFloat, {~0ULL}, ""), {"dimensions of at least 0", "got size -1"});
  refused(tensorOf(kFloat, {1ULL << 40, 1ULL << 40}, ""), {"a shape that memory can hold"});
  refused(number(1, 1ULL << 40), {"expected a dtype"});
  refused(tensorOf(kFloat, {2}, bytes(4, "abcd")), {"expected 8 bytes for 2 elements", "got 4"});
  refused(tensorOf(kFloat, {2}, bytes(5, "abc")), {"a tensor as a protobuf message"});
  refused(tensorOf(kInt8, {2}, bytes(7, "\x80")), {"a tensor as a protobuf message"});
  refused(tensorOf(kString, {2},
                   bytes(4,
                         "\x01\x09"
                         "abc")),
          {"lengths of 2 strings"});
  refused(tensorOf(kString, {2},
                   bytes(4,
                         "\x01\x01"
                         "abc")),
          {"expected 2 bytes of strings"});
  refused(tensorOf(kFloat, {2}, "") + "\x0a\xff", {"a tensor as a protobuf message"});
}

}  // namespace
}  // namespace tensor_bridge::testing
