#include "formats/tflite.h"

#include <cstring>
#include <iterator>
#include <utility>

#include "core/dtype.h"
#include "core/tensor_ref.h"
#include "formats/flatbuffer.h"

namespace tensor_bridge {
namespace {

// Fields of the tables, counted from 0 in the order of the schema.
constexpr unsigned kModelSubgraphs = 2;
constexpr unsigned kModelBuffers = 4;
constexpr unsigned kSubgraphTensors = 0;
constexpr unsigned kSubgraphName = 4;
constexpr unsigned kTensorShape = 0;
constexpr unsigned kTensorType = 1;
constexpr unsigned kTensorBuffer = 2;
constexpr unsigned kTensorName = 3;
constexpr unsigned kTensorQuantization = 4;
constexpr unsigned kTensorSparsity = 6;
constexpr unsigned kTensorExternalBuffer = 10;
constexpr unsigned kQuantizationScale = 2;
constexpr unsigned kQuantizationZeroPoint = 3;
constexpr unsigned kQuantizationDetailsType = 4;
constexpr unsigned kQuantizationDimension = 6;
constexpr unsigned kBufferData = 0;
constexpr unsigned kBufferOffset = 1;
constexpr unsigned kBufferSize = 2;

// The minimal size of a tensor with values in a file: its own tables, a name, a shape.
constexpr uint64_t kSmallestTensor = 64;

// TensorType of the schema, by its number.
constexpr Dtype kTypes[] = {
    Dtype::kFloat32, Dtype::kFloat16,      Dtype::kInt32,      Dtype::kUInt8,     Dtype::kInt64,
    Dtype::kString,  Dtype::kBool,         Dtype::kInt16,      Dtype::kComplex64, Dtype::kInt8,
    Dtype::kFloat64, Dtype::kComplex128,   Dtype::kUInt64,     Dtype::kResource,  Dtype::kVariant,
    Dtype::kUInt32,  Dtype::kUInt16,       Dtype::kInt4,       Dtype::kBFloat16,  Dtype::kInt2,
    Dtype::kUInt4,   Dtype::kFloat8E4M3FN, Dtype::kFloat8E5M2,
};

int32_t bitsOf(Dtype dtype) {
  switch (dtype) {
    case Dtype::kInt2:
      return 2;
    case Dtype::kInt4:
    case Dtype::kUInt4:
      return 4;
    default:
      return 8 * dtypeInfo(dtype).itemsize;
  }
}

class ModelReader {
 public:
  ModelReader(const uint8_t* data, size_t size) : file_(data, size) {}

  std::vector<TfliteTensor> read() {
    const FlatTable model = file_.root();
    buffers_ = file_.vector(model, kModelBuffers, 4);
    const FlatVector subgraphs = file_.vector(model, kModelSubgraphs, 4);
    for (uint32_t i = 0; i < subgraphs.count; ++i) {
      const FlatTable subgraph = file_.tableOf(subgraphs, i);
      const FlatVector tensors = file_.vector(subgraph, kSubgraphTensors, 4);
      for (uint32_t j = 0; j < tensors.count; ++j) {
        const FlatTable tensor = file_.tableOf(tensors, j);
        readTensor(tensor, subgraph, static_cast<int32_t>(i));
      }
    }
    return std::move(result_);
  }

 private:
  void readTensor(const FlatTable& table, const FlatTable& subgraph, int32_t index) {
    const TensorExtent data = readBuffer(table);
    const bool external = file_.scalar<uint32_t>(table, kTensorExternalBuffer, 0) != 0;
    if (data.offset < 0 && !external) return;
    file_.spend(table.begin, kSmallestTensor);
    TfliteTensor tensor;
    tensor.name = file_.text(table, kTensorName);
    file_.setEntry(tensor.name);
    tensor.subgraph = file_.text(subgraph, kSubgraphName);
    tensor.subgraph_index = index;
    tensor.data = data;
    tensor.type = file_.scalar<int8_t>(table, kTensorType, 0);
    if (tensor.type >= 0 && static_cast<size_t>(tensor.type) < std::size(kTypes)) {
      const Dtype dtype = kTypes[tensor.type];
      tensor.dtype = dtypeInfo(dtype).tf_enum;
      tensor.bits = bitsOf(dtype);
    }
    readShape(table, &tensor);
    if (external) tensor.storage = TfliteStorage::kExternal;
    if (file_.has(table, kTensorSparsity)) tensor.storage = TfliteStorage::kSparse;
    readQuantization(file_.table(table, kTensorQuantization), &tensor);
    if (tensor.storage == TfliteStorage::kPlain) checkSize(tensor);
    file_.setEntry("");
    result_.push_back(std::move(tensor));
  }

  // Buffers without values have none of the fields; the first one is always so.
  TensorExtent readBuffer(const FlatTable& tensor) {
    const auto number = file_.scalar<uint32_t>(tensor, kTensorBuffer, 0);
    if (number == 0 && buffers_.count == 0) return {};
    if (number >= buffers_.count) {
      file_.fail(tensor.begin,
                 formatted("expected one of %u buffers, got number %u", buffers_.count, number));
    }
    const FlatTable buffer = file_.tableOf(buffers_, number);
    // In a model above 2 GB the values are after the flatbuffer. The converter writes 1 before it
    // knows the place.
    const auto offset = file_.scalar<uint64_t>(buffer, kBufferOffset, 0);
    if (offset > 1) {
      const auto size = file_.scalar<uint64_t>(buffer, kBufferSize, 0);
      file_.check(offset, size, "the values of a tensor");
      return {static_cast<int64_t>(offset), static_cast<int64_t>(size)};
    }
    const FlatVector data = file_.vector(buffer, kBufferData, 1);
    if (data.count == 0) return {};
    return {static_cast<int64_t>(data.begin), data.count};
  }

  void readShape(const FlatTable& table, TfliteTensor* tensor) {
    const FlatVector shape = file_.vector(table, kTensorShape, 4);
    if (shape.count > kMaxDims)
      file_.fail(shape.begin, formatted("expected at most %d dimensions", kMaxDims));
    int64_t elements = 1;
    for (uint32_t i = 0; i < shape.count; ++i) {
      const auto size = file_.element<int32_t>(shape, i);
      if (size < 0) {
        file_.fail(shape.begin, formatted("expected sizes of at least 0, got %d", size));
      }
      tensor->shape.push_back(size);
      // Of an empty tensor too: strides are products of the other sizes.
      if (size != 0 && (__builtin_mul_overflow(elements, int64_t{size}, &elements) ||
                        elements > INT64_MAX / 128)) {
        file_.fail(shape.begin,
                   "expected a shape that memory can hold, got one with too many "
                   "elements");
      }
    }
  }

  void readQuantization(const FlatTable& table, TfliteTensor* tensor) {
    if (file_.scalar<uint8_t>(table, kQuantizationDetailsType, 0) != 0) {
      tensor->storage = TfliteStorage::kOtherQuantization;
      return;
    }
    const FlatVector scales = file_.vector(table, kQuantizationScale, 4);
    const FlatVector zero_points = file_.vector(table, kQuantizationZeroPoint, 8);
    if (scales.count == 0) return;
    tensor->axis = file_.scalar<int32_t>(table, kQuantizationDimension, 0);
    checkQuantization(scales, zero_points, *tensor);
    for (uint32_t i = 0; i < scales.count; ++i) {
      tensor->scales.push_back(file_.element<float>(scales, i));
      tensor->zero_points.push_back(file_.element<int64_t>(zero_points, i));
    }
  }

  // As TensorFlow Lite's own reader does (core/interpreter_builder.cc, ParseQuantization).
  void checkQuantization(const FlatVector& scales, const FlatVector& zero_points,
                         const TfliteTensor& tensor) const {
    if (scales.count != zero_points.count) {
      file_.fail(scales.begin, formatted("expected as many zero points as the %u scales, got %u",
                                         scales.count, zero_points.count));
    }
    const auto ndim = static_cast<int64_t>(tensor.shape.size());
    if (tensor.axis < 0 || (ndim != 0 && tensor.axis >= ndim)) {
      file_.fail(scales.begin,
                 formatted("expected the axis of quantization to be one of %lld, got %d",
                           static_cast<long long>(ndim), tensor.axis));
    }
    if (scales.count == 1) return;
    const int64_t channels = ndim == 0 ? 1 : tensor.shape[static_cast<size_t>(tensor.axis)];
    if (scales.count != channels) {
      file_.fail(scales.begin, formatted("expected one scale, or one for each of %lld channels, "
                                         "got %u",
                                         static_cast<long long>(channels), scales.count));
    }
  }

  void checkSize(const TfliteTensor& tensor) const {
    if (tensor.bits == 0) return;
    int64_t bits = tensor.bits;  // at most 128
    for (const int64_t size : tensor.shape) bits *= size;
    const int64_t size = bits / 8 + (bits % 8 != 0);
    if (size != tensor.data.size) {
      file_.fail(static_cast<uint64_t>(tensor.data.offset),
                 formatted("expected %lld bytes for the shape and dtype %s, got %lld",
                           static_cast<long long>(size), dtypeInfo(dtypeFromTf(tensor.dtype)).name,
                           static_cast<long long>(tensor.data.size)));
    }
  }

  FlatBuffer file_;
  FlatVector buffers_;
  std::vector<TfliteTensor> result_;
};

}  // namespace

bool isTflite(const uint8_t* data, size_t size) {
  return size >= 8 && std::memcmp(data + 4, "TFL3", 4) == 0;
}

std::vector<TfliteTensor> readTflite(const uint8_t* data, size_t size) {
  return ModelReader(data, size).read();
}

void unpackTflite(const uint8_t* data, int32_t bits, int64_t count, uint8_t* out) {
  const int64_t per_byte = 8 / bits;
  const int mask = (1 << bits) - 1;
  for (int64_t i = 0; i < count; ++i) {
    out[i] = static_cast<uint8_t>(data[i / per_byte] >> (i % per_byte * bits) & mask);
  }
}

void readTfliteStrings(const uint8_t* data, size_t size, int64_t count, int64_t* offsets) {
  // The number of strings, the offset of each, the end of the last, and the strings.
  const auto number = [&](size_t index) {
    int32_t value;
    std::memcpy(&value, data + 4 * index, 4);
    return value;
  };
  const auto fail = [&](size_t place, const std::string& message) {
    throw FormatError(static_cast<int64_t>(place), "", message);
  };
  if (size < 4 || number(0) != count || size / 4 < static_cast<size_t>(count) + 2) {
    fail(0, formatted("expected %lld strings in %zu bytes, got %d", static_cast<long long>(count),
                      size, size < 4 ? 0 : number(0)));
  }
  int64_t last = 4 * (count + 2);
  for (int64_t i = 0; i <= count; ++i) {
    const auto index = static_cast<size_t>(i) + 1;
    const int64_t offset = number(index);
    if (offset < last || offset > static_cast<int64_t>(size) || (i == 0 && offset != last)) {
      fail(4 * index, formatted("expected strings one behind the other in %zu bytes, got one at "
                                "%lld",
                                size, static_cast<long long>(offset)));
    }
    offsets[i] = last = offset;
  }
}

}  // namespace tensor_bridge
