#include "core/error.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>

#include "core/failing_new.h"
#include "support/expect_error.h"

namespace tensor_bridge::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(LastError, IsEmptyBeforeTheFirstFailure) {
  std::thread([] {
    EXPECT_STREQ(lastError(), "");
    EXPECT_EQ(lastStatus(), TB_OK);
  }).join();
}

TEST(LastError, KeepsTheLatest) {
  EXPECT_EQ(setLastError(TB_TORCH, "first"), TB_TORCH);
  EXPECT_EQ(setLastError(TB_TENSORFLOW, "second"), TB_TENSORFLOW);
  EXPECT_STREQ(lastError(), "second");
  EXPECT_EQ(lastStatus(), TB_TENSORFLOW);
}

TEST(LastError, BelongsToItsThread) {
  setLastError(TB_TORCH, "mine");
  std::thread([] {
    EXPECT_STREQ(lastError(), "");
    setLastError(TB_INTERNAL, "theirs");
    EXPECT_STREQ(lastError(), "theirs");
  }).join();
  EXPECT_STREQ(lastError(), "mine");
  EXPECT_EQ(lastStatus(), TB_TORCH);
}

TEST(LastError, TakesAMessageOfAnyLength) {
  const std::string text(100000, 'x');
  setLastError(TB_TORCH, text.c_str());
  EXPECT_EQ(lastError(), text);
}

TEST(LastError, SaysSomethingWhenThereIsNoMemoryForTheMessage) {
  std::thread([] {
    const std::string text(1000, 'x');
    tb_status status;
    {
      NoMemory scope;
      status = setLastError(TB_TORCH, text.c_str());
    }
    EXPECT_EQ(status, TB_TORCH);
    EXPECT_EQ(lastStatus(), TB_TORCH);
    EXPECT_THAT(lastError(), HasSubstr("no memory"));
    // And recovers.
    setLastError(TB_INTERNAL, "again");
    EXPECT_STREQ(lastError(), "again");
  }).join();
}

TEST(LastError, ComesFromTheExceptionInFlight) {
  const auto statusOf = [](auto&& exception) {
    try {
      throw exception;
    } catch (...) {
      return setLastErrorFromException();
    }
  };
  EXPECT_EQ(statusOf(Error(ErrorCode::kCopyRequired, "copy")), TB_COPY_REQUIRED);
  EXPECT_STREQ(lastError(), "copy");
  EXPECT_EQ(statusOf(std::bad_alloc()), TB_OUT_OF_MEMORY);
  EXPECT_THAT(lastError(), HasSubstr("memory"));
  EXPECT_EQ(statusOf(std::runtime_error("text")), TB_INTERNAL);
  EXPECT_STREQ(lastError(), "text");
  EXPECT_EQ(statusOf(42), TB_INTERNAL);
  EXPECT_STRNE(lastError(), "");
}

TEST(LastError, IsThrownAgainAsItWas) {
  setLastError(TB_UNSUPPORTED_DEVICE, "a remote device");
  expectError(ErrorCode::kUnsupportedDevice, {"a remote device"}, [] { rethrowLastError(); });
}

TEST(ThrowError, Formats) {
  expectError(ErrorCode::kInvalidOption, {"expected 3 of float32, got -1 (50%)"}, [] {
    throwError(ErrorCode::kInvalidOption, "expected %d of %s, got %lld (50%%)", 3, "float32", -1LL);
  });
}

TEST(ThrowError, DoesNotCutLongTexts) {
  const std::string text(5000, 'y');
  expectError(ErrorCode::kInternal, {text + "!"},
              [&] { throwError(ErrorCode::kInternal, "%s!", text.c_str()); });
}

TEST(Formatted, GivesTheTextOnly) {
  EXPECT_EQ(formatted("%s-%02d", "a", 7), "a-07");
  EXPECT_EQ(formatted("%s", ""), "");
  EXPECT_EQ(formatted("%s", "x").size(), 1u) << "no terminator inside";
}

TEST(StatusName, NamesEachStatusOnce) {
  std::set<std::string> names;
  for (tb_status status = TB_OK; status <= TB_UNSUPPORTED_FILE; ++status) {
    const std::string name = statusName(status);
    EXPECT_THAT(name, Not(HasSubstr("UNKNOWN"))) << status;
    EXPECT_TRUE(names.insert(name).second) << name;
  }
  EXPECT_STREQ(statusName(TB_OK), "OK");
  EXPECT_STREQ(statusName(TB_COPY_REQUIRED), "COPY_REQUIRED");
}

TEST(StatusName, KnowsWhatIsNoStatus) {
  EXPECT_STREQ(statusName(-1), "UNKNOWN");
  EXPECT_STREQ(statusName(TB_UNSUPPORTED_FILE + 1), "UNKNOWN");
  EXPECT_STREQ(statusName(2147483647), "UNKNOWN");
}

}  // namespace
}  // namespace tensor_bridge::testing
