#include "formats/tensor_proto.h"

#include <algorithm>
#include <cstring>

#include "core/dtype.h"
#include "formats/protobuf_reader.h"

namespace tensor_bridge {
namespace {

constexpr uint32_t kDtypeField = 1;
constexpr uint32_t kShapeField = 2;
constexpr uint32_t kContentField = 4;
constexpr uint32_t kStringField = 8;
constexpr uint32_t kFloat8Field = 18;

// How the typed field of a dtype stores its values. Fixed ones are stored as in memory.
enum class Coding { kNone, kFixed, kVarint, kBool, kBytes };

struct TypedField {
  uint32_t number = 0;
  Coding coding = Coding::kNone;
  size_t unit = 0;               // bytes of one value; a complex number has two
  uint64_t mask = ~uint64_t{0};  // upper bits that a value of less than a byte does not have
};

TypedField typedField(Dtype dtype) {
  switch (dtype) {
    case Dtype::kFloat32:
      return {5, Coding::kFixed, 4};
    case Dtype::kFloat64:
      return {6, Coding::kFixed, 8};
    case Dtype::kInt32:
    case Dtype::kQInt32:
      return {7, Coding::kVarint, 4};
    case Dtype::kInt16:
    case Dtype::kUInt16:
    case Dtype::kQInt16:
    case Dtype::kQUInt16:
      return {7, Coding::kVarint, 2};
    case Dtype::kInt8:
    case Dtype::kUInt8:
    case Dtype::kQInt8:
    case Dtype::kQUInt8:
      return {7, Coding::kVarint, 1};
    case Dtype::kInt4:
    case Dtype::kUInt4:
      return {7, Coding::kVarint, 1, 0x0f};
    case Dtype::kInt2:
    case Dtype::kUInt2:
      return {7, Coding::kVarint, 1, 0x03};
    case Dtype::kComplex64:
      return {9, Coding::kFixed, 4};
    case Dtype::kInt64:
      return {10, Coding::kVarint, 8};
    case Dtype::kBool:
      return {11, Coding::kBool, 1};
    case Dtype::kComplex128:
      return {12, Coding::kFixed, 8};
    case Dtype::kFloat16:
    case Dtype::kBFloat16:
      return {13, Coding::kVarint, 2};
    case Dtype::kUInt32:
      return {16, Coding::kVarint, 4};
    case Dtype::kUInt64:
      return {17, Coding::kVarint, 8};
    case Dtype::kFloat8E5M2:
    case Dtype::kFloat8E4M3FN:
    case Dtype::kFloat8E4M3FNUZ:
    case Dtype::kFloat8E4M3B11FNUZ:
    case Dtype::kFloat8E5M2FNUZ:
    case Dtype::kFloat4E2M1FN:
      return {kFloat8Field, Coding::kBytes, 1};
    default:
      return {};
  }
}

// The destination of values: at most as many as fit.
class Sink {
 public:
  Sink(uint8_t* out, size_t unit, int64_t room)
      : next_(out), end_(out + unit * static_cast<size_t>(room)), unit_(unit) {}

  bool full() const { return next_ == end_; }
  uint8_t* next() const { return next_; }

  void put(uint64_t value) {
    std::memcpy(next_, &value, unit_);
    next_ += unit_;
  }

  void putAll(WireReader values) {
    const size_t size = std::min(values.left() / unit_ * unit_, static_cast<size_t>(end_ - next_));
    if (size != 0) std::memcpy(next_, values.next(), size);
    next_ += size;
  }

 private:
  uint8_t* next_;
  uint8_t* end_;
  size_t unit_;
};

// Repeats the `size` bytes before `from` until `end`.
void repeatLast(uint8_t* from, const uint8_t* end, size_t size) {
  const uint8_t* last = from - size;
  while (from != end) {
    const size_t part = std::min(static_cast<size_t>(end - from), static_cast<size_t>(from - last));
    std::memcpy(from, last, part);
    from += part;
  }
}

class Reader : private ProtobufReader {
 public:
  using ProtobufReader::ProtobufReader;

  TensorProto read(WireReader message) const {
    TensorProto tensor;
    tensor.message = message;
    uint64_t dtype = 0;
    eachField(message, "a tensor", [&](uint32_t number, uint32_t type, WireReader* field) {
      if (number == kDtypeField && type == WireReader::kVarint) return field->varint(&dtype);
      if (number != kShapeField || type != WireReader::kBytes) return field->skip(type);
      WireReader shape;
      if (!field->nested(&shape)) return false;
      readShape(shape, &tensor.shape);
      return true;
    });
    if (dtype > INT32_MAX) {
      fail(message.next(), "expected a dtype, got number %llu",
           static_cast<unsigned long long>(dtype));
    }
    tensor.dtype = static_cast<int32_t>(dtype);
    tensor.count = elements(tensor.shape, message.next());
    return tensor;
  }

  TensorExtent find(const TensorProto& tensor) const {
    const Dtype dtype = dtypeFromTf(tensor.dtype);
    const TypedField typed = typedField(dtype);
    if (typed.coding == Coding::kNone || tensor.count == 0) return {};
    const int64_t size = tensor.count * dtypeInfo(dtype).itemsize;
    const WireReader content = bytesOf(tensor, kContentField);
    if (!content.done()) {
      checkContent(content, size, tensor);
      return {content.next() - data_, size};
    }
    WireReader values;
    if (typed.coding == Coding::kBytes) {
      values = bytesOf(tensor, kFloat8Field);
    } else if (typed.coding != Coding::kFixed || !onlyPacked(tensor, typed, &values)) {
      return {};
    }
    if (values.left() < static_cast<size_t>(size)) return {};
    return {values.next() - data_, size};
  }

  int64_t count(const TensorProto& tensor) const {
    const Dtype dtype = dtypeFromTf(tensor.dtype);
    if (!bytesOf(tensor, kContentField).done()) return 0;
    if (dtype == Dtype::kString) return countStrings(tensor);
    const TypedField typed = typedFieldOf(tensor);
    const auto itemsize = static_cast<int64_t>(dtypeInfo(dtype).itemsize);
    if (typed.coding == Coding::kBytes) {
      return static_cast<int64_t>(bytesOf(tensor, kFloat8Field).left()) / itemsize;
    }
    return countUnits(tensor, typed) * static_cast<int64_t>(typed.unit) / itemsize;
  }

  void decode(const TensorProto& tensor, uint8_t* out) const {
    const Dtype dtype = dtypeFromTf(tensor.dtype);
    const TypedField typed = typedFieldOf(tensor);
    if (tensor.count == 0) return;
    const size_t itemsize = dtypeInfo(dtype).itemsize;
    const size_t size = static_cast<size_t>(tensor.count) * itemsize;
    const WireReader content = bytesOf(tensor, kContentField);
    Sink sink(out, typed.unit, static_cast<int64_t>(size / typed.unit));
    if (!content.done()) {
      checkContent(content, static_cast<int64_t>(size), tensor);
      sink.putAll(content);
    } else if (typed.coding == Coding::kBytes) {
      sink.putAll(bytesOf(tensor, kFloat8Field));
    } else {
      decodeField(tensor, typed, &sink);
    }
    // Half a complex number does not count.
    uint8_t* end = out + static_cast<size_t>(sink.next() - out) / itemsize * itemsize;
    if (end == out) {
      std::memset(out, 0, size);
    } else {
      repeatLast(end, out + size, itemsize);
    }
  }

  // Calls visit(string) for each stored string, at most `count`.
  template <typename Visit>
  void eachString(const TensorProto& tensor, Visit visit) const {
    if (tensor.count == 0) return;
    WireReader lengths = bytesOf(tensor, kContentField);
    if (!lengths.done()) {
      eachEncodedString(tensor, lengths, visit);
      return;
    }
    int64_t left = tensor.count;
    eachField(tensor.message, "a tensor", [&](uint32_t number, uint32_t type, WireReader* field) {
      if (number != kStringField || type != WireReader::kBytes) return field->skip(type);
      WireReader string;
      if (!field->nested(&string)) return false;
      if (left-- > 0) visit(string);
      return true;
    });
  }

  [[noreturn]] void tooLarge(const TensorProto& tensor) const {
    fail(tensor.message.next(), "expected strings that memory can hold, got %lld too large ones",
         static_cast<long long>(tensor.count));
  }

 private:
  TypedField typedFieldOf(const TensorProto& tensor) const {
    const TypedField typed = typedField(dtypeFromTf(tensor.dtype));
    if (typed.coding == Coding::kNone) {
      fail(tensor.message.next(), "expected a dtype of numbers, got number %d", tensor.dtype);
    }
    return typed;
  }

  int64_t countStrings(const TensorProto& tensor) const {
    int64_t found = 0;
    eachField(tensor.message, "a tensor", [&](uint32_t number, uint32_t type, WireReader* field) {
      if (number == kStringField && type == WireReader::kBytes) ++found;
      return field->skip(type);
    });
    return found;
  }

  // Numbers in the typed field; a complex number is two.
  int64_t countUnits(const TensorProto& tensor, const TypedField& typed) const {
    int64_t found = 0;
    eachField(tensor.message, "a tensor", [&](uint32_t number, uint32_t type, WireReader* field) {
      if (number != typed.number) return field->skip(type);
      if (type == wireType(typed)) {
        ++found;
        return field->skip(type);
      }
      WireReader packed;
      if (type != WireReader::kBytes) return field->skip(type);
      if (!field->nested(&packed)) return false;
      if (typed.coding == Coding::kFixed) {
        found += static_cast<int64_t>(packed.left() / typed.unit);
        return packed.left() % typed.unit == 0;
      }
      // The last byte of each is below 128; decoding detects invalid ones.
      const uint8_t* bytes = packed.next();
      found += std::count_if(bytes, bytes + packed.left(), [](uint8_t b) { return b < 0x80; });
      return true;
    });
    return found;
  }

  // The value of a field of bytes; the last one counts.
  WireReader bytesOf(const TensorProto& tensor, uint32_t wanted) const {
    WireReader found;
    eachField(tensor.message, "a tensor", [&](uint32_t number, uint32_t type, WireReader* field) {
      if (number != wanted || type != WireReader::kBytes) return field->skip(type);
      return field->nested(&found);
    });
    return found;
  }

  void checkContent(WireReader content, int64_t size, const TensorProto& tensor) const {
    if (content.left() == static_cast<size_t>(size)) return;
    fail(content.next(), "expected %lld bytes for %lld elements of %s, got %zu",
         static_cast<long long>(size), static_cast<long long>(tensor.count),
         dtypeInfo(dtypeFromTf(tensor.dtype)).name, content.left());
  }

  // Whether all values are in one packed field.
  bool onlyPacked(const TensorProto& tensor, const TypedField& typed, WireReader* values) const {
    int found = 0;
    bool packed = true;
    eachField(tensor.message, "a tensor", [&](uint32_t number, uint32_t type, WireReader* field) {
      if (number != typed.number) return field->skip(type);
      if (type == WireReader::kBytes) {
        ++found;
        return field->nested(values);
      }
      if (type == wireType(typed)) packed = false;
      return field->skip(type);
    });
    return found == 1 && packed;
  }

  static uint32_t wireType(const TypedField& typed) {
    if (typed.coding != Coding::kFixed) return WireReader::kVarint;
    return typed.unit == 4 ? WireReader::kFixed32 : WireReader::kFixed64;
  }

  void decodeField(const TensorProto& tensor, const TypedField& typed, Sink* sink) const {
    eachField(tensor.message, "a tensor", [&](uint32_t number, uint32_t type, WireReader* field) {
      if (number != typed.number) return field->skip(type);
      if (type == wireType(typed)) return decodeOne(typed, field, sink);
      if (type != WireReader::kBytes) return field->skip(type);
      WireReader packed;
      if (!field->nested(&packed)) return false;
      if (typed.coding == Coding::kFixed) {
        if (packed.left() % typed.unit != 0) return false;
        sink->putAll(packed);
        return true;
      }
      while (!packed.done()) {
        if (!decodeOne(typed, &packed, sink)) return false;
      }
      return true;
    });
  }

  static bool decodeOne(const TypedField& typed, WireReader* field, Sink* sink) {
    uint64_t value = 0;
    uint32_t half = 0;
    if (typed.coding != Coding::kFixed) {
      if (!field->varint(&value)) return false;
      value = typed.coding == Coding::kBool ? value != 0 : value & typed.mask;
    } else if (typed.unit == 4) {
      if (!field->fixed32(&half)) return false;
      value = half;
    } else if (!field->fixed64(&value)) {
      return false;
    }
    if (!sink->full()) sink->put(value);
    return true;
  }

  // In tensor_content all lengths stand before all strings.
  template <typename Visit>
  void eachEncodedString(const TensorProto& tensor, WireReader lengths, Visit visit) const {
    WireReader strings = lengths;
    uint64_t total = 0;
    for (int64_t i = 0; i < tensor.count; ++i) {
      uint64_t length = 0;
      if (!strings.varint(&length) || length > lengths.left() - total) {
        fail(strings.next(), "expected the lengths of %lld strings, got another at string %lld",
             static_cast<long long>(tensor.count), static_cast<long long>(i));
      }
      total += length;
    }
    if (strings.left() != total) {
      fail(strings.next(), "expected %llu bytes of strings, got %zu",
           static_cast<unsigned long long>(total), strings.left());
    }
    for (int64_t i = 0; i < tensor.count; ++i) {
      uint64_t length = 0;
      const uint8_t* string = nullptr;
      static_cast<void>(lengths.varint(&length) && strings.bytes(length, &string));
      visit(WireReader(string, static_cast<size_t>(length)));
    }
  }
};

}  // namespace

TensorProto readTensorProto(const uint8_t* file, WireReader message, const std::string& entry) {
  return Reader(file, entry).read(message);
}

TensorExtent findTensorValues(const uint8_t* file, const TensorProto& tensor,
                              const std::string& entry) {
  return Reader(file, entry).find(tensor);
}

int64_t countTensorValues(const uint8_t* file, const TensorProto& tensor,
                          const std::string& entry) {
  return Reader(file, entry).count(tensor);
}

void decodeTensorValues(const uint8_t* file, const TensorProto& tensor, const std::string& entry,
                        uint8_t* out) {
  Reader(file, entry).decode(tensor, out);
}

int64_t tensorStringsSize(const uint8_t* file, const TensorProto& tensor,
                          const std::string& entry) {
  const Reader reader(file, entry);
  int64_t there = 0;
  int64_t total = 0;
  int64_t last = 0;
  reader.eachString(tensor, [&](WireReader string) {
    last = static_cast<int64_t>(string.left());
    total += last;  // within the file
    ++there;
  });
  int64_t repeated = 0;
  if (__builtin_mul_overflow(tensor.count - there, last, &repeated) ||
      __builtin_add_overflow(total, repeated, &total)) {
    reader.tooLarge(tensor);
  }
  return total;
}

void decodeTensorStrings(const uint8_t* file, const TensorProto& tensor, const std::string& entry,
                         int64_t* offsets, uint8_t* out) {
  int64_t there = 0;
  int64_t end = 0;
  WireReader last;
  const auto put = [&](WireReader string) {
    last = string;
    offsets[there++] = end;
    if (string.left() != 0) std::memcpy(out + end, string.next(), string.left());
    end += static_cast<int64_t>(string.left());
  };
  Reader(file, entry).eachString(tensor, put);
  while (there < tensor.count) put(last);
  offsets[there] = end;
}

}  // namespace tensor_bridge
