#include "formats/example_keys.h"

#include <utility>

#include "formats/format_error.h"
#include "formats/wire.h"

namespace tensor_bridge {
namespace {

constexpr uint8_t tagOf(uint32_t number) {
  return static_cast<uint8_t>(number << 3 | WireReader::kBytes);
}

class KeyReader {
 public:
  explicit KeyReader(const uint8_t* record) : record_(record) {}

  std::vector<ExampleKey> read(FeatureCursor record) {
    while (!record.done()) {
      const uint8_t* place = record.next;
      const bool features = record.take(tagOf(1));
      const bool lists = !features && record.take(tagOf(2));
      FeatureCursor map;
      const bool good =
          features || lists ? record.string(&map) && readMap(map, lists) : record.skipField();
      if (!good) {
        throw FormatError(place - record_, "",
                          "expected a tf.train.Example or SequenceExample, got something else");
      }
    }
    return std::move(found_);
  }

 private:
  bool readMap(FeatureCursor map, bool lists) {
    while (!map.done()) {
      FeatureCursor entry;
      FeatureCursor key;
      FeatureCursor value;
      if (!map.take(tagOf(1)) || !map.string(&entry)) return false;
      while (!entry.done()) {
        if (entry.take(tagOf(1))) {
          if (!entry.string(&key)) return false;
        } else if (!entry.take(tagOf(2)) || !entry.string(&value)) {
          return false;
        }
      }
      const std::string_view name(reinterpret_cast<const char*>(key.next), key.left());
      if (!(lists ? readRows(name, value) : readFeature(name, false, value))) return false;
    }
    return true;
  }

  bool readRows(std::string_view key, FeatureCursor rows) {
    while (!rows.done()) {
      FeatureCursor feature;
      if (!rows.take(tagOf(1)) || !rows.string(&feature)) return false;
      if (!readFeature(key, true, feature)) return false;
    }
    return true;
  }

  bool readFeature(std::string_view key, bool in_lists, FeatureCursor feature) {
    ExampleKey found{key, in_lists, FeatureType::kNone, 0};
    if (!feature.done()) {
      const uint8_t tag = *feature.next++;
      if (tag != tagOf(1) && tag != tagOf(2) && tag != tagOf(3)) return false;
      found.type = static_cast<FeatureType>(tag >> 3);
      FeatureList list;
      if (!findFeatureList(&feature, found.type, FeatureRules::kExample, &list)) return false;
      found.count = list.count;
    }
    found_.push_back(found);
    return true;
  }

  const uint8_t* record_;
  std::vector<ExampleKey> found_;
};

}  // namespace

std::vector<ExampleKey> readExampleKeys(const uint8_t* record, size_t size) {
  return KeyReader(record).read({record, record + size});
}

}  // namespace tensor_bridge
