// The keys, types and counts of the features of one Example or SequenceExample, from which a spec
// can be proposed. Not for: parsing by a spec (formats/example.h).
#ifndef TENSOR_BRIDGE_FORMATS_EXAMPLE_KEYS_H_
#define TENSOR_BRIDGE_FORMATS_EXAMPLE_KEYS_H_

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "formats/feature.h"

namespace tensor_bridge {

/// A feature, or one row of a feature list. The key refers to the record.
struct ExampleKey {
  std::string_view key;
  bool in_lists = false;
  FeatureType type = FeatureType::kNone;  // kNone: an empty Feature
  int64_t count = 0;
};

/// The features in the record's order. Throws FormatError, with the offset in the record, if the
/// record is neither message.
std::vector<ExampleKey> readExampleKeys(const uint8_t* record, size_t size);

}  // namespace tensor_bridge

#endif  // TENSOR_BRIDGE_FORMATS_EXAMPLE_KEYS_H_
