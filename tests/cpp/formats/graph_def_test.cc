// Graphs made byte by byte: the constants of each kind of message, and what is refused.

#include "formats/graph_def.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "support/expect_error.h"
#include "support/protobuf_bytes.h"

namespace tensor_bridge::testing {
namespace {

std::string tensorOf(const std::string& values) {
  return number(1, 1) + bytes(2, shapeOf({2})) + values;
}

std::string node(const std::string& name, const std::string& op, const std::string& rest = "") {
  return bytes(1, name) + bytes(2, op) + rest;
}

std::string constant(const std::string& name, const std::string& tensor) {
  const std::string dtype = bytes(5, bytes(1, "dtype") + bytes(2, number(6, 1)));
  return node(name, "Const", dtype + bytes(5, bytes(1, "value") + bytes(2, bytes(8, tensor))));
}

const std::string kContent = tensorOf(bytes(4, "12345678"));

const uint8_t* dataOf(const std::string& text) {
  return reinterpret_cast<const uint8_t*>(text.data());
}

bool begins(const std::string& text) { return isGraph(dataOf(text), text.size()); }

std::vector<GraphConstant> read(const std::string& text) {
  return readGraphConstants(dataOf(text), text.size());
}

std::vector<std::string> namesOf(const std::string& text) {
  std::vector<std::string> names;
  for (const GraphConstant& found : read(text)) names.push_back(found.name);
  return names;
}

using Names = std::vector<std::string>;

TEST(GraphDef, ConstantsAreFoundWithTheirValues) {
  const std::string graph = bytes(1, node("x", "Placeholder")) + bytes(1, constant("w", kContent));
  ASSERT_TRUE(begins(graph));
  const std::vector<GraphConstant> found = read(graph);
  ASSERT_EQ(found.size(), 1);
  EXPECT_EQ(found[0].name, "w");
  EXPECT_EQ(found[0].tensor.shape, (std::vector<int64_t>{2}));
  EXPECT_EQ(found[0].extent.offset, static_cast<int64_t>(graph.find("12345678")));
  EXPECT_EQ(found[0].extent.size, 8);
  EXPECT_FALSE(found[0].read_as_variable);
}

TEST(GraphDef, ReadersTellWhatWasAVariable) {
  const auto isVariable = [](const std::string& name, const std::string& op,
                             const std::string& input) {
    return read(bytes(1, constant("a/w", kContent)) + bytes(1, node(name, op, bytes(3, input))))[0]
        .read_as_variable;
  };
  EXPECT_TRUE(isVariable("a/w/read", "Identity", "a/w"));
  EXPECT_TRUE(isVariable("a/w/read", "Identity", "a/w:0"));
  EXPECT_TRUE(isVariable("b/MatMul/ReadVariableOp", "Identity", "a/w"));
  EXPECT_TRUE(isVariable("ReadVariableOp_1", "Identity", "a/w"));
  EXPECT_FALSE(isVariable("a/w/read", "Relu", "a/w"));
  EXPECT_FALSE(isVariable("a/w/read", "Identity", "a/v"));
  EXPECT_FALSE(isVariable("copy", "Identity", "a/w"));
}

TEST(GraphDef, FunctionsOfTheLibraryAreLookedInto) {
  const std::string function = bytes(1, bytes(1, "call")) + bytes(3, constant("k", kContent)) +
                               bytes(3, node("ReadVariableOp", "Identity", bytes(3, "k:output:0")));
  const std::string graph = bytes(1, constant("w", kContent)) + bytes(2, bytes(1, function));
  EXPECT_EQ(namesOf(graph), (Names{"w", "call/k"}));
  EXPECT_TRUE(read(graph)[1].read_as_variable);
  // Also without a node outside of functions.
  EXPECT_TRUE(begins(bytes(2, bytes(1, function))));
  EXPECT_EQ(namesOf(bytes(2, bytes(1, function))), (Names{"call/k"}));
}

TEST(GraphDef, GraphsAreFoundInMessagesAroundThem) {
  const std::string graph = bytes(1, constant("w", kContent));
  const std::string info = bytes(1, bytes(1, "v1") + bytes(2, bytes(1, bytes(1, "Const"))));
  const std::string meta_graph = info + bytes(2, graph);
  ASSERT_TRUE(begins(meta_graph));
  EXPECT_EQ(namesOf(meta_graph), (Names{"w"}));
  const std::string model = number(1, 1) + bytes(2, meta_graph) + bytes(2, meta_graph);
  ASSERT_TRUE(begins(model));
  EXPECT_EQ(namesOf(model), (Names{"w", "w"}));
}

TEST(GraphDef, OtherMessagesAreNone) {
  for (const std::string& text :
       {std::string(), std::string("\x0a"), std::string("\x0a\xff\xff\xff\xff\x0f"), bytes(1, ""),
        bytes(1, bytes(1, "w")), bytes(1, node("a b", "Const")), bytes(1, node("w", "Const\n")),
        number(1, 8) + bytes(2, "pytorch") + bytes(7, "graph"),
        bytes(1, bytes(1, "v1") + bytes(2, bytes(1, bytes(1, "Const")))),
        bytes(2, bytes(1, "w"))}) {
    EXPECT_FALSE(begins(text)) << text;
  }
}

TEST(GraphDef, WhatCannotBeIsRefused) {
  const std::string good = bytes(1, constant("w", kContent));
  const auto refused = [&](const std::string& more, const std::vector<std::string>& parts) {
    ASSERT_TRUE(begins(good + more));
    expectError(ErrorCode::kCheckpoint, parts, [&] { read(good + more); });
  };
  refused(bytes(1, bytes(1, "v")), {"a node with a name and an operation"});
  refused(bytes(1, node("v", "Const")), {"a constant with a value"});
  refused(bytes(1, constant("v", tensorOf(bytes(4, "123")))), {"expected 8 bytes", "got 3"});
  refused(bytes(1, node("v", "Const", "\x2a\x7f")), {"a node as a protobuf message"});
  refused("\x0a\x7f", {"a GraphDef as a protobuf message"});
  refused(bytes(2, bytes(1, "\xff")), {"a function as a protobuf message"});
}

// A name of a thousand bytes is stored once, and each of its constants takes fifty bytes.
TEST(GraphDef, ANameCannotBeRepeatedWithoutEnd) {
  const auto functionOf = [](size_t name_size, int count) {
    std::string function = bytes(1, bytes(1, std::string(name_size, 'f')));
    for (int i = 0; i < count; ++i) function += bytes(3, constant("k", tensorOf("")));
    return bytes(2, bytes(1, function));
  };
  EXPECT_EQ(read(functionOf(1000, 100)).size(), 100);
  expectError(ErrorCode::kCheckpoint, {"names of constants of at most 64 times the file"},
              [&] { read(functionOf(100000, 2000)); });
}

}  // namespace
}  // namespace tensor_bridge::testing
