#include "core/dlpack_import.h"

#include "core/error.h"
#include "core/exit.h"
#include "core/layout.h"
#include "core/managed_tensor.h"
#include "core/owner_counter.h"

namespace tensor_bridge {
namespace {

// Bytes from the first element to the last.
int64_t extentBytes(const DLTensor& tensor, int64_t count, int64_t itemsize) {
  int64_t last = 0;
  if (count > 0) {
    for (int i = 0; i < tensor.ndim; ++i) {
      const int64_t stride = tensor.strides[i];
      if (stride < 0) {
        throwError(ErrorCode::kUnsupportedType,
                   "torch has no negative strides, dimension %d has stride %lld; copy the array on "
                   "the producer's side first",
                   i, static_cast<long long>(stride));
      }
      int64_t step;
      if (__builtin_mul_overflow(tensor.shape[i] - 1, stride, &step) ||
          __builtin_add_overflow(last, step, &last)) {
        throwError(ErrorCode::kInvalidHandle, "the DLPack strides overflow 64 bits");
      }
    }
    ++last;
  }
  int64_t bytes;
  if (!byteCount(last, itemsize, &bytes)) {
    throwError(ErrorCode::kInvalidHandle, "the DLPack strides overflow 64 bits");
  }
  return bytes;
}

void deleteUnversioned(DLManagedTensorVersioned* self) {
  auto* old = static_cast<DLManagedTensor*>(self->manager_ctx);
  if (old->deleter != nullptr) old->deleter(old);
  delete self;
}

void deleteManaged(void* managed) {
  auto* tensor = static_cast<DLManagedTensorVersioned*>(managed);
  if (tensor->deleter != nullptr) tensor->deleter(tensor);
}

}  // namespace

Dtype dtypeFromDlpack(DLDataType type) {
  if (type.lanes != 1) {
    throwError(ErrorCode::kUnsupportedDtype, "expected DLPack elements of one lane, got %u lanes",
               static_cast<unsigned>(type.lanes));
  }
  for (size_t i = 0; i < static_cast<size_t>(Dtype::kCount); ++i) {
    const auto dtype = static_cast<Dtype>(i);
    const DtypeInfo& info = dtypeInfo(dtype);
    // In the table, 255 means that DLPack has no code.
    if (info.torch_scalar >= 0 && info.dl.code != 255 && info.dl.code == type.code &&
        info.dl.bits == type.bits) {
      return dtype;
    }
  }
  throwError(ErrorCode::kUnsupportedDtype, "torch has nothing for DLPack type code %u with %u bits",
             static_cast<unsigned>(type.code), static_cast<unsigned>(type.bits));
}

void importDlpack(DLManagedTensorVersioned* managed, TensorRef* ref) {
  // Before any other field: another major version has another layout.
  if (managed->version.major != DLPACK_MAJOR_VERSION) {
    throwError(ErrorCode::kInvalidHandle, "expected a DLPack %d structure, got version %u.%u",
               DLPACK_MAJOR_VERSION, managed->version.major, managed->version.minor);
  }
  const DLTensor& tensor = managed->dl_tensor;
  if (tensor.device.device_type != kDLCPU && tensor.device.device_type != kDLCUDA &&
      tensor.device.device_type != kDLROCM) {
    throwError(ErrorCode::kUnsupportedDevice,
               "expected DLPack memory on a CPU or GPU, got device type %d",
               static_cast<int>(tensor.device.device_type));
  }
  if (tensor.ndim < 0 || tensor.ndim > kMaxDims || (tensor.ndim > 0 && tensor.shape == nullptr)) {
    throwError(ErrorCode::kInvalidHandle, "expected a DLPack shape of 0 to %d dimensions, got %d%s",
               kMaxDims, tensor.ndim, tensor.shape == nullptr ? " and no shape" : "");
  }
  const Dtype dtype = dtypeFromDlpack(tensor.dtype);
  const int64_t itemsize = dtypeInfo(dtype).itemsize;
  int64_t count;
  int64_t bytes;
  if (!elementCount(tensor.shape, tensor.ndim, &count) || !byteCount(count, itemsize, &bytes)) {
    throwError(ErrorCode::kInvalidHandle, "the DLPack shape is negative or overflows 64 bits");
  }
  if (count > 0 && tensor.data == nullptr) {
    throwError(ErrorCode::kInvalidHandle, "the DLPack structure has %lld elements and no memory",
               static_cast<long long>(count));
  }
  ref->dl = tensor;
  ref->dl.data =
      tensor.data == nullptr ? nullptr : static_cast<char*>(tensor.data) + tensor.byte_offset;
  ref->dl.byte_offset = 0;
  if (!isAligned(ref->dl.data, static_cast<size_t>(itemsize > 8 ? 8 : itemsize))) {
    throwError(ErrorCode::kInvalidHandle,
               "the DLPack memory is not aligned for its dtype %s; copy the array on the "
               "producer's side first",
               dtypeInfo(dtype).name);
  }
  const bool row_major = isRowMajor(tensor.shape, tensor.strides, tensor.ndim);
  ref->nbytes = row_major ? bytes : extentBytes(tensor, count, itemsize);
  if (row_major) ref->dl.strides = nullptr;
  ref->dtype = dtype;
  ref->read_only = (managed->flags & DLPACK_FLAG_BITMASK_READ_ONLY) != 0;
  const TensorView view = *ref;
  // Still without an owner: `managed` is the caller's until nothing can fail any more.
  tb_tensor* holder = makeManagedTensor(ref).release();
  holder->ref.owner = managed;
  holder->ref.release = deleteManaged;
  *ref = TensorRef(view, holder, view.read_only ? releaseManaged : releaseWritable);
  ref->dl.shape = holder->shape.data();
  if (!row_major) ref->dl.strides = holder->strides.data();
  countOwner(1);
}

DLManagedTensorVersioned* fromUnversioned(DLManagedTensor* managed) {
  auto* result = new DLManagedTensorVersioned{};
  result->version.major = DLPACK_MAJOR_VERSION;
  result->version.minor = DLPACK_MINOR_VERSION;
  result->manager_ctx = managed;
  result->deleter = deleteUnversioned;
  result->dl_tensor = managed->dl_tensor;
  return result;
}

bool isFromUnversioned(const DLManagedTensorVersioned* managed) noexcept {
  return managed->deleter == deleteUnversioned;
}

void releaseManaged(void* owner) {
  if (processExiting()) return;
  countOwner(-1);
  dropReference(static_cast<tb_tensor*>(owner));
}

void releaseWritable(void* owner) { releaseManaged(owner); }

namespace {

void* retainManaged(void* owner) noexcept {
  static_cast<tb_tensor*>(owner)->references.fetch_add(1, std::memory_order_relaxed);
  return owner;
}

}  // namespace

const OwnerKind kManagedOwner = {OwnerTag::kReadOnlyDlpack, releaseManaged, retainManaged, nullptr,
                                 nullptr};
const OwnerKind kWritableOwner = {OwnerTag::kWritableDlpack, releaseWritable, retainManaged,
                                  nullptr, nullptr};

}  // namespace tensor_bridge
