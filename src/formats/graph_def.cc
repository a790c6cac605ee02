#include "formats/graph_def.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "formats/protobuf_reader.h"

namespace tensor_bridge {
namespace {

// Numbers of fields: tensorflow/core/framework/{graph,node_def,attr_value,function,op_def}.proto,
// tensorflow/core/protobuf/{meta_graph,saved_model}.proto.
constexpr uint32_t kGraphNode = 1;
constexpr uint32_t kGraphLibrary = 2;
constexpr uint32_t kNodeName = 1;
constexpr uint32_t kNodeOp = 2;
constexpr uint32_t kNodeInput = 3;
constexpr uint32_t kNodeAttribute = 5;
constexpr uint32_t kMapKey = 1;
constexpr uint32_t kMapValue = 2;
constexpr uint32_t kValueTensor = 8;
constexpr uint32_t kLibraryFunction = 1;
constexpr uint32_t kFunctionSignature = 1;
constexpr uint32_t kFunctionNode = 3;
constexpr uint32_t kSignatureName = 1;
constexpr uint32_t kMetaGraphGraph = 2;
constexpr uint32_t kSavedModelVersion = 1;
constexpr uint32_t kSavedModelMetaGraph = 2;

// A constant is longer than its own name, but the name of a function is stored once for all of its
// constants. Without a limit a small file could repeat a name of any length.
constexpr uint64_t kMaxNamesPerByte = 64;

std::string textOf(WireReader bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.next()), bytes.left());
}

// What TensorFlow allows in names of nodes and operations.
bool isName(WireReader bytes) {
  const std::string text = textOf(bytes);
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' ||
           c == '.' || c == '/' || c == '-' || c == '>' || c == '\\';
  });
}

// Reads the first field of bytes with that number; returns whether there is one.
bool firstField(WireReader message, uint32_t wanted, WireReader* found) {
  while (!message.done()) {
    uint32_t number = 0;
    uint32_t type = 0;
    if (!message.field(&number, &type)) return false;
    if (number == wanted && type == WireReader::kBytes) return message.nested(found);
    if (!message.skip(type)) return false;
  }
  return false;
}

bool beginsAsNode(WireReader node) {
  WireReader name;
  WireReader op;
  return firstField(node, kNodeName, &name) && firstField(node, kNodeOp, &op) && isName(name) &&
         isName(op);
}

bool beginsAsGraph(WireReader graph) {
  WireReader first;
  if (firstField(graph, kGraphNode, &first)) return beginsAsNode(first);
  WireReader function;
  WireReader signature;
  WireReader name;
  return firstField(graph, kGraphLibrary, &first) &&
         firstField(first, kLibraryFunction, &function) &&
         firstField(function, kFunctionSignature, &signature) &&
         firstField(signature, kSignatureName, &name) && isName(name);
}

bool beginsAsMetaGraph(WireReader meta_graph) {
  WireReader graph;
  return firstField(meta_graph, kMetaGraphGraph, &graph) && beginsAsGraph(graph);
}

bool beginsAsSavedModel(WireReader model) {
  WireReader rest = model;
  WireReader meta_graph;
  uint32_t number = 0;
  uint32_t type = 0;
  return rest.field(&number, &type) && number == kSavedModelVersion &&
         type == WireReader::kVarint && firstField(model, kSavedModelMetaGraph, &meta_graph) &&
         beginsAsMetaGraph(meta_graph);
}

struct Node {
  std::string name;
  std::string op;
  WireReader input;  // the first one
  std::vector<WireReader> attributes;
};

// Names of the constants that a node reads as a variable: Identity "w/read" of "w", and the
// Identity that takes the place of a ReadVariableOp.
std::string readVariable(const Node& node) {
  if (node.op != "Identity") return "";
  std::string input = textOf(node.input);
  const size_t colon = input.find(':');  // an output's number, in a function its name too
  if (colon != std::string::npos) input.resize(colon);
  const size_t slash = node.name.rfind('/');
  const size_t last = slash == std::string::npos ? 0 : slash + 1;
  const bool read =
      node.name == input + "/read" || node.name.compare(last, 14, "ReadVariableOp") == 0;
  return read ? input : "";
}

class GraphReader : private ProtobufReader {
 public:
  GraphReader(const uint8_t* data, size_t size)
      : ProtobufReader(data), names_left_(kMaxNamesPerByte * size) {}

  std::vector<GraphConstant> read(WireReader file) {
    if (beginsAsSavedModel(file)) {
      eachNested(file, "a SavedModel", kSavedModelMetaGraph,
                 [&](WireReader part) { readMetaGraph(part); });
    } else if (beginsAsGraph(file)) {
      readGraph(file);
    } else {
      readMetaGraph(file);
    }
    return std::move(result_);
  }

 private:
  template <typename Visit>
  void eachNested(WireReader message, const char* what, uint32_t wanted, Visit visit) const {
    eachField(message, what, [&](uint32_t number, uint32_t type, WireReader* field) {
      if (number != wanted || type != WireReader::kBytes) return field->skip(type);
      WireReader nested;
      if (!field->nested(&nested)) return false;
      visit(nested);
      return true;
    });
  }

  void readMetaGraph(WireReader meta_graph) {
    eachNested(meta_graph, "a MetaGraphDef", kMetaGraphGraph,
               [&](WireReader graph) { readGraph(graph); });
  }

  void readGraph(WireReader graph) {
    readNodes(graph, "a GraphDef", kGraphNode, "");
    eachNested(graph, "a GraphDef", kGraphLibrary, [&](WireReader library) {
      eachNested(library, "a library", kLibraryFunction,
                 [&](WireReader function) { readFunction(function); });
    });
  }

  void readFunction(WireReader function) {
    std::string name;
    eachNested(function, "a function", kFunctionSignature, [&](WireReader signature) {
      eachNested(signature, "a signature", kSignatureName,
                 [&](WireReader text) { name = textOf(text); });
    });
    readNodes(function, "a function", kFunctionNode, name + "/");
  }

  void readNodes(WireReader message, const char* what, uint32_t number, const std::string& prefix) {
    const size_t first = result_.size();
    std::unordered_set<std::string> variables;
    eachNested(message, what, number, [&](WireReader part) {
      const Node node = readNode(part);
      std::string variable = readVariable(node);
      if (!variable.empty()) variables.insert(std::move(variable));
      if (node.op != "Const") return;
      const uint64_t name_size = prefix.size() + node.name.size();
      if (name_size > names_left_) {
        fail(part.next(), "expected names of constants of at most %llu times the file, got more",
             static_cast<unsigned long long>(kMaxNamesPerByte));
      }
      names_left_ -= name_size;
      entry_ = prefix + node.name;
      addConstant(node, part.next());
      entry_.clear();
    });
    for (size_t i = first; i < result_.size(); ++i) {
      const std::string name = result_[i].name.substr(prefix.size());
      result_[i].read_as_variable = variables.count(name) != 0;
    }
  }

  Node readNode(WireReader message) const {
    Node node;
    bool has_input = false;
    eachField(message, "a node", [&](uint32_t number, uint32_t type, WireReader* field) {
      if (type != WireReader::kBytes) return field->skip(type);
      WireReader nested;
      if (!field->nested(&nested)) return false;
      if (number == kNodeName) node.name = textOf(nested);
      if (number == kNodeOp) node.op = textOf(nested);
      if (number == kNodeInput && !std::exchange(has_input, true)) node.input = nested;
      if (number == kNodeAttribute) node.attributes.push_back(nested);
      return true;
    });
    if (node.name.empty() || node.op.empty()) {
      fail(message.next(), "expected a node with a name and an operation, got one without");
    }
    return node;
  }

  void addConstant(const Node& node, const uint8_t* place) {
    WireReader message;
    bool found = false;
    for (const WireReader& attribute : node.attributes) {
      std::string key;
      WireReader value;
      eachField(attribute, "an attribute", [&](uint32_t number, uint32_t type, WireReader* field) {
        WireReader nested;
        if (type != WireReader::kBytes) return field->skip(type);
        if (!field->nested(&nested)) return false;
        if (number == kMapKey) key = textOf(nested);
        if (number == kMapValue) value = nested;
        return true;
      });
      if (key != "value") continue;
      eachNested(value, "an attribute", kValueTensor, [&](WireReader tensor) {
        message = tensor;
        found = true;
      });
    }
    if (!found) fail(place, "expected a constant with a value, got one without");
    GraphConstant constant;
    constant.name = entry_;
    constant.tensor = readTensorProto(data_, message, entry_);
    constant.extent = findTensorValues(data_, constant.tensor, entry_);
    result_.push_back(std::move(constant));
  }

  uint64_t names_left_;
  std::vector<GraphConstant> result_;
};

}  // namespace

bool isGraph(const uint8_t* data, size_t size) {
  const WireReader file(data, size);
  return beginsAsGraph(file) || beginsAsMetaGraph(file) || beginsAsSavedModel(file);
}

std::vector<GraphConstant> readGraphConstants(const uint8_t* data, size_t size) {
  return GraphReader(data, size).read(WireReader(data, size));
}

}  // namespace tensor_bridge
