// NoMemory: in its scope, operator new throws std::bad_alloc on this thread.
// Not for: malloc, which the code under test does not use.
#ifndef TENSOR_BRIDGE_TESTS_CORE_FAILING_NEW_H_
#define TENSOR_BRIDGE_TESTS_CORE_FAILING_NEW_H_

namespace tensor_bridge::testing {

class NoMemory {
 public:
  /// The first `allowed` allocations still succeed.
  explicit NoMemory(int allowed = 0);
  ~NoMemory();
  NoMemory(const NoMemory&) = delete;
  NoMemory& operator=(const NoMemory&) = delete;
};

}  // namespace tensor_bridge::testing

#endif  // TENSOR_BRIDGE_TESTS_CORE_FAILING_NEW_H_
