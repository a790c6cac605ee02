// The functions of libnvidia-ml.so.1 that TensorFlow needs to start: since 2.21 it uses no GPU
// without that library.
#include <cstdio>

#include "cuda/properties.h"
#include "device/errors.h"
#include "device/memory.h"

extern "C" {

EMU_EXPORT int nvmlInit() { return 0; }
EMU_EXPORT int nvmlInit_v2() { return 0; }
EMU_EXPORT int nvmlInitWithFlags(unsigned) { return 0; }
EMU_EXPORT int nvmlShutdown() { return 0; }
EMU_EXPORT const char* nvmlErrorString(int) { return "an error of the emulated NVML"; }
EMU_EXPORT int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = static_cast<unsigned>(gpu_emulator::deviceCount());
  return 0;
}
EMU_EXPORT int nvmlSystemGetDriverVersion(char* version, unsigned size) {
  snprintf(version, size, "580.00");
  return 0;
}
EMU_EXPORT int nvmlSystemGetCudaDriverVersion_v2(int* version) {
  *version = gpu_emulator::kDriverVersion;
  return 0;
}

}  // extern "C"
