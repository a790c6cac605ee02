#include "core/bound_function.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>

#include <cstdint>
#include <cstring>

namespace tensor_bridge {
namespace {

// Keeps a loaded library loaded while it lives.
class Loaded {
 public:
  explicit Loaded(const char* name) noexcept
      : handle_(dlopen(name, RTLD_NOLOAD | RTLD_LAZY | RTLD_LOCAL)) {}
  ~Loaded() {
    if (handle_ != nullptr) dlclose(handle_);
  }
  Loaded(const Loaded&) = delete;
  Loaded& operator=(const Loaded&) = delete;
  void* handle() const noexcept { return handle_; }

 private:
  void* handle_;
};

// The slots in which a library stores the addresses of functions that it calls, and their names.
class Relocations {
 public:
  explicit Relocations(const link_map& map) noexcept : base_(map.l_addr) {
    for (const ElfW(Dyn)* entry = map.l_ld; entry->d_tag != DT_NULL; ++entry) {
      switch (entry->d_tag) {
        case DT_STRTAB:
          names_ = reinterpret_cast<const char*>(address(entry));
          break;
        case DT_SYMTAB:
          symbols_ = reinterpret_cast<const ElfW(Sym)*>(address(entry));
          break;
        case DT_JMPREL:
          tables_[0].first = reinterpret_cast<const ElfW(Rela)*>(address(entry));
          break;
        case DT_PLTRELSZ:
          tables_[0].count = entry->d_un.d_val / sizeof(ElfW(Rela));
          break;
        case DT_RELA:
          tables_[1].first = reinterpret_cast<const ElfW(Rela)*>(address(entry));
          break;
        case DT_RELASZ:
          tables_[1].count = entry->d_un.d_val / sizeof(ElfW(Rela));
          break;
        default:
          break;
      }
    }
  }

  void* find(const char* function) const noexcept {
    if (names_ == nullptr || symbols_ == nullptr) return nullptr;
    for (const Table& table : tables_) {
      for (size_t i = 0; table.first != nullptr && i < table.count; ++i) {
        const auto symbol = ELF64_R_SYM(table.first[i].r_info);
        if (symbol != 0 && std::strcmp(names_ + symbols_[symbol].st_name, function) == 0) {
          return *reinterpret_cast<void**>(base_ + table.first[i].r_offset);
        }
      }
    }
    return nullptr;
  }

 private:
  struct Table {
    const ElfW(Rela) * first = nullptr;
    size_t count = 0;
  };

  // glibc writes addresses over the offsets that the file has, musl leaves them.
  ElfW(Addr) address(const ElfW(Dyn) * entry) const noexcept {
    const ElfW(Addr) value = entry->d_un.d_ptr;
    return value < base_ ? value + base_ : value;
  }

  ElfW(Addr) base_;
  const char* names_ = nullptr;
  const ElfW(Sym) * symbols_ = nullptr;
  Table tables_[2];
};

}  // namespace

std::string libraryOf(const void* address) {
  Dl_info info;
  if (address == nullptr || dladdr(address, &info) == 0 || info.dli_fname == nullptr) return "";
  return info.dli_fname;
}

void* boundFunction(const char* library, const char* function) noexcept {
  const Loaded loaded(library);
  link_map* map = nullptr;
  if (loaded.handle() == nullptr || dlinfo(loaded.handle(), RTLD_DI_LINKMAP, &map) != 0) {
    return nullptr;
  }
  void* bound = Relocations(*map).find(function);
  Dl_info info;
  const bool is_called = bound != nullptr && dladdr(bound, &info) != 0;
  // Not called so far, in a library with lazy binding: the slot points to the library's own code
  // that looks the function up.
  if (is_called && info.dli_fbase == reinterpret_cast<void*>(map->l_addr)) {
    return dlsym(RTLD_DEFAULT, function);
  }
  return bound;
}

void* ownFunction(const char* library, const char* function) noexcept {
  const Loaded loaded(library);
  return loaded.handle() == nullptr ? nullptr : dlsym(loaded.handle(), function);
}

}  // namespace tensor_bridge
