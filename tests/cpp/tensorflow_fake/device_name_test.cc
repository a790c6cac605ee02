#include <gtest/gtest.h>

#include "adapters/tensorflow/reader.h"

namespace tensor_bridge {
namespace {

struct Case {
  const char* name;
  bool known;
  DLDeviceType type;
  int32_t id;
};

TEST(ParseDeviceName, KnowsTheCpuAndGpusOfThisProcess) {
  const Case cases[] = {
      {"/job:localhost/replica:0/task:0/device:CPU:0", true, kDLCPU, 0},
      // torch has one CPU, which every logical CPU maps to.
      {"/job:localhost/replica:0/task:0/device:CPU:3", true, kDLCPU, 0},
      {"/job:localhost/replica:0/task:0/device:GPU:0", true, kDLCUDA, 0},
      {"/job:localhost/replica:0/task:0/device:GPU:12", true, kDLCUDA, 12},
      // In a cluster this process has another job. The handle says whether a tensor is remote.
      {"/job:worker/replica:0/task:1/device:CPU:0", true, kDLCPU, 0},
      {"/job:worker/replica:0/task:1/device:GPU:1", true, kDLCUDA, 1},
      {"/device:CPU:0", true, kDLCPU, 0},
  };
  for (const Case& c : cases) {
    DLDevice device{kDLMetal, 77};
    EXPECT_EQ(parseDeviceName(c.name, &device), c.known) << c.name;
    EXPECT_EQ(device.device_type, c.type) << c.name;
    EXPECT_EQ(device.device_id, c.id) << c.name;
  }
}

TEST(ParseDeviceName, RefusesEverythingElse) {
  const char* const names[] = {
      "/job:localhost/replica:0/task:0/device:COMPOSITE:0",  // packed
      "/job:localhost/replica:0/task:0/device:CUSTOM:0",
      "/job:localhost/replica:0/task:0/device:TPU:0",
      "/job:localhost/replica:0/task:0/device:XLA_CPU:0",
      "/job:localhost/replica:0/task:0/device:XLA_GPU:0",
      "/job:localhost/replica:0/task:0/device:MY_GPU:0",
      "/job:localhost/replica:0/task:0/device:GPUX:0",
      "/job:localhost/replica:0/task:0/device:cpu:0",
      "/job:localhost/replica:0/task:0/device:GPU",
      "/job:localhost/replica:0/task:0/device:GPU:",
      "/job:localhost/replica:0/task:0/device:GPU:x",
      "/job:localhost/replica:0/task:0/device:GPU:-1",
      "/job:localhost/replica:0/task:0/device:GPU:1x",
      "/job:localhost/replica:0/task:0/device:GPU:99999999999",
      "/job:localhost/replica:0/task:0/device:GPU: 1",
      "/job:localhost/replica:0/task:0",
      "CPU:0",
      "GPU:0",
      "/device:",
      "",
      "nonsense",
      nullptr,
  };
  for (const char* name : names) {
    DLDevice device{kDLMetal, 77};
    EXPECT_FALSE(parseDeviceName(name, &device)) << (name == nullptr ? "null" : name);
    EXPECT_EQ(device.device_id, 77) << "untouched: " << (name == nullptr ? "null" : name);
  }
}

}  // namespace
}  // namespace tensor_bridge
