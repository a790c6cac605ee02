// The exit flag, in separate processes.

#include "core/exit.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>

namespace tensor_bridge {
namespace {

// gtest's name for this style is "threadsafe". It executes the program anew, so that no thread of
// another test is alive.
class Shutdown : public ::testing::Test {
 protected:
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

TEST_F(Shutdown, FlagIsDownWhileTheProcessRuns) {
  watchProcessExit();
  EXPECT_FALSE(processExiting());
}

TEST_F(Shutdown, FlagIsUpBeforeWhatWasRegisteredEarlierRuns) {
  // Stands for a static object of a framework, loaded before the flag was armed.
  EXPECT_EXIT(
      {
        std::atexit([] { _exit(processExiting() ? 42 : 1); });
        watchProcessExit();
        std::exit(0);
      },
      ::testing::ExitedWithCode(42), "");
}

TEST_F(Shutdown, FlagIsStillDownForWhatWasRegisteredLater) {
  EXPECT_EXIT(
      {
        watchProcessExit();
        std::atexit([] { _exit(processExiting() ? 1 : 42); });
        std::exit(0);
      },
      ::testing::ExitedWithCode(42), "");
}

TEST_F(Shutdown, ArmingTwiceDoesNotMoveIt) {
  EXPECT_EXIT(
      {
        watchProcessExit();
        std::atexit([] { _exit(processExiting() ? 1 : 42); });
        watchProcessExit();
        std::exit(0);
      },
      ::testing::ExitedWithCode(42), "");
}

TEST_F(Shutdown, FlagStaysDownWithoutBeingArmed) {
  EXPECT_EXIT(
      {
        std::atexit([] { _exit(processExiting() ? 1 : 42); });
        std::exit(0);
      },
      ::testing::ExitedWithCode(42), "");
}

}  // namespace
}  // namespace tensor_bridge
