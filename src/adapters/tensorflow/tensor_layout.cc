#include "adapters/tensorflow/tensor_layout.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <typeinfo>
#include <utility>

#include "adapters/tensorflow/handles.h"

namespace tensor_bridge {
namespace {

// Asks the kernel whether memory can be read. If TensorFlow has another layout, a field that is
// read as an address may hold something else; the trial must notice this instead of crashing.
class Probe {
 public:
  Probe() noexcept {
    if (pipe2(ends_, O_CLOEXEC | O_NONBLOCK) != 0) ends_[0] = ends_[1] = -1;
  }
  ~Probe() {
    if (ends_[0] >= 0) close(ends_[0]);
    if (ends_[1] >= 0) close(ends_[1]);
  }
  Probe(const Probe&) = delete;
  Probe& operator=(const Probe&) = delete;

  // Whether `size` bytes, less than a page, can be read. False if the kernel cannot be asked.
  bool bytes(const void* memory, size_t size) const noexcept {
    auto* first = static_cast<char*>(const_cast<void*>(memory));
    const iovec both[] = {{first, 1}, {first + size - 1, 1}};
    char read_back[2];
    // Not writev(): sanitizers look at the bytes themselves.
    return syscall(SYS_writev, ends_[1], both, 2) == 2 && read(ends_[0], read_back, 2) == 2;
  }
  // A tensorflow::Tensor, and its buffer if there is one.
  bool tensor(const void* tensor) const noexcept {
    if (!bytes(tensor, tensor_layout::kTensorBytes)) return false;
    const TensorBuffer* buffer = bufferOf(tensor);
    return buffer == nullptr || bytes(buffer, sizeof(*buffer));
  }
  // An object with virtual functions, and the name of its class.
  bool object(const void* object) const noexcept {
    const char* vtable;
    if (!bytes(object, sizeof(vtable))) return false;
    std::memcpy(&vtable, object, sizeof(vtable));
    const std::type_info* type;
    if (!bytes(vtable - sizeof(type), sizeof(type))) return false;
    std::memcpy(&type, vtable - sizeof(type), sizeof(type));
    return type == nullptr || (bytes(type, sizeof(*type)) && bytes(type->name(), 1));
  }
  bool insideOf(const void* tf_tensor) const noexcept {
    return bytes(tf_tensor, sizeof(void*)) && tensor(tensorInside(tf_tensor));
  }

 private:
  int ends_[2];
};

struct Sample {
  int tf_enum;
  int itemsize;
  int ndim;
  int64_t shape[6];
};

// Each way of storing sizes, with few and with the most dimensions, several dtypes, and the
// boundaries between the ways (65534 is the largest size that fits in the first).
constexpr Sample kSamples[] = {
    {1, 4, 0, {}},           {9, 8, 1, {5}},
    {4, 1, 1, {65534}},      {10, 1, 1, {65535}},
    {6, 1, 2, {70000, 3}},   {19, 2, 3, {2, 70001, 1}},
    {2, 8, 4, {2, 3, 4, 5}}, {22, 4, 6, {1, 2, 3, 4, 5, 6}},
    {1, 4, 2, {0, 7}},
};

int64_t countOf(const Sample& sample) {
  int64_t count = 1;
  for (int i = 0; i < sample.ndim; ++i) count *= sample.shape[i];
  return count;
}

bool agrees(const TfApi& api, const Probe& probe, const Sample& sample, TF_Status* status) {
  const int64_t count = countOf(sample);
  const TfTensor made =
      owned(api, api.TF_AllocateTensor(sample.tf_enum, sample.shape, sample.ndim,
                                       static_cast<size_t>(count * sample.itemsize)));
  if (made == nullptr) return false;
  const TfeHandle owner = owned(api, api.TFE_NewTensorHandle(made.get(), status));
  if (owner == nullptr) return false;
  TFE_TensorHandle* handle = owner.get();
  const void* tensor = api.localTensor(handle);
  int64_t shape[6];
  TensorFields fields;
  // Every sample is readable by design, so a failed read is a mismatch.
  bool same =
      tensor != nullptr && probe.tensor(tensor) && readTensorFields(tensor, shape, &fields) &&
      fields.tf_enum == api.TFE_TensorHandleDataType(handle) &&
      fields.ndim == api.TFE_TensorHandleNumDims(handle, status) && fields.num_elements == count;
  for (int i = 0; same && i < sample.ndim; ++i) {
    same = shape[i] == api.TFE_TensorHandleDim(handle, i, status);
  }
  return same && (count == 0 || fields.data == api.TFE_TensorHandleDevicePointer(handle, status));
}

bool shows(const TfApi& api, const Probe& probe, const void* tf_tensor, const Sample& sample,
           const void* data) {
  const auto* tensor = static_cast<const TF_Tensor*>(tf_tensor);
  int64_t shape[6];
  TensorFields fields;
  bool same = probe.insideOf(tensor) && readTensorFields(tensorInside(tensor), shape, &fields) &&
              fields.tf_enum == sample.tf_enum && fields.ndim == sample.ndim &&
              fields.data == data && api.TF_TensorType(tensor) == sample.tf_enum &&
              api.TF_NumDims(tensor) == sample.ndim && api.TF_TensorData(tensor) == data;
  for (int i = 0; same && i < sample.ndim; ++i) {
    same = shape[i] == sample.shape[i] && api.TF_Dim(tensor, i) == sample.shape[i];
  }
  return same;
}

// A reference to the buffer of `made`, once `made` is gone.
bool bufferAgrees(const TfApi& api, const Probe& probe, const Sample& sample) {
  const auto bytes = static_cast<size_t>(countOf(sample) * sample.itemsize);
  void* memory = nullptr;
  if (posix_memalign(&memory, 64, bytes + 64) != 0) return false;
  bool freed = false;
  TfTensor made =
      owned(api, api.TF_NewTensor(
                     sample.tf_enum, sample.shape, sample.ndim, memory, bytes,
                     [](void*, size_t, void* flag) { *static_cast<bool*>(flag) = true; }, &freed));
  bool same = made != nullptr && shows(api, probe, made.get(), sample, memory);
  TensorBuffer* buffer = same ? bufferOf(tensorInside(made.get())) : nullptr;
  same = buffer != nullptr && buffer->references == 1 && buffer->data == memory;
  if (same) retainBuffer(buffer);
  made.reset();
  if (same) {
    BorrowedTensor borrowed;
    same =
        !freed && buffer->references == 1 &&
        BorrowedTensor::make(api, sample.tf_enum, sample.shape, sample.ndim, buffer, &borrowed) &&
        shows(api, probe, &borrowed, sample, memory);
    dropBuffer(api, buffer);
    same = same && freed;
  }
  // TensorFlow still holds the buffer if it was not released.
  if (freed) std::free(memory);
  return same;
}

// A float tensor in TensorFlow's own memory, large enough for slices at multiples of 64 bytes.
TfTensor allocateRows(const TfApi& api) {
  const int64_t shape[] = {4, 16};
  return owned(api, api.TF_AllocateTensor(1, shape, 2, 4 * 16 * sizeof(float)));
}

// A reference to the buffer of `made`, which is deleted. Null if there is none.
TensorBuffer* bufferLeftBy(TfTensor made) {
  TensorBuffer* buffer = made == nullptr ? nullptr : bufferOf(tensorInside(made.get()));
  if (buffer != nullptr) retainBuffer(buffer);
  return buffer;
}

// One reference, several references, and a TF_Tensor beside ours.
bool countsReferences(const TfApi& api) {
  TfTensor made = allocateRows(api);
  TensorBuffer* buffer = made == nullptr ? nullptr : bufferOf(tensorInside(made.get()));
  if (buffer == nullptr) return false;
  bool same = bufferLetGo(api, buffer);
  retainBuffer(buffer);
  same = same && !bufferLetGo(api, buffer);
  made.reset();
  same = same && bufferLetGo(api, buffer);
  retainBuffer(buffer);
  same = same && !bufferLetGo(api, buffer);
  dropBuffer(api, buffer);
  same = same && bufferLetGo(api, buffer);
  dropBuffer(api, buffer);
  return same;
}

// A part of a buffer: beside the whole, beside another part, and as the only reference.
bool seesTheRoot(const TfApi& api, TensorSlice slice) {
  TfTensor made = allocateRows(api);
  TensorBuffer* whole = made == nullptr ? nullptr : bufferOf(tensorInside(made.get()));
  if (whole == nullptr) return false;
  TensorBytes part = slice(tensorInside(made.get()), 1, 3);
  TensorBytes other = slice(tensorInside(made.get()), 3, 4);
  TensorBuffer* buffer = bufferOf(part.bytes);
  bool same = buffer != nullptr && buffer != whole && bufferOf(other.bytes) != nullptr &&
              buffer->data == static_cast<char*>(whole->data) + 64;
  same = same && !bufferLetGo(api, buffer) && !bufferLetGo(api, whole);
  made.reset();
  same = same && !bufferLetGo(api, buffer);
  api.Tensor_destroy(other.bytes);
  same = same && bufferLetGo(api, buffer);
  api.Tensor_destroy(part.bytes);
  return same;
}

// Memory that is not TensorFlow's is never let go; neither is a part of it after the whole is gone.
bool seesForeignMemory(const TfApi& api, TensorSlice slice) {
  alignas(64) static float memory[4 * 16];
  const int64_t shape[] = {4, 16};
  TfTensor made = owned(
      api,
      api.TF_NewTensor(1, shape, 2, memory, sizeof(memory), [](void*, size_t, void*) {}, nullptr));
  if (made == nullptr) return false;
  TensorBytes part = slice(tensorInside(made.get()), 1, 3);
  TensorBuffer* buffer = bufferLeftBy(std::move(made));
  if (buffer == nullptr) {
    api.Tensor_destroy(part.bytes);
    return false;
  }
  const TensorBuffer* of_part = bufferOf(part.bytes);
  bool same = buffer->references == 2 && of_part != nullptr && of_part != buffer;
  dropBuffer(api, buffer);
  same = same && buffer->references == 1 && !bufferLetGo(api, buffer) && !bufferLetGo(api, of_part);
  api.Tensor_destroy(part.bytes);
  return same;
}

// A handle beside ours, which only the caller of an operator may hold.
bool seesHandles(const TfApi& api) {
  if (api.TFE_NewTensorHandle == nullptr) return true;
  TfTensor made = allocateRows(api);
  if (made == nullptr) return false;
  TF_Status* status = api.TF_NewStatus();
  TfeHandle handle = owned(api, api.TFE_NewTensorHandle(made.get(), status));
  api.TF_DeleteStatus(status);
  TensorBuffer* buffer = bufferLeftBy(std::move(made));
  bool same = handle != nullptr && buffer != nullptr && !bufferLetGo(api, buffer);
  handle.reset();
  same = same && bufferLetGo(api, buffer);
  if (buffer != nullptr) dropBuffer(api, buffer);
  return same;
}

}  // namespace

void dropBuffer(const TfApi& api, TensorBuffer* buffer) noexcept {
  // A shape of no dimensions, kept in place: nothing else for the destructor to release.
  struct {
    uint64_t shape[3];
    TensorBuffer* buffer;
  } tensor{{0, 0, 0}, buffer};
  static_assert(sizeof(tensor) == tensor_layout::kTensorBytes);
  api.Tensor_destroy(&tensor);
}

namespace {

bool refCountIsOne(const TfApi& api, const TensorBuffer* buffer) noexcept {
  const struct {
    uint64_t shape[3];
    const TensorBuffer* buffer;
  } tensor{{0, 0, 0}, buffer};
  static_assert(sizeof(tensor) == tensor_layout::kTensorBytes);
  return api.Tensor_RefCountIsOne(&tensor);
}

// The name of the class of an object with virtual functions; "" if it is not known.
const char* className(const void* object) noexcept {
  const char* vtable;
  std::memcpy(&vtable, object, sizeof(vtable));
  const std::type_info* type;
  std::memcpy(&type, vtable - sizeof(type), sizeof(type));
  return type == nullptr ? "" : type->name();
}

// What comes after the members that all buffers have: SubBuffer::root_, BufferBase::alloc_.
const void* firstMember(const TensorBuffer* buffer) noexcept {
  const void* member;
  std::memcpy(&member, reinterpret_cast<const char*>(buffer) + sizeof(TensorBuffer),
              sizeof(member));
  return member;
}

// The buffer that contains a part, found by the part's class: the position of root_buffer() among
// the virtual functions differs between releases. Null for a buffer whose class is unknown.
const TensorBuffer* rootOf(const TensorBuffer* buffer) noexcept {
  const char* name = className(buffer);
  if (*name == '\0') return nullptr;
  if (std::strstr(name, "9SubBufferI") == nullptr) return buffer;
  return static_cast<const TensorBuffer*>(firstMember(buffer));
}

// Whether a whole buffer is separately allocated memory. A read-only file that ImmutableConst maps,
// and a part of a ScopedAllocator's buffer, look like it.
bool isAllocated(const TensorBuffer* root) noexcept {
  if (std::strstr(className(root), "6BufferI") == nullptr) return true;
  const void* allocator = firstMember(root);
  const char* name = allocator == nullptr ? "" : className(allocator);
  return *name != '\0' && std::strstr(name, "Memmapped") == nullptr &&
         std::strstr(name, "ScopedAllocator") == nullptr;
}

}  // namespace

bool bufferLetGo(const TfApi& api, const TensorBuffer* buffer) noexcept {
  if (api.Tensor_RefCountIsOne == nullptr || !refCountIsOne(api, buffer)) return false;
  const TensorBuffer* root = rootOf(buffer);
  return root != nullptr && (root == buffer || refCountIsOne(api, root)) && isAllocated(root);
}

namespace {

// Whether bufferLetGo() finds what it reads of a buffer and of a part of it. Not the allocator of a
// BufferBase: no function of the C API makes such a buffer, only kernels do.
bool classesAreKnown(const TfApi& api, TensorSlice slice) {
  const Probe probe;
  const auto known = [&](const TensorBuffer* buffer) {
    return buffer != nullptr && probe.bytes(buffer, sizeof(*buffer) + sizeof(void*)) &&
           probe.object(buffer);
  };
  const TfTensor made = allocateRows(api);
  if (made == nullptr || !probe.insideOf(made.get())) return false;
  const TensorBuffer* whole = bufferOf(tensorInside(made.get()));
  if (!known(whole)) return false;
  TensorBytes part = slice(tensorInside(made.get()), 1, 3);
  const bool same = known(bufferOf(part.bytes)) && firstMember(bufferOf(part.bytes)) == whole;
  api.Tensor_destroy(part.bytes);
  return same;
}

void startBorrowed(const TfApi& api, int tf_enum, int ndim, int64_t count,
                   const TensorBuffer* buffer, BorrowedTensor* out) noexcept {
  out->interface = &out->interface_vtable;
  out->interface_vtable = api.tensor_interface_vtable;
  std::memset(out->tensor, 0, sizeof(out->tensor));
  out->tensor[tensor_layout::kDtypeAt] = static_cast<uint8_t>(tf_enum);
  out->tensor[tensor_layout::kRankAt] = static_cast<uint8_t>(ndim);
  std::memcpy(out->tensor + tensor_layout::kElementsAt, &count, sizeof(count));
  std::memcpy(out->tensor + tensor_layout::kBufferAt, &buffer, sizeof(void*));
}

}  // namespace

bool BorrowedTensor::make(const TfApi& api, int tf_enum, const int64_t* shape, int ndim,
                          const TensorBuffer* buffer, BorrowedTensor* out) noexcept {
  int64_t count = 1;
  int64_t largest = 0;
  for (int i = 0; i < ndim; ++i) {
    count *= shape[i];
    largest = shape[i] > largest ? shape[i] : largest;
  }
  // TensorShape::kMaxRep16 and kMaxRep32.
  const bool small = ndim <= tensor_layout::kMost16Bits && largest < 0xffff;
  if (!small && (ndim > tensor_layout::kMost32Bits || largest >= 0xffffffff)) return false;
  startBorrowed(api, tf_enum, ndim, count, buffer, out);
  out->tensor[tensor_layout::kSizesKeptAt] =
      small ? tensor_layout::kIn16Bits : tensor_layout::kIn32Bits;
  for (int i = 0; i < ndim; ++i) {
    const auto size = static_cast<uint32_t>(shape[i]);
    const auto size16 = static_cast<uint16_t>(shape[i]);
    if (small) {
      std::memcpy(out->tensor + 2 * i, &size16, sizeof(size16));
    } else {
      std::memcpy(out->tensor + 4 * i, &size, sizeof(size));
    }
  }
  return true;
}

void BorrowedTensor::makeFlat(const TfApi& api, int tf_enum, int64_t count,
                              const TensorBuffer* buffer, BorrowedTensor* out) noexcept {
  startBorrowed(api, tf_enum, 1, count, buffer, out);
}

const void* interfaceVtable(const TfApi& api) noexcept {
  const TfTensor made = allocateRows(api);
  const Probe probe;
  if (made == nullptr || !probe.insideOf(made.get())) return nullptr;
  const void* vtable;
  std::memcpy(&vtable, static_cast<const uint8_t*>(tensorInside(made.get())) - sizeof(void*),
              sizeof(vtable));
  return vtable;
}

bool tensorBufferAgrees(const TfApi& api) noexcept {
  const Probe probe;
  bool same = true;
  for (const Sample& sample : kSamples) same = same && bufferAgrees(api, probe, sample);
  return same;
}

bool tensorLetGoAgrees(const TfApi& api, TensorSlice slice) noexcept {
  return classesAreKnown(api, slice) && countsReferences(api) && seesTheRoot(api, slice) &&
         seesForeignMemory(api, slice) && seesHandles(api);
}

bool tensorLayoutAgrees(const TfApi& api) noexcept {
  TF_Status* status = api.TF_NewStatus();
  const Probe probe;
  bool same = true;
  for (const Sample& sample : kSamples) same = same && agrees(api, probe, sample, status);
  api.TF_DeleteStatus(status);
  return same;
}

}  // namespace tensor_bridge
