// OwnerScope: a scope of a test that must not leave owners alive in the bridge.
// Not for: counting torch tensors; only the memory that they share is counted.
#ifndef TENSOR_BRIDGE_TESTS_SUPPORT_OWNER_SCOPE_H_
#define TENSOR_BRIDGE_TESTS_SUPPORT_OWNER_SCOPE_H_

#include <gtest/gtest.h>

#include <cstdint>

namespace tensor_bridge::testing {

class OwnerScope {
 public:
  using Count = int64_t (*)();

  /// `count` is liveOwners() where the internals are linked, tb_live_owners() elsewhere.
  explicit OwnerScope(Count count) : count_(count), before_(count()) {}
  ~OwnerScope() { EXPECT_EQ(added(), 0) << "owners were not released"; }
  OwnerScope(const OwnerScope&) = delete;
  OwnerScope& operator=(const OwnerScope&) = delete;

  /// Number of owners that were made in this scope and are still alive.
  int64_t added() const { return count_() - before_; }

 private:
  Count count_;
  int64_t before_;
};

}  // namespace tensor_bridge::testing

#endif  // TENSOR_BRIDGE_TESTS_SUPPORT_OWNER_SCOPE_H_
