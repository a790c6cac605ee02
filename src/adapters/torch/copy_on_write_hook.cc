// Storages over foreign memory for torch 2.13, 2.14 and 2.15: c10::StorageImpl has a pluggable
// materializer (set_materializer, added by pytorch #179063); the hook runs before any mutable
// pointer is handed out. torch's own COW (cow::lazy_clone_storage) is not used: its last reference
// gives the original buffer to the writer, and in 2.13 it asserts after resize_.

#include <pthread.h>

#if !defined(__x86_64__)
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <array>
#include <atomic>
#include <memory>
#include <mutex>

#include "adapters/torch/copy_on_write.h"
#include "adapters/torch/foreign_owner.h"
#include "adapters/torch/kept_memory.h"
#include "tensor_bridge/c_api.h"

namespace tensor_bridge {
namespace {

constexpr const char kRaiseMessage[] =
    "this tensor shares memory with TensorFlow, or with a DLPack producer, and was converted with "
    "on_write=\"raise\": it may not be written to, and torch asked for a pointer to write through. "
    "clone() it first, or convert it with on_write=\"copy\"";

[[noreturn]] void throwWrite() {
  throw c10::BufferError({__func__, __FILE__, static_cast<uint32_t>(__LINE__)}, kRaiseMessage);
}

// First writes to different storages should not wait for each other's copies; first writes to the
// same storage must.
class WriteMutexes {
 public:
  static WriteMutexes& all() {
    // Never destroyed: threads may write while the process exits.
    static WriteMutexes* const made = new WriteMutexes;
    return *made;
  }
  std::mutex& of(const c10::StorageImpl* storage) {
    return mutexes_[(reinterpret_cast<uintptr_t>(storage) >> 6) % mutexes_.size()];
  }

 private:
  // A child of fork() has only the thread that forked: a mutex that another thread held would stay
  // locked in the child, and the storage half moved.
  WriteMutexes() {
    pthread_atfork([] { all().lockAll(); }, [] { all().unlockAll(); }, [] { all().unlockAll(); });
  }
  void lockAll() {
    for (std::mutex& mutex : mutexes_) mutex.lock();
  }
  void unlockAll() {
    for (std::mutex& mutex : mutexes_) mutex.unlock();
  }

  std::array<std::mutex, 64> mutexes_;
};

std::mutex& writeMutex(const c10::StorageImpl* storage) { return WriteMutexes::all().of(storage); }

// Note [What a storage keeps after a move]
// The storage keeps the memory that it left. A write in place never takes memory away from torch's
// readers: other threads may be in a kernel that fetched its pointer before, for example for other
// rows, and the operator that writes may have such a pointer itself. A pointer that is fetched
// later is the new one: views, detach(), Parameters and autograd's saved tensors reach the memory
// through the storage. Pointers that outlive a call (arrays, exports through DLPack, data_ptr())
// are fetched as mutable ones, and move the storage first.
//
// The bridge cannot tell when the last of those kernels has ended:
// - Nothing is called when a kernel reads, or when it ends.
// - Reference counts do not show it. Two Python threads that use one torch.Tensor, or two C++
//   threads that use one at::Tensor by reference, use one TensorImpl and one StorageImpl, each with
//   a count of one.
// - No waiting time is enough: a kernel's time grows with its tensor, and a thread may be stopped.
// - TensorFlow knows who holds the buffer, not who reads torch's tensor. It does not matter whether
//   TensorFlow let go: until then it keeps the memory itself, and after that only the storage does.
//
// The program can tell: when it has joined its threads, or has none, no kernel is left. So the
// program decides (takePreviousOf()), and until then the storage keeps the memory.
//
// Storages without an allocator, of torch.load, torch.from_numpy, at::from_blob and the like,
// always keep it: an array that was made before they were shared may show it (obstacleOf()).
struct Moved {
  c10::DataPtr own;
  c10::DataPtr previous;
  // See Note [Late hooks].
  bool contended = false;
};

void deleteMoved(void* moved) { delete static_cast<Moved*>(moved); }

// Note [Order of a first write]
// torch reads a storage's flag (has_mutable_data_ptr_check_), hook and pointer as plain fields,
// without a mutex, and clears hook and flag after our hook has returned
// (c10::StorageImpl::mutable_data and maybe_materialize, 2.13 to 2.15). What follows for other
// threads, and what we add:
//
// - A reader has no mutex. Its bytes follow from the pointer, so the copy has to be there before
//   the pointer: a release fence in publish().
// - A writer that finds the flag down takes the pointer as it finds it. The new pointer has to be
//   there before torch lowers the flag, and has to be read after it. x86-64 keeps both orders.
//   Others keep neither, and the second is in torch's code: there membarrier() has every running
//   thread pass a full fence in between.
// - torch lowers hook and flag one after the other. Between the two to_tf must not set them, or
//   the flag goes down for good: shareStorage() looks at both.
//
// The bridge cannot mend one case: at::TensorBase::mutable_data_ptr<T>() reads the pointer before
// the flag (storage_initialized()), and compilers keep the value. If a thread is stopped between
// the two reads while another thread does a whole first write, it then writes to the old memory,
// which TensorFlow sees. mutable_data_ptr() and data_ptr(), which TensorIterator uses, read the
// pointer after the flag.
//
// tests/memory_order searches all orders of x86-64 and of a processor like ARMv8 for what goes
// wrong, with each of these rules and without it (`make memory-order`).
void fenceOtherThreads() {
#if !defined(__x86_64__)
  static const bool registered =
      syscall(__NR_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0) == 0;
  if (registered) syscall(__NR_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0);
#endif
}

void publish(c10::DataPtr&& own, c10::StorageImpl* storage) {
  std::atomic_thread_fence(std::memory_order_release);
  storage->set_data_ptr_noswap(std::move(own));
  fenceOtherThreads();
}

void moveOnto(std::unique_ptr<Moved> moved, c10::StorageImpl* storage) {
  void* data = moved->own.get();
  const c10::Device device = moved->own.device();
  publish(c10::DataPtr(data, moved.release(), deleteMoved, device), storage);
}

// StorageImpl has no function that says whether its flag is up. An explicit instantiation may name
// a private member.
using Flag = bool c10::StorageImpl::*;
Flag flagOfStorage();
template <Flag flag>
struct FlagOfStorage {
  friend Flag flagOfStorage() { return flag; }
};
template struct FlagOfStorage<&c10::StorageImpl::has_mutable_data_ptr_check_>;

// Note [Bytes kept for TensorFlow]
// The bytes of a torch storage that TensorFlow shares. The storage holds one reference, and so does
// each TensorFlow tensor. If there are other references, a write moves the storage onto a copy; if
// there are none, the storage takes its buffer back and nothing is copied.
//
// After a move the storage keeps the previous generation of bytes until its next move (Note [What a
// storage keeps after a move]). It keeps only one generation; otherwise an optimizer that steps a
// parameter between shares would build a chain.
struct SharedBytes {
  std::atomic<int64_t> references;
  c10::DataPtr bytes;
  c10::DataPtr previous;
};

void dropSharedBytes(void* context) {
  auto* shared = static_cast<SharedBytes*>(context);
  if (shared->references.fetch_sub(1, std::memory_order_acq_rel) == 1) delete shared;
}

// Note [Memory that TensorFlow let go]
// A storage over foreign memory holds one reference to it. If that is the only one and nobody else
// can make another, the memory is torch's: the first write takes it over without a copy. The kind
// of the owner tells (OwnerKind::letGo). Why the answer stays true:
//
// - It is asked under the storage's mutex, and so is foreignKind(), the only place where the
//   storage's reference is copied. An earlier share is counted; a later one finds torch's own
//   memory and keeps its bytes as in Note [Bytes kept for TensorFlow].
// - Every other reference is counted beside ours: a tf.Tensor, a variable, a running kernel, a
//   second storage made from the same tensor, the previous memory of a moved storage, a capsule.
// - For TensorFlow's references see Note [Who else may have the buffer], tensor_layout.h.
//
// After that the storage has another deleter, or another owner; the memory does not move, and
// pointers taken before stay valid.
//
// Not on a GPU: Note [GPU ordering].
bool takeOver(c10::DataPtr& current, const Foreign& foreign) {
  const c10::Device device = current.device();
  if (foreign.kind->letGo == nullptr || !device.is_cpu()) return false;
  void* owner = foreign.owner;
  ReleaseFn release = foreign.kind->release;
  const bool let_go = foreign.kind->letGo(&owner, &release);
  if (let_go) release = kindOf(release)->release_taken;
  if (owner == foreign.owner) {
    if (release == foreign.kind->release) return false;
    return current.compare_exchange_deleter(foreign.kind->release, release);
  }
  void* data = current.get();
  static_cast<void>(current.release_context());
  current = c10::DataPtr(data, owner, release, device);
  return let_go;
}

// Whether the memory belongs only to this storage: allocated for it, or taken over.
bool isOrdinary(const c10::DataPtr& data) noexcept {
  const c10::DeleterFnPtr deleter = data.get_deleter();
  if (deleter == ordinaryDeleter() || deleter == giveBackBlock) return true;
  for (const OwnerKind* kind = g_host->owner_kinds; kind->tag != OwnerTag::kNone; ++kind) {
    if (kind->release_taken == deleter) return true;
  }
  return false;
}

void moveForeign(c10::StorageImpl* storage, c10::DataPtr& current, c10::DataPtr* dropped) {
  const c10::Device device = current.device();
  if (!device.is_cpu()) {
    // Memory of torch's own allocator, because record_stream() does nothing for other memory. The
    // old memory is not released while kernels still read it.
    c10::DataPtr own = cloneOnDevice(current.get(), storage->nbytes(), device);
    *dropped = std::move(current);
    publish(std::move(own), storage);
    return;
  }
  auto moved = std::make_unique<Moved>();
  moved->own = storage->allocator()->clone(current.get(), storage->nbytes());
  moved->previous = std::move(current);
  moveOnto(std::move(moved), storage);
}

void moveShared(c10::StorageImpl* storage, c10::DataPtr& current, c10::DataPtr* dropped) {
  auto* shared = static_cast<SharedBytes*>(current.get_context());
  auto moved = std::make_unique<Moved>();
  // Only shareStorage() adds references, under the mutex; a count of one is the storage's own.
  if (shared->references.load(std::memory_order_acquire) == 1) {
    moved->own = std::move(shared->bytes);
    *dropped = std::move(current);
  } else {
    c10::Allocator* allocator = storage->allocator();
    if (allocator == nullptr) allocator = c10::GetAllocator(current.device().type());
    moved->own = allocator->clone(current.get(), storage->nbytes());
    *dropped = std::move(shared->previous);
    moved->previous = std::move(current);
  }
  moveOnto(std::move(moved), storage);
}

// Note [Late hooks]
// torch clears a storage's hook after each call of it, outside the mutex
// (c10::StorageImpl::maybe_materialize, 2.13 to 2.15). If two threads are in the hook at the same
// time, one moves the storage, and it is unknown when the other one clears the hook. That would
// remove a hook that shareStorage() set in between, and with it the protection. So a call that
// finds nothing left to move marks the storage, which is not shared again: to_tf copies it.
void markContended(c10::StorageImpl* storage, c10::DataPtr& current) {
  if (current.get_deleter() == deleteMoved) {
    static_cast<Moved*>(current.get_context())->contended = true;
  } else if (isOrdinary(current)) {
    // Memory of torch's allocator comes from resize_, which leaves the hook set: this is its first
    // call. Memory that was taken over has had its first call, so this is the second one.
    auto moved = std::make_unique<Moved>();
    moved->contended = current.get_deleter() != ordinaryDeleter();
    moved->own = std::move(current);
    moveOnto(std::move(moved), storage);
  }
}

// Runs before torch hands out a mutable pointer. One hook serves both kinds of storage: a call that
// began before the storage changed from one kind to the other still has to move it.
void copyOnWrite(c10::StorageImpl* storage) {
  // Freed after the mutex is released: a deleter may take the GIL, which a thread that waits for
  // this mutex may hold, or write to a tensor whose storage has the same mutex.
  c10::DataPtr dropped;
  std::lock_guard<std::mutex> lock(writeMutex(storage));
  c10::DataPtr& current = storage->_mutable_data_ptr_no_checks();
  if (current.get_deleter() == dropSharedBytes) {
    moveShared(storage, current, &dropped);
  } else if (const Foreign foreign = foreignBehind(current); foreign.kind != nullptr) {
    if (!takeOver(current, foreign)) moveForeign(storage, current, &dropped);
  } else {
    markContended(storage, current);
  }
}

void raiseOnWrite(c10::StorageImpl* storage) {
  std::lock_guard<std::mutex> lock(writeMutex(storage));
  if (foreignBehind(storage->_mutable_data_ptr_no_checks()).kind != nullptr) throwWrite();
}

}  // namespace

[[gnu::no_stack_protector]] c10::intrusive_ptr<c10::StorageImpl> makeForeignStorage(
    TensorRef* ref, c10::Device device, int32_t on_write, bool take) {
  auto storage = unguardedStorage(ref, device, take);
  if (on_write == TB_ON_WRITE_COPY) {
    storage->set_materializer(copyOnWrite);
  } else if (on_write == TB_ON_WRITE_RAISE) {
    storage->set_materializer(raiseOnWrite);
  }
  return storage;
}

void attachOwner(c10::StorageImpl* storage, TensorRef* ref) noexcept { giveOwner(storage, ref); }

const OwnerKind* foreignKind(const c10::StorageImpl* storage, void** held) noexcept {
  const c10::DataPtr& current =
      const_cast<c10::StorageImpl*>(storage)->_mutable_data_ptr_no_checks();
  // The common case, of a tensor that has met nobody yet, needs no mutex.
  if (!storage->has_materializer() && current.get_deleter() == ordinaryDeleter()) return nullptr;
  // The first write of another thread replaces deleter and context one after the other. From here
  // on that write counts what is held.
  std::lock_guard<std::mutex> lock(writeMutex(storage));
  return kindHeld(foreignBehind(current), held);
}

namespace {

// Tensor.numpy() makes a storage refuse to be resized, permanently, because the array has the
// address (tensor_numpy.cpp): a write would leave the array behind, and a later one would free its
// memory. Storages of torch.load, without an allocator, and of at::from_blob refuse from the start;
// these are shared until the first write that leaves memory behind.
Obstacle obstacleOf(const c10::StorageImpl* storage, const c10::DataPtr& current) {
  const c10::DataPtr* own = &current;
  if (current.get_deleter() == deleteMoved) {
    const auto* moved = static_cast<const Moved*>(current.get_context());
    if (moved->contended) return Obstacle::kContended;
    if (moved->previous.get_context() != nullptr && !storage->resizable()) return Obstacle::kArray;
    own = &moved->own;
  }
  const bool has_array =
      isOrdinary(*own) && !storage->resizable() && storage->allocator() != nullptr;
  return has_array ? Obstacle::kArray : Obstacle::kNone;
}

}  // namespace

bool canShareStorage() noexcept { return true; }

void* shareStorage(c10::StorageImpl* storage, void** bytes) {
  std::lock_guard<std::mutex> lock(writeMutex(storage));
  c10::DataPtr& current = storage->_mutable_data_ptr_no_checks();
  SharedBytes* shared;
  if (current.get_deleter() == dropSharedBytes) {
    shared = static_cast<SharedBytes*>(current.get_context());
    shared->references.fetch_add(1, std::memory_order_relaxed);
  } else {
    // The thread that moved it has not cleared hook and flag yet, or others may clear them at any
    // time. See Note [Order of a first write].
    if (storage->has_materializer() || storage->*flagOfStorage()) return nullptr;
    if (obstacleOf(storage, current) != Obstacle::kNone) return nullptr;
    shared = new SharedBytes{{2}, c10::DataPtr(), c10::DataPtr()};
    void* data = current.get();
    const c10::Device device = current.device();
    if (current.get_deleter() == deleteMoved) {
      auto* moved = static_cast<Moved*>(current.release_context());
      shared->bytes = std::move(moved->own);
      shared->previous = std::move(moved->previous);
      delete moved;
    } else {
      shared->bytes = std::move(current);
    }
    storage->set_data_ptr_noswap(c10::DataPtr(data, shared, dropSharedBytes, device));
    storage->set_materializer(copyOnWrite);
  }
  *bytes = storage->_mutable_data_ptr_no_checks().get();
  g_host->countOwner(1);
  return shared;
}

ReleaseFn takePreviousOf(c10::StorageImpl* storage, void** previous) noexcept {
  std::lock_guard<std::mutex> lock(writeMutex(storage));
  const c10::DataPtr& current = storage->_mutable_data_ptr_no_checks();
  c10::DataPtr* kept = nullptr;
  if (current.get_deleter() == deleteMoved) {
    kept = &static_cast<Moved*>(current.get_context())->previous;
  } else if (current.get_deleter() == dropSharedBytes) {
    kept = &static_cast<SharedBytes*>(current.get_context())->previous;
  }
  if (kept == nullptr || storage->allocator() == nullptr) return nullptr;
  const ReleaseFn release = kept->get_deleter();
  *previous = kept->release_context();
  return *previous == nullptr ? nullptr : release;
}

void releaseSharedBytes(void* shared) {
  if (g_host->processExiting()) return;
  g_host->countOwner(-1);
  dropSharedBytes(shared);
}

bool isSharedStorage(const c10::StorageImpl* storage) noexcept {
  const c10::DataPtr& current =
      const_cast<c10::StorageImpl*>(storage)->_mutable_data_ptr_no_checks();
  return current.get_deleter() == dropSharedBytes;
}

Obstacle sharingObstacle(const c10::StorageImpl* storage) noexcept {
  const c10::DataPtr& current =
      const_cast<c10::StorageImpl*>(storage)->_mutable_data_ptr_no_checks();
  // The common case, of a tensor that has met nobody yet, needs no mutex.
  if (current.get_deleter() == ordinaryDeleter() && storage->resizable()) return Obstacle::kNone;
  std::lock_guard<std::mutex> lock(writeMutex(storage));
  return obstacleOf(storage, current);
}

bool isHooked(const c10::StorageImpl* storage) noexcept { return storage->has_materializer(); }
bool isProtected(const c10::StorageImpl* storage) noexcept { return storage->has_materializer(); }

}  // namespace tensor_bridge
