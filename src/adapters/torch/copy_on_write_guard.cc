// Storages over foreign memory for torch 2.6 to 2.12: StorageImpl materialises only storages whose
// deleter is c10::impl::cow::cow_deleter; GuardedStorage holds a second reference to that context,
// so that torch's own materializer always copies and never hands TensorFlow's buffer to the writer.
// A storage of torch's own memory cannot keep its bytes for others, and writers of lists are not
// guarded: no storage on a GPU is shared here.

#include <c10/core/impl/COW.h>
#include <c10/core/impl/COWDeleter.h>

#include <atomic>
#include <memory>
#include <new>

#include "adapters/torch/copy_on_write.h"
#include "adapters/torch/foreign_owner.h"
#include "adapters/torch/list_writers.h"
#include "tensor_bridge/c_api.h"

namespace tensor_bridge {
namespace {

using CowContext = c10::impl::cow::COWDeleterContext;

// Holds the second reference to the COW context until the storage dies. Two threads must not make
// the first write at the same time here: torch decrements the context twice.
struct GuardedStorage final : c10::StorageImpl {
  GuardedStorage(const TensorRef& ref, c10::Device device, c10::Allocator* allocator)
      : c10::StorageImpl(use_byte_size_t(), c10::SymInt(ref.nbytes),
                         c10::DataPtr(ref.dl.data, nullptr, ref.release, device), allocator,
                         /*resizable=*/true) {}
  ~GuardedStorage() override { drop(); }
  void release_resources() override {
    c10::StorageImpl::release_resources();
    drop();
  }
  void guard(TensorRef* ref) {
    owner_ = ref->owner;
    release_ = ref->release;
    auto* context =
        new CowContext(std::unique_ptr<void, c10::DeleterFnPtr>(ref->take(), ref->release));
    context->increment_refcount();
    guard_ = context;
    set_data_ptr_noswap(c10::DataPtr(ref->dl.data, context, c10::impl::cow::cow_deleter, device()));
  }
  void drop() {
    if (auto* guard = guard_.exchange(nullptr)) c10::impl::cow::cow_deleter(guard);
  }

  std::atomic<CowContext*> guard_{nullptr};
  void* owner_ = nullptr;
  ReleaseFn release_ = nullptr;
};

}  // namespace

[[gnu::no_stack_protector]] c10::intrusive_ptr<c10::StorageImpl> makeForeignStorage(
    TensorRef* ref, c10::Device device, int32_t on_write, bool take) {
  if (on_write == TB_ON_WRITE_COPY && device.is_cpu()) {
    auto storage =
        c10::make_intrusive<GuardedStorage>(*ref, device, c10::GetAllocator(device.type()));
    if (take) storage->guard(ref);
    return c10::intrusive_ptr<c10::StorageImpl>(std::move(storage));
  }
  auto storage = unguardedStorage(ref, device, take);
  if (on_write != TB_ON_WRITE_ALIAS) storage->set_throw_on_mutable_data_ptr();
  return storage;
}

void attachOwner(c10::StorageImpl* storage, TensorRef* ref) noexcept {
  if (auto* guarded = dynamic_cast<GuardedStorage*>(storage)) {
    guarded->guard(ref);
  } else {
    giveOwner(storage, ref);
  }
}

namespace {

Foreign foreignOf(const c10::StorageImpl* storage) noexcept {
  const c10::DataPtr& current =
      const_cast<c10::StorageImpl*>(storage)->_mutable_data_ptr_no_checks();
  if (const auto* guarded = dynamic_cast<const GuardedStorage*>(storage)) {
    if (guarded->guard_ == nullptr || current.get_context() != guarded->guard_) return {};
    return {kindOf(guarded->release_), guarded->owner_};
  }
  return foreignBehind(current);
}

}  // namespace

const OwnerKind* foreignKind(const c10::StorageImpl* storage, void** held) noexcept {
  return kindHeld(foreignOf(storage), held);
}

bool canShareStorage() noexcept { return false; }
void* shareStorage(c10::StorageImpl*, void**) { throw std::bad_alloc(); }
ReleaseFn takePreviousOf(c10::StorageImpl* storage, void** previous) noexcept {
  auto* guarded = dynamic_cast<GuardedStorage*>(storage);
  if (guarded == nullptr) return nullptr;
  // Before the first write the guard keeps torch from writing to the other framework's memory.
  if (storage->_mutable_data_ptr_no_checks().get_context() == guarded->guard_) return nullptr;
  *previous = guarded->guard_.exchange(nullptr);
  return *previous == nullptr ? nullptr : c10::impl::cow::cow_deleter;
}
void releaseSharedBytes(void*) {}
bool isSharedStorage(const c10::StorageImpl*) noexcept { return false; }
Obstacle sharingObstacle(const c10::StorageImpl*) noexcept { return Obstacle::kNone; }
bool isHooked(const c10::StorageImpl*) noexcept { return false; }
bool isProtected(const c10::StorageImpl* storage) noexcept {
  return dynamic_cast<const GuardedStorage*>(storage) != nullptr;
}

bool canGuardListWriters() noexcept { return false; }
void guardListWriters() {}

}  // namespace tensor_bridge
