// Every function that the bridge looks up and the fake TensorFlow lacks, as a weak symbol that
// traps. So a function that the bridge begins to use needs a fake only if a test calls it.

#include "adapters/tensorflow/tf_api.h"

#ifdef FAKE_WITHOUT_BITCAST
#define TF_TensorBitcastFrom fake_left_out
#endif
#ifdef FAKE_WITHOUT_EXECUTE
#define TFE_Execute fake_left_out
#endif

#define FAKE_STUB(result, name, arguments) \
  extern "C" __attribute__((visibility("default"), weak)) void name() { __builtin_trap(); }
TB_TF_TENSOR_FUNCTIONS(FAKE_STUB)
TB_TF_EAGER_FUNCTIONS(FAKE_STUB)
