// ConvertOptions and ConvertBackOptions, with the fields and defaults of the Python keywords, of
// tb_convert_options and of tb_convert_back_options. Not for: decisions; those are in src/bridge.
#ifndef TENSOR_BRIDGE_OPTIONS_H_
#define TENSOR_BRIDGE_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "tensor_bridge/c_api.h"
#include "tensor_bridge/device.h"
#include "tensor_bridge/error.h"

namespace tensor_bridge {

/// What the first write to a shared tensor does.
enum class OnWrite : int32_t {
  kCopy = TB_ON_WRITE_COPY,  ///< the torch tensor moves to its own memory if TensorFlow holds this
  kRaise = TB_ON_WRITE_RAISE,  ///< the write throws c10::BufferError; never a copy
  kAlias = TB_ON_WRITE_ALIAS,  ///< the write reaches TensorFlow; only for memory nothing else uses
};

struct ConvertOptions {
  /// nullopt: share if possible, else copy. false: never copy; Error{kCopyRequired} if sharing is
  /// impossible. true: always copy.
  std::optional<bool> copy;
  /// The device of the result; nullopt: the device of the TensorFlow tensor.
  std::optional<Device> device;
  /// Applies to shared memory only; a copied result is ordinary torch memory.
  OnWrite on_write = OnWrite::kCopy;
  /// true: the stored bytes (uint8) of a dtype that torch lacks, the integers of a quantized one.
  bool raw = false;
  /// Parameters of a quantized dtype: one of each, or one for each channel along `axis`.
  std::vector<double> scale;
  std::vector<int64_t> zero_point;
  std::optional<int64_t> axis;
};

/// What a conversion to TensorFlow does with a tensor that requires grad.
enum class Grad : int32_t {
  kDetach = TB_GRAD_DETACH,  ///< converts its values, without the autograd graph
  kRaise = TB_GRAD_RAISE,    ///< Error{kInvalidOption}
};

struct ConvertBackOptions {
  /// As in ConvertOptions.
  std::optional<bool> copy;
  Grad grad = Grad::kDetach;
  /// TF_DataType of a dtype that torch lacks (int4, float8_e4m3b11fnuz, qint8, ...). Every value
  /// must be representable, else Error{kValueOutOfRange}. 0: TensorFlow's dtype of the same name.
  int32_t tf_dtype = 0;
};

namespace detail {

inline tb_convert_back_options toC(const ConvertBackOptions& options) {
  tb_convert_back_options c;
  tb_convert_back_options_init(&c);
  if (options.copy) c.copy = *options.copy ? TB_COPY_ALWAYS : TB_COPY_NEVER;
  c.grad = static_cast<int32_t>(options.grad);
  c.tf_dtype = options.tf_dtype;
  return c;
}

/// The C form of `options`; it points into `options`, which must outlive it.
inline tb_convert_options toC(const ConvertOptions& options) {
  if (options.scale.size() != options.zero_point.size()) {
    throw Error(ErrorCode::kInvalidOption,
                "scale and zero_point must have the same number of values, got " +
                    std::to_string(options.scale.size()) + " and " +
                    std::to_string(options.zero_point.size()));
  }
  tb_convert_options c;
  tb_convert_options_init(&c);
  if (options.copy) c.copy = *options.copy ? TB_COPY_ALWAYS : TB_COPY_NEVER;
  c.on_write = static_cast<int32_t>(options.on_write);
  c.raw = options.raw ? 1 : 0;
  if (options.device) {
    c.has_device = 1;
    c.device_type = static_cast<int32_t>(options.device->type);
    c.device_id = options.device->index;
  }
  if (options.axis) {
    c.has_axis = 1;
    c.axis = *options.axis;
  }
  c.num_scales = static_cast<int64_t>(options.scale.size());
  c.scale = options.scale.data();
  c.zero_point = options.zero_point.data();
  return c;
}

}  // namespace detail
}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_OPTIONS_H_
