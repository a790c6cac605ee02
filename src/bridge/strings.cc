#include "bridge/strings.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <utility>

#include "adapters/tensorflow/strings.h"
#include "bridge/copy_policy.h"
#include "bridge/to_tf.h"
#include "bridge/to_torch.h"
#include "bridge/torch_loader.h"
#include "core/device.h"
#include "core/error.h"
#include "core/huge_pages.h"
#include "core/layout.h"

namespace tensor_bridge {
namespace {

constexpr const char* kCopyReason =
    "TensorFlow keeps every string by itself; they are gathered into one block of bytes and its "
    "offsets";

constexpr const char* kToTfReason = "TensorFlow keeps every string by itself";

void setShape(const int64_t* shape, int ndim, tb_strings* strings) {
  if (ndim < 0 || ndim > kMaxDims || (ndim > 0 && shape == nullptr)) {
    throwError(ErrorCode::kInvalidOption, "expected a shape of 0 to %d dimensions, got %d",
               kMaxDims, ndim);
  }
  if (!elementCount(shape, ndim, &strings->count)) {
    throwError(ErrorCode::kInvalidOption, "the shape is negative or overflows 64 bits");
  }
  strings->shape.assign(shape, shape + ndim);
}

// Elements of an offsets array that need not be aligned.
int64_t offsetAt(const tb_strings& strings, int64_t index) {
  int64_t value;
  std::memcpy(&value, reinterpret_cast<const char*>(strings.offsets) + index * 8, sizeof(value));
  return value;
}

[[noreturn]] void throwOffsets(const tb_strings& strings, int64_t index, int64_t begin,
                               int64_t end) {
  throwError(ErrorCode::kValueOutOfRange,
             "expected offsets that do not descend and stay within the %lld bytes, got %lld and "
             "%lld for string %lld",
             static_cast<long long>(strings.nbytes), static_cast<long long>(begin),
             static_cast<long long>(end), static_cast<long long>(index));
}

// Each offset is read once: torch's memory may change at any time.
void checkOffsets(const tb_strings& strings, int64_t index, int64_t begin, int64_t end) {
  if (__builtin_expect(begin < 0 || end < begin || end > strings.nbytes, 0)) {
    throwOffsets(strings, index, begin, end);
  }
}

// A torch tensor of one dimension and of `dtype`, as memory that can be read.
struct HostArray {
  const char* data;
  int64_t count;
};

HostArray hostArray(tb_torch_tensor* tensor, Dtype dtype, const char* name, TensorRef* owner,
                    std::unique_ptr<char[]>* staged) {
  const TorchAdapter& adapter = torchAdapter();
  TorchFacts facts;
  adapter.describe(tensor, /*hold=*/false, &facts);
  const DtypeInfo& info = dtypeInfo(dtype);
  if (facts.obstacle < Obstacle::kConjugate && facts.obstacle != Obstacle::kNone) {
    throwError(ErrorCode::kUnsupportedType,
               "expected %s to be a dense torch tensor with memory of its own (not sparse, nested, "
               "on the meta device, quantized, or inside a torch.func transform)",
               name);
  }
  if (facts.dtype != dtype) {
    throwError(ErrorCode::kUnsupportedDtype, "expected %s of dtype %s, got %s", name,
               info.torch_name, dtypeInfo(facts.dtype).torch_name);
  }
  if (facts.ndim != 1) {
    throwError(ErrorCode::kInvalidOption, "expected %s of one dimension, got %d", name, facts.ndim);
  }
  const int64_t count = facts.nbytes / info.itemsize;
  const bool readable = facts.data != nullptr && facts.obstacle != Obstacle::kStrided;
  if (readable || count == 0) {
    int64_t shape[kMaxDims];
    int64_t strides[kMaxDims];
    if (adapter.view(tensor, shape, strides, owner) != TB_OK) rethrowLastError();
    return {static_cast<const char*>(facts.data), count};
  }
  staged->reset(new char[static_cast<size_t>(facts.nbytes)]);
  if (adapter.copyOut(tensor, staged->get()) != TB_OK) rethrowLastError();
  return {staged->get(), count};
}

// Releases a torch tensor unless it is handed out.
class OwnedTorch {
 public:
  OwnedTorch(const TorchAdapter& adapter, tb_torch_tensor* tensor)
      : adapter_(adapter), tensor_(tensor) {}
  ~OwnedTorch() {
    if (tensor_ != nullptr) adapter_.release(tensor_);
  }
  OwnedTorch(const OwnedTorch&) = delete;
  OwnedTorch& operator=(const OwnedTorch&) = delete;

  tb_torch_tensor* get() { return tensor_; }
  tb_torch_tensor* handOut() {
    tb_torch_tensor* tensor = tensor_;
    tensor_ = nullptr;
    return tensor;
  }
  void reset(tb_torch_tensor* tensor) {
    adapter_.release(tensor_);
    tensor_ = tensor;
  }

 private:
  const TorchAdapter& adapter_;
  tb_torch_tensor* tensor_;
};

// A one-dimensional host tensor that is still to be made.
TensorRef blank(Dtype dtype, const int64_t* count) {
  TensorRef made(TensorView{}, nullptr, nullptr);
  const DtypeInfo& info = dtypeInfo(dtype);
  made.dl.device = DLDevice{kDLCPU, 0};
  made.dl.ndim = 1;
  made.dl.dtype = info.dl;
  made.dl.shape = const_cast<int64_t*>(count);
  made.dtype = dtype;
  if (!byteCount(*count, info.itemsize, &made.nbytes)) {
    throwError(ErrorCode::kOutOfMemory, "the strings need more bytes than 64 bits can count");
  }
  return made;
}

// The device half of a plan, with the refusals of a dense conversion.
Plan planMove(const tb_convert_options& options, const TorchAdapter& adapter) {
  requireCopyAllowed(options.copy, kCopyReason);
  if (options.num_scales > 0) {
    throwError(
        ErrorCode::kInvalidOption,
        "scale, zero_point and axis are for quantized dtypes, got a tensor of strings; leave "
        "them out");
  }
  if (options.has_device == 0) return Plan{};
  tb_convert_options copy = options;
  copy.copy = TB_COPY_ALWAYS;
  const int64_t none = 0;
  return decide(blank(Dtype::kInt64, &none), copy, Source::kTensor, adapter);
}

// torch's own host memory, not filled.
tb_torch_tensor* allocate(const TorchAdapter& adapter, Dtype dtype, int64_t count, void** data) {
  TensorRef ref = blank(dtype, &count);
  WrapSpec spec{};
  spec.action = WrapAction::kCopy;
  spec.dtype = dtype;
  tb_torch_tensor* tensor = nullptr;
  if (adapter.wrap(&ref, &spec, &tensor) != TB_OK) rethrowLastError();
  OwnedTorch owned(adapter, tensor);
  if (adapter.mutableData(tensor, data) != TB_OK) rethrowLastError();
  expectWrites(*data, ref.nbytes);
  return owned.handOut();
}

void move(const TorchAdapter& adapter, const Plan& plan, Dtype dtype, OwnedTorch* tensor) {
  int64_t shape[kMaxDims];
  int64_t strides[kMaxDims];
  TensorRef ref;
  if (adapter.view(tensor->get(), shape, strides, &ref) != TB_OK) rethrowLastError();
  ref.dl.strides = nullptr;
  WrapSpec spec = plan.spec;
  spec.dtype = dtype;
  tb_torch_tensor* moved = nullptr;
  if (adapter.wrap(&ref, &spec, &moved) != TB_OK) rethrowLastError();
  tensor->reset(moved);
}

void checkToTf(const tb_convert_back_options& options) {
  if (options.tf_dtype != 0 && options.tf_dtype != dtypeInfo(Dtype::kString).tf_enum) {
    throwError(ErrorCode::kInvalidOption,
               "dtype= of strings can only be string; convert them in TensorFlow "
               "(tf.strings.to_number, tf.io.decode_raw)");
  }
  requireCopyAllowed(options.copy, kToTfReason);
}

// Number of strings that are looked up at a time, so that they stay in the first-level cache.
constexpr int64_t kChunk = 256;

template <typename Body>
void forEachString(const tb_strings& strings, Body&& body) {
  tb_string chunk[kChunk];
  for (int64_t first = 0; first < strings.count; first += kChunk) {
    const int64_t count = std::min(kChunk, strings.count - first);
    getStrings(strings, first, count, chunk);
    const tb_string* const end = chunk + count;
    for (const tb_string* string = chunk; string != end; ++string) body(*string);
  }
}

// Fills all but the device and the reason. `more` is the number of bytes beside the strings' own.
void explainCopied(const tb_strings& strings, int64_t more, tb_explanation* out) {
  const int64_t nbytes = measure(strings, nullptr);
  *out = tb_explanation{};
  out->struct_size = sizeof(*out);
  out->action = TB_ACTION_COPIED;
  out->on_write = -1;
  out->tf_dtype = dtypeInfo(Dtype::kString).name;
  out->torch_dtype = dtypeInfo(Dtype::kUInt8).torch_name;
  if (__builtin_add_overflow(nbytes, more, &out->nbytes)) out->nbytes = -1;
}

}  // namespace

StringsPointer stringsOfTf(TensorRef elements) {
  auto strings = std::make_unique<tb_strings>();
  setShape(elements.dl.shape, elements.dl.ndim, strings.get());
  strings->elements = elements.dl.data;
  if (strings->elements == nullptr) strings->elements = "";  // no elements, but TensorFlow's
  strings->owners[0] = std::move(elements);
  return strings;
}

StringsPointer stringsOfMemory(const char* bytes, int64_t nbytes, const int64_t* offsets,
                               int64_t num_offsets, const int64_t* shape, int ndim) {
  auto strings = std::make_unique<tb_strings>();
  setShape(shape, ndim, strings.get());
  if (nbytes < 0 || (nbytes > 0 && bytes == nullptr) || offsets == nullptr) {
    throwError(ErrorCode::kInvalidOption,
               "expected %lld bytes and the offsets of the strings in them, got a null pointer or "
               "a negative size",
               static_cast<long long>(nbytes));
  }
  if (num_offsets - 1 != strings->count) {
    throwError(ErrorCode::kInvalidOption,
               "expected one more offset than the shape has elements (%lld), got %lld",
               static_cast<long long>(strings->count), static_cast<long long>(num_offsets));
  }
  strings->bytes = bytes;
  strings->nbytes = nbytes;
  strings->offsets = offsets;
  return strings;
}

StringsPointer stringsOfTorch(tb_torch_tensor* bytes, tb_torch_tensor* offsets,
                              const int64_t* shape, int ndim) {
  auto strings = std::make_unique<tb_strings>();
  const HostArray data =
      hostArray(bytes, Dtype::kUInt8, "bytes", &strings->owners[0], &strings->staged[0]);
  const HostArray ends =
      hostArray(offsets, Dtype::kInt64, "offsets", &strings->owners[1], &strings->staged[1]);
  // Called for its checks; its result refers to the same memory.
  const StringsPointer plain = stringsOfMemory(
      data.data, data.count, reinterpret_cast<const int64_t*>(ends.data), ends.count, shape, ndim);
  strings->shape.swap(plain->shape);
  strings->count = plain->count;
  strings->bytes = plain->bytes;
  strings->nbytes = plain->nbytes;
  strings->offsets = plain->offsets;
  return strings;
}

void getStrings(const tb_strings& strings, int64_t first, int64_t count, tb_string* out) {
  if (first < 0 || count < 0 || first > strings.count - count) {
    throwError(ErrorCode::kInvalidOption, "expected some of %lld strings, got %lld from %lld on",
               static_cast<long long>(strings.count), static_cast<long long>(count),
               static_cast<long long>(first));
  }
  if (strings.elements != nullptr) {
    readStrings(stringElement(strings.elements, first), count, out);
    return;
  }
  int64_t begin = offsetAt(strings, first);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t end = offsetAt(strings, first + i + 1);
    checkOffsets(strings, first + i, begin, end);
    out[i] = tb_string{strings.bytes + begin, end - begin};
    begin = end;
  }
}

int64_t measure(const tb_strings& strings, int64_t* offsets) {
  if (strings.elements != nullptr) {
    return offsets == nullptr ? measureStrings(strings.elements, strings.count)
                              : measureStrings(strings.elements, strings.count, offsets);
  }
  const int64_t start = offsetAt(strings, 0);
  int64_t begin = start;
  for (int64_t i = 0; i < strings.count; ++i) {
    const int64_t end = offsetAt(strings, i + 1);
    checkOffsets(strings, i, begin, end);
    if (offsets != nullptr) offsets[i] = begin - start;
    begin = end;
  }
  checkOffsets(strings, 0, start, begin);
  if (offsets != nullptr) offsets[strings.count] = begin - start;
  return begin - start;
}

void gather(const tb_strings& strings, char* bytes, int64_t nbytes) {
  if (strings.elements != nullptr) {
    gatherStrings(strings.elements, strings.count, bytes, nbytes);
    return;
  }
  // One block already.
  const int64_t begin = offsetAt(strings, 0);
  const int64_t end = offsetAt(strings, strings.count);
  checkOffsets(strings, 0, begin, end);
  if (end - begin != nbytes) throwOffsets(strings, 0, begin, end);
  if (nbytes > 0) std::memcpy(bytes, strings.bytes + begin, static_cast<size_t>(nbytes));
}

TorchStrings stringsToTorch(const tb_strings& strings, const tb_convert_options& options) {
  const TorchAdapter& adapter = torchAdapter();
  const Plan plan = planMove(options, adapter);
  void* data = nullptr;
  OwnedTorch offsets(adapter, allocate(adapter, Dtype::kInt64, strings.count + 1, &data));
  const int64_t nbytes = measure(strings, static_cast<int64_t*>(data));
  OwnedTorch bytes(adapter, allocate(adapter, Dtype::kUInt8, nbytes, &data));
  gather(strings, static_cast<char*>(data), nbytes);
  if (plan.spec.move) {
    move(adapter, plan, Dtype::kUInt8, &bytes);
    move(adapter, plan, Dtype::kInt64, &offsets);
  }
  return {bytes.handOut(), offsets.handOut()};
}

TfTensor stringsToTf(const tb_strings& strings, const tb_convert_back_options& options,
                     const TfApi& api) {
  checkToTf(options);
  StringTensorWriter writer(strings.count);
  forEachString(strings,
                [&writer](const tb_string& string) { writer.append(string.data, string.size); });
  return writer.finish(api, strings.shape.data(), static_cast<int>(strings.shape.size()));
}

void explainStrings(const tb_strings& strings, const tb_convert_options* options,
                    tb_explanation* out) {
  const TorchAdapter& adapter = torchAdapter();
  try {
    const Plan plan = planMove(checkedOptions(options), adapter);
    explainCopied(strings, 8 * (strings.count + 1), out);
    deviceName(plan.spec.move ? plan.spec.device : DLDevice{kDLCPU, 0}, out->device,
               sizeof(out->device));
    std::snprintf(out->reason, sizeof(out->reason), "a StringTensor: %s", kCopyReason);
  } catch (...) {
    explainRefused(Dtype::kString, setLastErrorFromException(), out);
  }
  out->ndim = static_cast<int32_t>(strings.shape.size());
}

void explainStringsToTf(const tb_strings& strings, const tb_convert_back_options* options,
                        tb_explanation* out) {
  try {
    checkToTf(checkedToTfOptions(options));
    explainCopied(strings, workBytes(strings) - strings.nbytes, out);
    std::snprintf(out->device, sizeof(out->device), "CPU:0");
    std::snprintf(out->reason, sizeof(out->reason), "%s", kToTfReason);
  } catch (...) {
    explainRefused(Dtype::kString, setLastErrorFromException(), out);
  }
  out->ndim = static_cast<int32_t>(strings.shape.size());
}

int64_t workBytes(const tb_strings& strings) noexcept {
  int64_t bytes;
  if (__builtin_mul_overflow(strings.count, 24, &bytes) ||
      __builtin_add_overflow(bytes, strings.nbytes, &bytes)) {
    return INT64_MAX;
  }
  return bytes;
}

}  // namespace tensor_bridge
