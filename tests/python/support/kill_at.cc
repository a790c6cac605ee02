// Preloaded into a process that writes files: ends it, as kill -9 does, at the n-th system call
// that opens, writes, links, renames or removes; and imitates file systems with fewer features. The
// Python side is killed_writer.py.

#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstring>

namespace {

std::atomic<int64_t> calls_left{-1};  // negative: not armed
std::atomic<int> told_at{-1};         // the descriptor to which the name of that call is written
std::atomic<bool> half{false};        // whether a write does half of its work before the end
std::atomic<bool> poor{false};        // a file system without O_TMPFILE, NOREPLACE and EXCHANGE

template <typename Function>
Function next(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

[[noreturn]] void end(const char* name) {
  const auto real = next<ssize_t (*)(int, const void*, size_t)>("write");
  static_cast<void>(!real(told_at, name, strlen(name)));
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

// Whether this is the call to end at.
bool isTheCall() {
  const int64_t left = calls_left.load();
  if (left < 0) return false;
  calls_left = left - 1;
  return left == 0;
}

void count(const char* name) {
  if (isTheCall()) end(name);
}

int refuse(int error) {
  errno = error;
  return -1;
}

bool refused(int flags) { return poor && (flags & O_TMPFILE) == O_TMPFILE; }

mode_t modeOf(int flags, va_list arguments) {
  const bool creates = (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE;
  return creates ? static_cast<mode_t>(va_arg(arguments, int)) : 0;
}

int openAt(int folder, const char* path, int flags, mode_t mode) {
  if (refused(flags)) return refuse(EOPNOTSUPP);
  if ((flags & O_ACCMODE) != O_RDONLY) count("open");
  return next<int (*)(int, const char*, int, ...)>("openat64")(folder, path, flags, mode);
}

}  // namespace

extern "C" {

// Ends the process at the call after `calls` others; writes the call's name to `fd`.
void kill_at_arm(int64_t calls, int fd, int half_of_a_write, int poor_file_system) {
  told_at = fd;
  half = half_of_a_write != 0;
  poor = poor_file_system != 0;
  calls_left = calls;
}

#define TB_OPEN(name)                             \
  int name(const char* path, int flags, ...) {    \
    va_list arguments;                            \
    va_start(arguments, flags);                   \
    const mode_t mode = modeOf(flags, arguments); \
    va_end(arguments);                            \
    return openAt(AT_FDCWD, path, flags, mode);   \
  }
TB_OPEN(open)
TB_OPEN(open64)

#define TB_OPENAT(name)                                    \
  int name(int folder, const char* path, int flags, ...) { \
    va_list arguments;                                     \
    va_start(arguments, flags);                            \
    const mode_t mode = modeOf(flags, arguments);          \
    va_end(arguments);                                     \
    return openAt(folder, path, flags, mode);              \
  }
TB_OPENAT(openat)
TB_OPENAT(openat64)

ssize_t write(int fd, const void* data, size_t size) {
  const auto real = next<ssize_t (*)(int, const void*, size_t)>("write");
  if (!isTheCall()) return real(fd, data, size);
  if (half) static_cast<void>(!real(fd, data, size / 2));
  end("write");
}

#define TB_PWRITE(name)                                                                 \
  ssize_t name(int fd, const void* data, size_t size, off64_t offset) {                 \
    const auto real = next<ssize_t (*)(int, const void*, size_t, off64_t)>("pwrite64"); \
    if (!isTheCall()) return real(fd, data, size, offset);                              \
    if (half) static_cast<void>(!real(fd, data, size / 2, offset));                     \
    end("write");                                                                       \
  }
TB_PWRITE(pwrite)
TB_PWRITE(pwrite64)

ssize_t copy_file_range(int in, off64_t* in_at, int out, off64_t* out_at, size_t size,
                        unsigned flags) {
  const auto real =
      next<ssize_t (*)(int, off64_t*, int, off64_t*, size_t, unsigned)>("copy_file_range");
  if (!isTheCall()) return real(in, in_at, out, out_at, size, flags);
  if (half) static_cast<void>(!real(in, in_at, out, out_at, size / 2, flags));
  end("copy_file_range");
}

#define TB_SENDFILE(name)                                                                      \
  ssize_t name(int out, int in, off64_t* offset, size_t size) {                                \
    count("sendfile");                                                                         \
    return next<ssize_t (*)(int, int, off64_t*, size_t)>("sendfile64")(out, in, offset, size); \
  }
TB_SENDFILE(sendfile)
TB_SENDFILE(sendfile64)

// Does nothing: the state of the disk does not matter to a process that a signal ends.
int fsync(int) {
  count("fsync");
  return 0;
}

int fdatasync(int) {
  count("fsync");
  return 0;
}

int rename(const char* from, const char* to) {
  count("rename");
  return next<int (*)(const char*, const char*)>("rename")(from, to);
}

int renameat(int from_folder, const char* from, int to_folder, const char* to) {
  count("rename");
  return next<int (*)(int, const char*, int, const char*)>("renameat")(from_folder, from, to_folder,
                                                                       to);
}

int renameat2(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) {
  if (poor && flags != 0) return refuse(EINVAL);
  count("rename");
  return next<int (*)(int, const char*, int, const char*, unsigned)>("renameat2")(
      from_folder, from, to_folder, to, flags);
}

int link(const char* from, const char* to) {
  count("link");
  return next<int (*)(const char*, const char*)>("link")(from, to);
}

int linkat(int from_folder, const char* from, int to_folder, const char* to, int flags) {
  count("link");
  return next<int (*)(int, const char*, int, const char*, int)>("linkat")(from_folder, from,
                                                                          to_folder, to, flags);
}

int unlink(const char* path) {
  count("unlink");
  return next<int (*)(const char*)>("unlink")(path);
}

int unlinkat(int folder, const char* path, int flags) {
  count("unlink");
  return next<int (*)(int, const char*, int)>("unlinkat")(folder, path, flags);
}

int fchmod(int fd, mode_t mode) {
  count("fchmod");
  return next<int (*)(int, mode_t)>("fchmod")(fd, mode);
}

}  // extern "C"
