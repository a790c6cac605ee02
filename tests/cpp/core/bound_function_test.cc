#include "core/bound_function.h"

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tensor_bridge {
namespace {

using testing::HasSubstr;

// A library that every program here loads, and a function that it calls in another library.
constexpr const char* kLibrary = "libstdc++.so.6";
constexpr const char* kFunction = "malloc";

TEST(BoundFunction, IsWhatTheLinkerHasChosen) {
  void* bound = boundFunction(kLibrary, kFunction);
  EXPECT_NE(bound, nullptr);
  EXPECT_EQ(bound, dlsym(RTLD_DEFAULT, kFunction));
}

TEST(BoundFunction, IsNullForWhatIsNotLoadedOrNotCalled) {
  EXPECT_EQ(boundFunction("libnobody.so.1", kFunction), nullptr);
  EXPECT_EQ(boundFunction(kLibrary, "no_such_function"), nullptr);
}

TEST(OwnFunction, IsThatOfTheLibraryOrOfOneItIsLinkedWith) {
  EXPECT_THAT(libraryOf(ownFunction("libc.so.6", kFunction)), HasSubstr("libc"));
  EXPECT_EQ(ownFunction(kLibrary, "no_such_function"), nullptr);
  EXPECT_EQ(ownFunction("libnobody.so.1", kFunction), nullptr);
}

TEST(LibraryOf, KnowsWhereAnAddressIs) {
  EXPECT_THAT(libraryOf(ownFunction(kLibrary, "__cxa_throw")), HasSubstr("libstdc++"));
  const int local = 0;
  EXPECT_EQ(libraryOf(&local), "");
  EXPECT_EQ(libraryOf(nullptr), "");
}

}  // namespace
}  // namespace tensor_bridge
