// Strings: both families of the C ABI over bridge/strings.h.

#include <utility>

#include "adapters/tensorflow/maker.h"
#include "adapters/tensorflow/strings.h"
#include "bridge/strings.h"
#include "bridge/to_tf.h"
#include "bridge/to_torch.h"
#include "bridge/torch_loader.h"
#include "c_api/barrier.h"
#include "c_api/eager.h"
#include "c_api/gil.h"
#include "tensor_bridge/c_api.h"

using namespace tensor_bridge;  // NOLINT: every function below is one call into it

namespace {

_object* toPythonOrThrow(const TorchAdapter& adapter, tb_torch_tensor* tensor) {
  _object* object = adapter.toPython(tensor);
  if (object == nullptr) rethrowLastError();
  return object;
}

}  // namespace

tb_status tb_strings_from_tf(TF_Tensor* tensor, tb_strings** out) {
  return guarded([&] {
    require(out, "a place for the result");
    int64_t shape[kMaxDims];
    TensorRef ref;
    exportStrings(requireTfApi(), tensor, shape, &ref);
    *out = stringsOfTf(std::move(ref)).release();
  });
}

tb_status tb_strings_from_memory(const char* bytes, int64_t nbytes, const int64_t* offsets,
                                 int64_t num_offsets, const int64_t* shape, int32_t ndim,
                                 tb_strings** out) {
  return guarded([&] {
    if (nbytes > 0) require(bytes, "the bytes of the strings");
    require(offsets, "the offsets of the strings");
    if (ndim > 0) require(shape, "a shape");
    require(out, "a place for the result");
    *out = stringsOfMemory(bytes, nbytes, offsets, num_offsets, shape, ndim).release();
  });
}

tb_status tb_strings_from_torch(tb_torch_tensor* bytes, tb_torch_tensor* offsets,
                                const int64_t* shape, int32_t ndim, tb_strings** out) {
  return guarded([&] {
    require(bytes, "a torch tensor of bytes");
    require(offsets, "a torch tensor of offsets");
    if (ndim > 0) require(shape, "a shape");
    require(out, "a place for the result");
    *out = stringsOfTorch(bytes, offsets, shape, ndim).release();
  });
}

int32_t tb_strings_ndim(const tb_strings* strings) {
  return isNull(strings, "a tb_strings") ? 0 : static_cast<int32_t>(strings->shape.size());
}

const int64_t* tb_strings_shape(const tb_strings* strings) {
  return isNull(strings, "a tb_strings") ? nullptr : strings->shape.data();
}

int64_t tb_strings_count(const tb_strings* strings) {
  return isNull(strings, "a tb_strings") ? 0 : strings->count;
}

tb_status tb_strings_get(const tb_strings* strings, int64_t first, int64_t count, tb_string* out) {
  return guarded([&] {
    require(strings, "a tb_strings");
    if (count > 0) require(out, "a place for the strings");
    getStrings(*strings, first, count, out);
  });
}

tb_status tb_strings_nbytes(const tb_strings* strings, int64_t* out) {
  return guarded([&] {
    require(strings, "a tb_strings");
    require(out, "a place for the result");
    *out = measure(*strings, nullptr);
  });
}

tb_status tb_strings_gather(const tb_strings* strings, int64_t* offsets, char* bytes,
                            int64_t nbytes) {
  return guarded([&] {
    require(strings, "a tb_strings");
    if (nbytes > 0) require(bytes, "a place for the bytes");
    if (offsets != nullptr) static_cast<void>(measure(*strings, offsets));
    gather(*strings, bytes, nbytes);
  });
}

tb_status tb_strings_to_torch(const tb_strings* strings, const tb_convert_options* options,
                              tb_torch_tensor** bytes, tb_torch_tensor** offsets) {
  return guarded([&] {
    require(strings, "a tb_strings");
    require(bytes, "a place for the bytes");
    require(offsets, "a place for the offsets");
    const TorchStrings result = stringsToTorch(*strings, checkedOptions(options));
    *bytes = result.bytes;
    *offsets = result.offsets;
  });
}

tb_status tb_strings_to_tf(const tb_strings* strings, const tb_convert_back_options* options,
                           TF_Tensor** out) {
  return guarded([&] {
    require(strings, "a tb_strings");
    require(out, "a place for the result");
    *out = stringsToTf(*strings, checkedToTfOptions(options), requireTfApi()).release();
  });
}

tb_status tb_strings_explain(const tb_strings* strings, const tb_convert_options* options,
                             tb_explanation* out) {
  return guarded([&] {
    checkStructSize(out, "tb_explanation");
    require(strings, "a tb_strings");
    explainStrings(*strings, options, out);
  });
}

tb_status tb_strings_explain_back(const tb_strings* strings, const tb_convert_back_options* options,
                                  tb_explanation* out) {
  return guarded([&] {
    checkStructSize(out, "tb_explanation");
    require(strings, "a tb_strings");
    explainStringsToTf(*strings, options, out);
  });
}

void tb_strings_release(tb_strings* strings) { delete strings; }

tb_status tb_py_strings_from_tf(_object* tensor, tb_strings** out) {
  return guarded([&] {
    require(tensor, "a Python object");
    require(out, "a place for the result");
    const TfApi& api = requireEagerApi();
    TFE_TensorHandle* handle = handleOf(api, tensor);
    int64_t shape[kMaxDims];
    TensorRef ref;
    if (!api.isReady(handle) || !exportReadyStrings(api, handle, shape, &ref)) {
      // With the GIL, waiting for a tensor that a tf.py_function produces would never end.
      GilRelease without_gil(!api.isReady(handle));
      exportStrings(api, handle, shape, &ref);
    }
    *out = stringsOfTf(std::move(ref)).release();
  });
}

tb_status tb_py_strings_from_torch(_object* bytes, _object* offsets, const int64_t* shape,
                                   int32_t ndim, tb_strings** out) {
  return guarded([&] {
    require(bytes, "a torch tensor of bytes");
    require(offsets, "a torch tensor of offsets");
    if (ndim > 0) require(shape, "a shape");
    require(out, "a place for the result");
    const TorchAdapter& adapter = torchAdapter();
    *out = stringsOfTorch(adapter.fromPython(bytes), adapter.fromPython(offsets), shape, ndim)
               .release();
  });
}

tb_status tb_py_strings_to_torch(const tb_strings* strings, const tb_convert_options* options,
                                 _object** bytes, _object** offsets) {
  return guarded([&] {
    require(strings, "a tb_strings");
    require(bytes, "a place for the bytes");
    require(offsets, "a place for the offsets");
    const tb_convert_options& checked = checkedOptions(options);
    TorchStrings result;
    {
      GilRelease without_gil(workBytes(*strings) > kGilFreeBytes);
      result = stringsToTorch(*strings, checked);
    }
    const TorchAdapter& adapter = torchAdapter();
    _object* first;
    try {
      first = toPythonOrThrow(adapter, result.bytes);
    } catch (...) {
      adapter.release(result.offsets);
      throw;
    }
    // A failure here leaks `first`, which cannot be dropped without Python's headers.
    *offsets = toPythonOrThrow(adapter, result.offsets);
    *bytes = first;
  });
}

tb_status tb_py_strings_to_tf(const tb_strings* strings, const tb_convert_back_options* options,
                              _object** out) {
  return guarded([&] {
    require(strings, "a tb_strings");
    require(out, "a place for the result");
    const tb_convert_back_options& checked = checkedToTfOptions(options);
    const TfApi& api = requireEagerApi();
    if (api.EagerTensorFromHandle == nullptr) throwNoPython();
    TfTensor tensor;
    {
      GilRelease without_gil(workBytes(*strings) > kGilFreeBytes);
      tensor = stringsToTf(*strings, checked, api);
    }
    *out = eagerTensor(api, makeHandle(api, tensor.get()));
  });
}
