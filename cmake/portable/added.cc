// What newer system libraries have and glibc 2.28 with GCC 8's libstdc++ lacks. The version scripts
// of our libraries hide it: each uses its own, and nobody else sees it.
#include <pthread.h>
#include <time.h>

#include <condition_variable>
#include <mutex>
#include <new>
#include <sstream>

// 2.32. False is always right: libstdc++ then counts with atomic operations.
extern "C" {
char __libc_single_threaded = 0;
}

// 2.30. The deadline is moved to the clock that older releases wait by. A change of that clock can
// end the wait early or late; libstdc++ looks at its own clock when the wait has ended.
extern "C" int pthread_cond_clockwait(pthread_cond_t* condition, pthread_mutex_t* mutex,
                                      clockid_t clock, const timespec* deadline) {
  if (clock == CLOCK_REALTIME) return pthread_cond_timedwait(condition, mutex, deadline);
  constexpr long kSecond = 1000000000;
  timespec from;
  timespec to;
  clock_gettime(clock, &from);
  clock_gettime(CLOCK_REALTIME, &to);
  to.tv_sec += deadline->tv_sec - from.tv_sec;
  to.tv_nsec += deadline->tv_nsec - from.tv_nsec;
  if (to.tv_nsec < 0) {
    to.tv_nsec += kSecond;
    --to.tv_sec;
  } else if (to.tv_nsec >= kSecond) {
    to.tv_nsec -= kSecond;
    ++to.tv_sec;
  }
  return pthread_cond_timedwait(condition, mutex, &to);
}

namespace std {

// GCC 11.
void __throw_bad_array_new_length() { throw bad_array_new_length(); }

// GCC 12 gave it a new version, for its noexcept.
void condition_variable::wait(unique_lock<mutex>& lock) noexcept {
  pthread_cond_wait(native_handle(), lock.mutex()->native_handle());
}

// GCC 9.
template basic_ostringstream<char>::basic_ostringstream();

}  // namespace std
