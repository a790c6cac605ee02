// Symbol visibility of the C ABI: everything is hidden except what carries TB_EXPORT.
// Not for: C++ symbols; none of them leaves libtensor_bridge.so.
#ifndef TENSOR_BRIDGE_EXPORT_H_
#define TENSOR_BRIDGE_EXPORT_H_

#if defined(__GNUC__) || defined(__clang__)
#define TB_EXPORT __attribute__((visibility("default")))
#else
#define TB_EXPORT
#endif

#endif  // TENSOR_BRIDGE_EXPORT_H_
