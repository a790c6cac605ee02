#include "core/device.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

namespace tensor_bridge {
namespace {

std::string nameOf(DLDeviceType type, int32_t id) {
  char name[32];
  deviceName(DLDevice{type, id}, name, sizeof(name));
  return name;
}

TEST(DeviceName, IsTorchs) {
  EXPECT_EQ(nameOf(kDLCPU, 0), "cpu");
  EXPECT_EQ(nameOf(kDLCPU, 7), "cpu") << "torch has one CPU";
  EXPECT_EQ(nameOf(kDLCPU, -1), "cpu");
  EXPECT_EQ(nameOf(kDLCUDA, 0), "cuda:0");
  EXPECT_EQ(nameOf(kDLCUDA, 12), "cuda:12");
  EXPECT_EQ(nameOf(kDLCUDA, -1), "cuda") << "the current device";
  EXPECT_EQ(nameOf(kDLROCM, 1), "cuda:1") << "torch calls ROCm's devices cuda";
}

TEST(DeviceName, NamesWhatTorchLacksByDlpacksNumber) {
  EXPECT_EQ(nameOf(kDLMetal, 2), "dlpack_8:2");
  EXPECT_EQ(nameOf(static_cast<DLDeviceType>(2147483647), -2147483647 - 1),
            "dlpack_2147483647:-2147483648")
      << "the longest fits the 32 bytes of tb_explanation";
}

TEST(DeviceName, IsCutToTheRoomThatThereIs) {
  char name[4];
  deviceName(DLDevice{kDLCUDA, 5}, name, sizeof(name));
  EXPECT_STREQ(name, "cud");
}

TEST(IsHost, IsTheCpuOnly) {
  EXPECT_TRUE(isHost(DLDevice{kDLCPU, 0}));
  EXPECT_TRUE(isHost(DLDevice{kDLCPU, 3}));
  EXPECT_FALSE(isHost(DLDevice{kDLCUDA, 0}));
  EXPECT_FALSE(isHost(DLDevice{kDLCUDAHost, 0}));
}

}  // namespace
}  // namespace tensor_bridge
