// Foreign: memory of another framework as a TensorRef, which is what the adapter sees. It records
// whether it was written to and released. Not for: TensorFlow; this folder runs without it.
#ifndef TENSOR_BRIDGE_TESTS_TORCH_FOREIGN_H_
#define TENSOR_BRIDGE_TESTS_TORCH_FOREIGN_H_

#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "adapters/torch/copy_on_write.h"
#include "adapters/torch_abi.h"

extern "C" const tensor_bridge::TorchAdapter* tb_torch_adapter_table(
    uint32_t host_abi, const tensor_bridge::TorchHost* host);

namespace tensor_bridge::testing {

inline const std::vector<float> kSix = {1, 2, 3, 4, 5, 6};

/// The owner lives as long as the test. The release frees its memory, so that a sanitizer sees late
/// reads.
class Foreign {
 public:
  template <typename T>
  Foreign(const std::vector<T>& values, std::vector<int64_t> shape, Dtype dtype, int itemsize)
      : shape_(std::move(shape)), size_(values.size() * sizeof(T)), original_(size_) {
    // Aligned like TensorFlow's buffers.
    memory_.reset(static_cast<unsigned char*>(std::aligned_alloc(64, (size_ / 64 + 1) * 64)));
    if (size_ > 0) {
      std::memcpy(memory_.get(), values.data(), size_);
      std::memcpy(original_.data(), values.data(), size_);
    }
    int64_t count = 1;
    for (int64_t dim : shape_) count *= dim;
    ref_.dl.data = size_ == 0 ? nullptr : memory_.get();
    ref_.dl.device = DLDevice{kDLCPU, 0};
    ref_.dl.ndim = static_cast<int32_t>(shape_.size());
    ref_.dl.shape = shape_.data();
    ref_.dtype = dtype;
    ref_.read_only = true;
    ref_.nbytes = count * itemsize;
    ref_.release = release;
    ref_.owner = this;
  }
  static Foreign floats(const std::vector<float>& values, std::vector<int64_t> shape) {
    return Foreign(values, std::move(shape), Dtype::kFloat32, 4);
  }
  Foreign(const Foreign&) = delete;
  /// Checks that memory that was handed over was released once. Otherwise the test still owns it.
  ~Foreign() {
    if (ref_.owner == nullptr) {
      EXPECT_EQ(released(), 1);
    }
    ref_.take();
  }

  /// The memory with its owner. Whoever takes it over takes the only reference.
  TensorRef& ref() {
    ref_.owner = this;
    return ref_;
  }
  const void* data() const { return ref_.dl.data; }
  int released() const { return released_.load(); }
  /// After this call the other framework says that only torch holds the memory.
  void letGo() { let_go_ = true; }
  /// Whether the bytes are unchanged since it was made.
  bool unchanged() const {
    return released() == 0 &&
           (size_ == 0 || std::memcmp(memory_.get(), original_.data(), size_) == 0);
  }
  template <typename T>
  const T* as() const {
    return reinterpret_cast<const T*>(memory_.get());
  }

  static void release(void* owner) {
    auto* self = static_cast<Foreign*>(owner);
    if (self->references_.fetch_sub(1) > 1) return;
    if (self->released_.fetch_add(1) == 0) self->memory_.reset();
  }
  static const OwnerKind& kind() {
    static const OwnerKind kind = {
        OwnerTag::kTfTensor,
        release,
        [](void* owner) noexcept {
          static_cast<Foreign*>(owner)->references_.fetch_add(1);
          return owner;
        },
        [](void** owner, ReleaseFn*) noexcept {
          const auto* self = static_cast<const Foreign*>(*owner);
          return self->let_go_ && self->references_ == 1;
        },
        [](void* owner) { release(owner); },
    };
    return kind;
  }

 private:
  std::vector<int64_t> shape_;
  size_t size_;
  std::vector<unsigned char> original_;
  struct Free {
    void operator()(unsigned char* memory) const { std::free(memory); }
  };
  std::unique_ptr<unsigned char[], Free> memory_;
  TensorRef ref_{TensorView{}, nullptr, nullptr};
  std::atomic<int> references_{1};
  std::atomic<bool> let_go_{false};
  std::atomic<int> released_{0};
};

/// The adapter, with a host that remembers errors.
class Adapter {
 public:
  static const TorchAdapter& table() {
    static const TorchAdapter* table = tb_torch_adapter_table(kTorchAdapterAbi, host());
    return *table;
  }
  static const TorchHost* host() {
    static const OwnerKind kinds[] = {Foreign::kind(), OwnerKind{}};
    static const TorchHost host = [] {
      TorchHost made{};
      made.setError = [](tb_status code, const char* message) {
        status() = code;
        error() = message;
        return code;
      };
      made.countOwner = [](int64_t delta) { owners().fetch_add(delta); };
      made.processExiting = [] { return exiting().load(); };
      made.owner_kinds = kinds;
      return made;
    }();
    return &host;
  }
  /// The adapter's count of torch's bytes that others hold.
  static std::atomic<int64_t>& owners() {
    static std::atomic<int64_t> owners{0};
    return owners;
  }
  static std::atomic<bool>& exiting() {
    static std::atomic<bool> exiting{false};
    return exiting;
  }
  static tb_status& status() {
    static thread_local tb_status status = TB_OK;
    return status;
  }
  static std::string& error() {
    static thread_local std::string error;
    return error;
  }
};

inline WrapSpec specFor(const TensorView& view, WrapAction action,
                        int32_t on_write = TB_ON_WRITE_COPY) {
  WrapSpec spec{};
  spec.action = action;
  spec.on_write = on_write;
  spec.dtype = view.dtype;
  return spec;
}

inline at::Tensor reclaimTensor(tb_torch_tensor* tensor) {
  return at::Tensor(c10::intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>::reclaim(
      reinterpret_cast<c10::TensorImpl*>(tensor)));
}

/// Calls wrap() like the bridge. Returns an undefined tensor after a failure.
inline at::Tensor wrapped(TensorRef* ref, const WrapSpec& spec) {
  tb_torch_tensor* out = nullptr;
  const tb_status status = Adapter::table().wrap(ref, &spec, &out);
  EXPECT_EQ(status, TB_OK) << Adapter::error();
  return status == TB_OK ? reclaimTensor(out) : at::Tensor();
}

/// A tensor that shares `foreign`'s memory and owns it.
inline at::Tensor shared(Foreign* foreign, int32_t on_write = TB_ON_WRITE_COPY) {
  return wrapped(&foreign->ref(), specFor(foreign->ref(), WrapAction::kShare, on_write));
}

/// Floats of the other framework, and a tensor that shares them.
struct SharedFloats {
  SharedFloats(const std::vector<float>& values, std::vector<int64_t> shape,
               int32_t on_write = TB_ON_WRITE_COPY)
      : foreign(Foreign::floats(values, std::move(shape))), tensor(shared(&foreign, on_write)) {}

  Foreign foreign;
  at::Tensor tensor;
};

inline c10::StorageImpl* storageOf(const at::Tensor& tensor) {
  return tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl();
}

inline bool showsForeign(const at::Tensor& tensor) {
  const OwnerKind* kind = foreignKind(storageOf(tensor));
  EXPECT_TRUE(kind == nullptr || kind->release == Foreign::release);
  return kind != nullptr;
}

/// The tensor as an argument for the adapter. The caller still owns it.
inline tb_torch_tensor* borrow(const at::Tensor& tensor) {
  return reinterpret_cast<tb_torch_tensor*>(tensor.unsafeGetTensorImpl());
}

inline TorchFacts factsOf(const at::Tensor& tensor, bool hold = false) {
  TorchFacts facts;
  Adapter::table().describe(borrow(tensor), hold, &facts);
  return facts;
}

/// A reference like TensorFlow's to the bytes of a tensor of floats, and their original values.
class Kept {
 public:
  explicit Kept(const at::Tensor& tensor) { share(tensor, TB_OK); }
  /// Empty if another thread is writing.
  static Kept attempted(const at::Tensor& tensor) {
    Kept kept;
    kept.share(tensor, TB_COPY_REQUIRED);
    return kept;
  }
  /// Shares like to_tf: holds memory that the other framework still owns, and keeps torch's own
  /// memory. Empty if there is an obstacle.
  static Kept orHeld(const at::Tensor& tensor) {
    Kept kept;
    const TorchFacts facts = factsOf(tensor, /*hold=*/true);
    if (facts.foreign_owner != nullptr) {
      kept.owner_ = facts.foreign_owner;
      kept.release_ = facts.foreign_release;
      kept.note(facts.data, tensor.numel());
    } else if (facts.obstacle == Obstacle::kNone) {
      kept.share(tensor, TB_COPY_REQUIRED);
    }
    return kept;
  }
  Kept(Kept&& other) noexcept
      : data_(other.data_),
        owner_(std::exchange(other.owner_, nullptr)),
        release_(other.release_),
        were_(std::move(other.were_)) {}
  ~Kept() { release(); }

  void release() {
    if (taken()) release_(std::exchange(owner_, nullptr));
  }
  bool taken() const { return owner_ != nullptr; }
  bool isForeigns() const { return release_ == Foreign::release; }
  const float* data() const { return data_; }
  std::vector<float> values() const { return std::vector<float>(data_, data_ + were_.size()); }
  bool unchanged() const { return std::equal(were_.begin(), were_.end(), data_); }

 private:
  Kept() = default;
  void share(const at::Tensor& tensor, tb_status otherwise) {
    void* data = nullptr;
    const tb_status status = Adapter::table().share(borrow(tensor), &owner_, &release_, &data);
    if (status == TB_OK) {
      note(data, tensor.numel());
    } else {
      EXPECT_EQ(status, otherwise) << Adapter::error();
    }
  }
  void note(const void* data, int64_t count) {
    data_ = static_cast<const float*>(data);
    were_.assign(data_, data_ + count);
  }

  const float* data_ = nullptr;
  void* owner_ = nullptr;
  ReleaseFn release_ = nullptr;
  std::vector<float> were_;
};

/// The elements, read through a const pointer; the tensor must be contiguous.
template <typename T>
std::vector<T> valuesOf(const at::Tensor& tensor) {
  const T* data = static_cast<const T*>(tensor.const_data_ptr());
  return std::vector<T>(data, data + tensor.numel());
}

}  // namespace tensor_bridge::testing

#endif  // TENSOR_BRIDGE_TESTS_TORCH_FOREIGN_H_
