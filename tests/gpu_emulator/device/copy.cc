#include "device/copy.h"

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "device/memory.h"
#include "device/stream.h"

namespace gpu_emulator {
namespace {

size_t extent(const Rows& rows, size_t pitch) { return pitch * (rows.height - 1) + rows.width; }

std::string nameOf(MemoryKind from, MemoryKind to) {
  const auto letter = [](MemoryKind kind) { return kind == MemoryKind::kDevice ? 'D' : 'H'; };
  return std::string("copy ") + letter(from) + "2" + letter(to);
}

void copyBytes(void* to, const void* from, const Rows& rows) {
  auto* out = static_cast<char*>(to);
  const auto* in = static_cast<const char*>(from);
  for (size_t row = 0; row < rows.height; ++row) {
    memcpy(out + row * rows.to_pitch, in + row * rows.from_pitch, rows.width);
  }
}

}  // namespace

Error copy(void* to, const void* from, size_t size, Stream* stream, CopyCall call) {
  return copyRows(to, from, {size, 1, size, size}, stream, call);
}

Error copyRows(void* to, const void* from, const Rows& rows, Stream* stream, CopyCall call) {
  if (rows.width == 0 || rows.height == 0) return kSuccess;
  const MemoryKind source = allocationOf(from).kind, target = allocationOf(to).kind;
  const size_t size = extent(rows, rows.from_pitch);
  Work work{nameOf(source, target), {{from, size}}, {{to, extent(rows, rows.to_pitch)}}};
  if (source == MemoryKind::kPageable) {
    const auto* bytes = static_cast<const char*>(from);
    auto staged = std::make_shared<std::vector<char>>(bytes, bytes + size);
    work.run = [=] { copyBytes(shadow(to), staged->data(), rows); };
  } else {
    work.run = [=] { copyBytes(shadow(to), shadow(from), rows); };
  }
  if (const Error error = enqueue(stream, std::move(work))) return error;
  const bool pinned = source == MemoryKind::kPinned || target == MemoryKind::kPinned;
  const bool waits = target == MemoryKind::kPageable || (call == CopyCall::kBlocking && pinned);
  return waits ? synchronizeStream(stream) : kSuccess;
}

Error fill(void* to, unsigned value, size_t element_size, size_t count, Stream* stream) {
  if (count == 0) return kSuccess;
  const auto run = [=] {
    auto* out = static_cast<char*>(shadow(to));
    for (size_t i = 0; i < count; ++i) memcpy(out + i * element_size, &value, element_size);
  };
  return enqueue(stream, {"memset", {}, {{to, element_size * count}}, run});
}

}  // namespace gpu_emulator
