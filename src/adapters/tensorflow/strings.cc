// The layout is that of tsl/platform/ctstring_internal.h, the same in TensorFlow 2.12 to 2.21. An
// element has 24 bytes; the low two bits of its first byte say which of four forms it has
// (little-endian, sizes shifted left by those two bits):
//   small   uint8 size;  char string[23]                      up to 22 bytes, inline
//   large   uint64 size; uint64 capacity; char* string        from malloc, the element's own
//   offset  uint32 size; uint32 offset; uint32 count          `offset` bytes from the element on
//   view    uint64 size; const char* string; owner            someone else's; `owner` is new
//   in 2.21
// Ops copy views and offsets as views, without the bytes. So only the first two forms can be
// written without knowing who else will refer to the bytes.

#include "adapters/tensorflow/strings.h"

#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

#include "adapters/tensorflow/owner.h"
#include "adapters/tensorflow/reader.h"
#include "core/error.h"
#include "core/huge_pages.h"
#include "core/layout.h"
#include "core/owner_counter.h"

namespace tensor_bridge {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "TensorFlow keeps sizes differently on big-endian machines");

constexpr int64_t kElementSize = kStringBytes;
constexpr int64_t kSmallCapacity = 22;

enum Kind : uint64_t { kSmall = 0, kLarge = 1, kOffset = 2, kView = 3, kKindMask = 3 };

// Elements need not be aligned: TF_NewTensor takes strings anywhere.
template <typename T>
T load(const char* from) {
  T value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

template <typename T>
void store(char* to, T value) {
  std::memcpy(to, &value, sizeof(value));
}

const char* asElements(const void* elements) { return static_cast<const char*>(elements); }

int64_t sizeOf(uint64_t head) {
  switch (head & kKindMask) {
    case kSmall:
      return static_cast<int64_t>((head & 0xff) >> 2);
    case kOffset:
      return static_cast<int64_t>((head & 0xffffffff) >> 2);
    default:
      return static_cast<int64_t>(head >> 2);
  }
}

tb_string read(const char* element) {
  const auto head = load<uint64_t>(element);
  const int64_t size = sizeOf(head);
  switch (head & kKindMask) {
    case kSmall:
      return {element + 1, size};
    case kLarge:
      return {load<const char*>(element + 16), size};
    case kOffset:
      return {element + (head >> 32), size};
    default:
      return {load<const char*>(element + 8), size};
  }
}

[[noreturn]] void throwTooLarge() {
  throwError(ErrorCode::kInvalidHandle,
             "the strings of the tensor have more bytes together than 64 bits can count");
}

[[noreturn]] void throwChanged() {
  throwError(ErrorCode::kInvalidHandle,
             "the strings of the tensor have other sizes than they had a moment ago: something "
             "writes into TensorFlow's memory");
}

// A string outside its element is a cache miss. This many elements ahead is far enough to hide it,
// and near enough for the element itself to be cached.
constexpr int64_t kAhead = 8;

void prefetchString(const char* element) {
  if ((load<uint64_t>(element) & kKindMask) == kLarge) {
    __builtin_prefetch(load<const char*>(element + 16));
  }
}

// For strings of a few dozen bytes: a call of memcpy costs more than the copy.
void copyString(char* to, const char* from, int64_t size) {
  if (size < 16 || size > 128) {
    if (size > 0) std::memcpy(to, from, static_cast<size_t>(size));
    return;
  }
  for (int64_t i = 0; i < size - 16; i += 16) std::memcpy(to + i, from + i, 16);
  std::memcpy(to + size - 16, from + size - 16, 16);
}

// Up to 22 bytes, in two copies of fixed size that may overlap.
void copySmall(char* to, const char* from, size_t size) {
  if (size >= 16) {
    std::memcpy(to, from, 16);
    std::memcpy(to + size - 8, from + size - 8, 8);
  } else if (size >= 8) {
    std::memcpy(to, from, 8);
    std::memcpy(to + size - 8, from + size - 8, 8);
  } else if (size >= 4) {
    std::memcpy(to, from, 4);
    std::memcpy(to + size - 4, from + size - 4, 4);
  } else if (size > 0) {
    to[0] = from[0];
    to[size / 2] = from[size / 2];
    to[size - 1] = from[size - 1];
  }
}

void viewElements(const TfApi& api, TF_Tensor* tensor, int64_t* shape, TensorView* view) {
  *view = TensorView{};
  const int ndim = api.TF_NumDims(tensor);
  checkRank(ndim);
  for (int i = 0; i < ndim; ++i) shape[i] = api.TF_Dim(tensor, i);
  int64_t count;
  if (!elementCount(shape, ndim, &count) || !byteCount(count, kElementSize, &view->nbytes)) {
    throwError(ErrorCode::kInvalidHandle,
               "the shape that TensorFlow reports is negative or overflows 64 bits");
  }
  view->dl.data = api.TF_TensorData(tensor);
  view->dl.device = DLDevice{kDLCPU, 0};
  view->dl.ndim = ndim;
  view->dl.shape = shape;
  view->dtype = Dtype::kString;
  view->read_only = true;
  if (count > 0 && (view->dl.data == nullptr ||
                    api.TF_TensorByteSize(tensor) < static_cast<size_t>(view->nbytes))) {
    throwError(ErrorCode::kInvalidHandle,
               "the TF_Tensor holds %zu bytes, its shape and dtype need %lld",
               api.TF_TensorByteSize(tensor), static_cast<long long>(view->nbytes));
  }
}

void checkIsString(int tf_enum) {
  if (tf_enum == dtypeInfo(Dtype::kString).tf_enum) return;
  const Dtype dtype = dtypeFromTf(tf_enum);
  if (dtype == Dtype::kUnknown) {
    throwError(ErrorCode::kUnsupportedDtype,
               "expected a tensor of strings, got TensorFlow's dtype number %d", tf_enum);
  }
  throwError(ErrorCode::kUnsupportedDtype, "expected a tensor of strings, got dtype %s",
             dtypeInfo(dtype).name);
}

void freeElements(char* elements, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const char* element = elements + i * kElementSize;
    if ((load<uint64_t>(element) & kKindMask) == kLarge) std::free(load<char*>(element + 16));
  }
  std::free(elements);
}

// TensorFlow's deallocator: on any thread, with or without the GIL, also at exit.
void freeTensor(void* elements, size_t bytes, void*) {
  freeElements(static_cast<char*>(elements), static_cast<int64_t>(bytes) / kElementSize);
}

}  // namespace

void exportStrings(const TfApi& api, TFE_TensorHandle* handle, int64_t* shape, TensorRef* ref) {
  if (api.isReady(handle) && exportReadyStrings(api, handle, shape, ref)) return;
  checkIsString(api.TFE_TensorHandleDataType(handle));
  TF_Status* status = threadStatus(api);
  static_cast<void>(deviceOfHandle(api, handle, status));
  // Shares the buffer of a local tensor. TFE_TensorHandleDevicePointer would abort on strings.
  TfTensor tensor = owned(api, api.TFE_TensorHandleResolve(handle, status));
  if (tensor == nullptr) throwHandleStatus(api, handle, status);
  viewElements(api, tensor.get(), shape, ref);
  ref->owner = tensor.release();
  ref->release = releaseTensor;
  countOwner(1);
}

void exportStrings(const TfApi& api, TF_Tensor* tensor, int64_t* shape, TensorRef* ref) {
  if (tensor == nullptr) {
    throwError(ErrorCode::kInvalidHandle, "expected a TF_Tensor, got null");
  }
  checkIsString(api.TF_TensorType(tensor));
  viewElements(api, tensor, shape, ref);
}

const void* stringElement(const void* elements, int64_t index) noexcept {
  return asElements(elements) + index * kElementSize;
}

void readStrings(const void* elements, int64_t count, tb_string* out) noexcept {
  const char* element = asElements(elements);
  for (int64_t i = 0; i < count; ++i, element += kElementSize) {
    out[i] = read(element);
    // The string is read soon; outside its element it is a cache miss.
    __builtin_prefetch(out[i].data);
  }
}

int64_t measureStrings(const void* elements, int64_t count) {
  const char* element = asElements(elements);
  int64_t total = 0;
  for (int64_t i = 0; i < count; ++i, element += kElementSize) {
    if (__builtin_add_overflow(total, sizeOf(load<uint64_t>(element)), &total)) throwTooLarge();
  }
  return total;
}

int64_t measureStrings(const void* elements, int64_t count, int64_t* offsets) {
  const char* element = asElements(elements);
  int64_t total = 0;
  for (int64_t i = 0; i < count; ++i, element += kElementSize) {
    offsets[i] = total;
    if (__builtin_add_overflow(total, sizeOf(load<uint64_t>(element)), &total)) throwTooLarge();
  }
  offsets[count] = total;
  return total;
}

void gatherStrings(const void* elements, int64_t count, char* bytes, int64_t nbytes) {
  // The largest size that a small element's byte can claim, valid or not.
  constexpr int64_t kSmallLimit = 64;
  const char* element = asElements(elements);
  char* out = bytes;
  char* const end = bytes + nbytes;
  for (int64_t i = 0; i < count; ++i, element += kElementSize) {
    const auto head = load<uint64_t>(element);
    if ((head & kKindMask) == kSmall && end - out >= kSmallLimit) {
      // All 23 bytes at any size, without reading past the element; the next string overwrites the
      // excess.
      std::memcpy(out, element + 1, 16);
      std::memcpy(out + 15, element + 16, 8);
      out += (head & 0xff) >> 2;
      continue;
    }
    if (count - i > kAhead) prefetchString(element + kAhead * kElementSize);
    const tb_string string = read(element);
    if (string.size > end - out) throwChanged();
    copyString(out, string.data, string.size);
    out += string.size;
  }
  if (out != end) throwChanged();
}

StringTensorWriter::StringTensorWriter(int64_t count) {
  int64_t bytes;
  if (!byteCount(count, kElementSize, &bytes)) throw std::bad_alloc();
  // aligned_alloc requires a multiple; an empty tensor has a buffer too.
  constexpr size_t kAlignment = kTensorFlowAlignment;
  const size_t rounded = (static_cast<size_t>(bytes) / kAlignment + 1) * kAlignment;
  elements_ = static_cast<char*>(std::aligned_alloc(kAlignment, rounded));
  if (elements_ == nullptr) throw std::bad_alloc();
  expectWrites(elements_, bytes);
}

StringTensorWriter::~StringTensorWriter() {
  if (elements_ != nullptr) freeElements(elements_, written_);
}

void StringTensorWriter::append(const char* data, int64_t size) {
  char* element = elements_ + written_ * kElementSize;
  if (size <= kSmallCapacity) {
    store(element, static_cast<uint64_t>(size) << 2 | kSmall);
    store(element + 8, uint64_t{0});
    store(element + 16, uint64_t{0});
    copySmall(element + 1, data, static_cast<size_t>(size));
  } else {
    // Room for the final null that TensorFlow keeps, rounded up as TensorFlow does it.
    const uint64_t capacity = (static_cast<uint64_t>(size) + 1 + 15) / 16 * 16 - 1;
    auto* string = static_cast<char*>(std::malloc(capacity + 1));
    if (string == nullptr) throw std::bad_alloc();
    copyString(string, data, size);
    string[size] = '\0';
    store(element, static_cast<uint64_t>(size) << 2 | kLarge);
    store(element + 8, capacity);
    store(element + 16, string);
  }
  ++written_;
}

TfTensor StringTensorWriter::finish(const TfApi& api, const int64_t* shape, int ndim) {
  TfTensor tensor = owned(
      api, api.TF_NewTensor(dtypeInfo(Dtype::kString).tf_enum, shape, ndim, elements_,
                            static_cast<size_t>(written_ * kElementSize), freeTensor, nullptr));
  if (tensor == nullptr) throwError(ErrorCode::kOutOfMemory, "TF_NewTensor returned null");
  elements_ = nullptr;
  return tensor;
}

}  // namespace tensor_bridge
