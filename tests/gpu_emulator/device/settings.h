// The settings from the environment variables CUDA_EMU_*, read once; the README lists them. Also
// the mutex of the whole device: with only one lock there is no wrong order of locks.
#ifndef TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_SETTINGS_H_
#define TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_SETTINGS_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>

#include "device/errors.h"

namespace gpu_emulator {

/// When the work of a stream runs.
enum class Mode {
  kImmediate,  ///< as soon as it can
  kLazy,       ///< when a thread waits for it or queries it, or after Settings::lazy
  kRandom,     ///< after a random time up to Settings::delay
};

struct Settings {
  Mode mode = Mode::kImmediate;
  std::chrono::milliseconds lazy{150};
  std::chrono::microseconds delay{2000};
  int devices = 1;
  size_t memory = size_t{6} << 30;
  uint64_t seed = 1;
  double sleep_scale = 0.25;
  std::string log_file;
  bool trace = false;
  bool clock_of_each_thread = false;
};

EMU_EXPORT const Settings& settings();

using Lock = std::unique_lock<std::mutex>;
/// Guards the whole state of the device. Functions named ...Locked must be called with it held.
std::mutex& deviceMutex();

}  // namespace gpu_emulator

#endif  // TENSOR_BRIDGE_GPU_EMULATOR_DEVICE_SETTINGS_H_
