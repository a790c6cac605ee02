#include "core/owner_counter.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <thread>

#include "support/on_threads.h"
#include "support/owner_scope.h"

namespace tensor_bridge::testing {
namespace {

TEST(OwnerCounter, CountsUpAndDown) {
  OwnerScope owners(liveOwners);
  countOwner(1);
  countOwner(1);
  EXPECT_EQ(owners.added(), 2);
  countOwner(-1);
  EXPECT_EQ(owners.added(), 1);
  countOwner(-1);
}

TEST(OwnerCounter, KeepsWhatAFinishedThreadCounted) {
  OwnerScope owners(liveOwners);
  std::thread([] { countOwner(3); }).join();
  EXPECT_EQ(owners.added(), 3);
  std::thread([] { countOwner(-3); }).join();
  EXPECT_EQ(owners.added(), 0);
}

TEST(OwnerCounter, SumsOverManyThreadsAtOnce) {
  constexpr int kThreads = 64;
  constexpr int kRounds = 1000;
  OwnerScope owners(liveOwners);
  onThreads(kThreads, [](int t) {
    for (int i = 0; i < kRounds; ++i) {
      countOwner(2);
      countOwner(-1);
      if (i % 2 == t % 2) countOwner(-1);
    }
  });
  EXPECT_EQ(owners.added(), kThreads * kRounds / 2);
  countOwner(-kThreads * kRounds / 2);
}

TEST(OwnerCounter, ReusesTheCountersOfThreadsThatEnded) {
  OwnerScope owners(liveOwners);
  const CounterNode* first = nullptr;
  std::thread([&first] {
    countOwner(1);
    first = detail::t_counter;
  }).join();
  bool reused = false;
  for (int i = 0; i < 50; ++i) {
    std::thread([&] {
      countOwner(1);
      reused = reused || detail::t_counter == first;
      countOwner(-1);
    }).join();
  }
  EXPECT_TRUE(reused) << "memory grows with the number of threads that have ever run";
  EXPECT_EQ(owners.added(), 1) << "the value outlives its thread and its next user";
  countOwner(-1);
}

TEST(OwnerCounter, CountsAReleaseInAThreadsLastDestructors) {
  OwnerScope owners(liveOwners);
  // This runs after C++ thread_local destructors, before or after the counter is given back. The
  // next round of destructors gives the counter back again.
  static pthread_key_t key;
  ASSERT_EQ(pthread_key_create(&key, [](void*) { countOwner(-1); }), 0);
  for (int i = 0; i < 20; ++i) {
    std::thread([] {
      countOwner(1);
      pthread_setspecific(key, &key);
    }).join();
  }
  EXPECT_EQ(owners.added(), 0);
  pthread_key_delete(key);
}

TEST(OwnerCounter, CountsAReleaseInAThreadLocalDestructor) {
  OwnerScope owners(liveOwners);
  struct Late {
    ~Late() { countOwner(-1); }
    void touch() {}
  };
  std::thread([] {
    thread_local Late late;
    late.touch();
    countOwner(1);
  }).join();
  EXPECT_EQ(owners.added(), 0);
}

}  // namespace
}  // namespace tensor_bridge::testing
