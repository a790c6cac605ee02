// libFuzzer over batches of tf.train.SequenceExample: `make fuzz`. Not for: Examples
// (example_fuzz.cc).

#include "example_fuzzing.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return tensor_bridge::fuzzExamples(data, size, true);
}
