// Reading, gathering and writing strings in the layout of TensorFlow's own header.

#include "adapters/tensorflow/strings.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/owner_counter.h"
#include "support/expect_error.h"
#include "support/owner_scope.h"
#include "tsl/platform/ctstring_internal.h"

namespace tensor_bridge::testing {
namespace {

constexpr int kString = 7;
constexpr int kFloat = 1;

// Strings with sizes around the limits of every form and every way to copy.
std::vector<std::string> samples() {
  std::vector<std::string> result;
  for (size_t size : {0,  1,  2,  14, 15, 16, 17, 21,  22,  23,  24,   31,
                      32, 33, 47, 48, 63, 64, 65, 127, 128, 129, 1000, 70000}) {
    std::string text(size, '\0');
    for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i * 7 + size);
    result.push_back(text);
  }
  result.push_back(std::string("\0", 1));
  result.push_back(std::string("a\0b\0", 4));
  result.push_back("\xff\xfe not UTF-8");
  return result;
}

// Elements made and freed by TensorFlow's own functions.
class Elements {
 public:
  explicit Elements(const std::vector<std::string>& strings) {
    for (const std::string& string : strings) add(string);
  }
  Elements() = default;
  ~Elements() {
    for (TF_TString& element : elements_) TF_TString_Dealloc(&element);
  }
  Elements(const Elements&) = delete;
  Elements& operator=(const Elements&) = delete;

  void add(const std::string& string) {
    TF_TString element;
    TF_TString_Init(&element);
    TF_TString_Copy(&element, string.data(), string.size());
    elements_.push_back(element);
  }
  void addView(const char* data, size_t size) {
    TF_TString element;
    TF_TString_Init(&element);
    TF_TString_AssignView(&element, data, size);
    elements_.push_back(element);
  }
  const TF_TString* data() const { return elements_.data(); }
  int64_t count() const { return static_cast<int64_t>(elements_.size()); }

 private:
  std::vector<TF_TString> elements_;
};

std::vector<std::string> readAll(const void* elements, int64_t count) {
  std::vector<tb_string> refs(static_cast<size_t>(count));
  readStrings(elements, count, refs.data());
  std::vector<std::string> result;
  for (const tb_string& ref : refs) {
    result.emplace_back(ref.data, static_cast<size_t>(ref.size));
  }
  return result;
}

// Gathers into a block of exactly the right size; the bytes around it must not change.
std::string gatherAll(const void* elements, int64_t count, std::vector<int64_t>* offsets) {
  offsets->assign(static_cast<size_t>(count) + 1, -1);
  const int64_t total = measureStrings(elements, count, offsets->data());
  EXPECT_EQ(total, measureStrings(elements, count));
  EXPECT_EQ(offsets->front(), 0);
  EXPECT_EQ(offsets->back(), total);
  constexpr size_t kMargin = 128;
  const auto size = static_cast<size_t>(total);
  std::string block(size + 2 * kMargin, '#');
  gatherStrings(elements, count, block.data() + kMargin, total);
  EXPECT_EQ(block.substr(0, kMargin), std::string(kMargin, '#'));
  EXPECT_EQ(block.substr(kMargin + size), std::string(kMargin, '#'));
  return block.substr(kMargin, size);
}

void expectGathers(const Elements& elements, const std::vector<std::string>& strings) {
  std::vector<int64_t> offsets;
  const std::string block = gatherAll(elements.data(), elements.count(), &offsets);
  ASSERT_EQ(offsets.size(), strings.size() + 1);
  for (size_t i = 0; i < strings.size(); ++i) {
    const auto begin = static_cast<size_t>(offsets[i]);
    const auto size = static_cast<size_t>(offsets[i + 1]) - begin;
    EXPECT_EQ(block.substr(begin, size), strings[i]) << "string " << i;
  }
}

TEST(ReadStrings, SeesWhatTensorflowWrote) {
  const std::vector<std::string> strings = samples();
  const Elements elements(strings);
  EXPECT_EQ(readAll(elements.data(), elements.count()), strings);
  std::vector<tb_string> refs(strings.size());
  readStrings(elements.data(), elements.count(), refs.data());
  for (size_t i = 0; i < strings.size(); ++i) {
    EXPECT_EQ(refs[i].data, TF_TString_GetDataPointer(elements.data() + i)) << "not copied";
    EXPECT_EQ(static_cast<size_t>(refs[i].size), TF_TString_GetSize(elements.data() + i));
  }
}

TEST(ReadStrings, SeesAllFourForms) {
  struct {
    TF_TString elements[4];
    char text[16] = "by offset";
  } memory{};
  const std::string large(100, 'l');
  TF_TString_Copy(&memory.elements[0], "small", 5);
  TF_TString_Copy(&memory.elements[1], large.data(), large.size());
  memory.elements[2].u.offset.size = 9 << 2 | TF_TSTR_OFFSET;
  memory.elements[2].u.offset.offset = static_cast<uint32_t>(
      reinterpret_cast<char*>(memory.text) - reinterpret_cast<char*>(&memory.elements[2]));
  memory.elements[2].u.offset.count = 1;
  TF_TString_AssignView(&memory.elements[3], "by view", 7);
  const TF_TString_Type forms[] = {TF_TSTR_SMALL, TF_TSTR_LARGE, TF_TSTR_OFFSET, TF_TSTR_VIEW};
  for (int i = 0; i < 4; ++i) ASSERT_EQ(TF_TString_GetType(&memory.elements[i]), forms[i]);

  const std::vector<std::string> expected = {"small", large, "by offset", "by view"};
  EXPECT_EQ(readAll(memory.elements, 4), expected);
  std::vector<int64_t> offsets;
  EXPECT_EQ(gatherAll(memory.elements, 4, &offsets), "small" + large + "by offset" + "by view");
  EXPECT_EQ(offsets, (std::vector<int64_t>{0, 5, 105, 114, 121}));
  TF_TString_Dealloc(&memory.elements[1]);
}

TEST(ReadStrings, TakesElementsAtAnyAddress) {
  const std::vector<std::string> strings = samples();
  const Elements elements(strings);
  const auto size = static_cast<size_t>(elements.count()) * sizeof(TF_TString);
  std::vector<char> shifted(size + 1);
  std::memcpy(shifted.data() + 1, elements.data(), size);
  EXPECT_EQ(readAll(shifted.data() + 1, elements.count()), strings);
}

TEST(ReadStrings, FindsAnElementByItsNumber) {
  const Elements elements({"a", "b", "c"});
  EXPECT_EQ(stringElement(elements.data(), 2), elements.data() + 2);
  EXPECT_EQ(readAll(stringElement(elements.data(), 1), 2), (std::vector<std::string>{"b", "c"}));
}

TEST(GatherStrings, PutsOneBehindTheOther) {
  const std::vector<std::string> strings = samples();
  expectGathers(Elements(strings), strings);
}

TEST(GatherStrings, OfOneStringOfEachSize) {
  for (const std::string& string : samples()) expectGathers(Elements({string}), {string});
}

TEST(GatherStrings, OfManyMixedStrings) {
  std::mt19937 random(1);  // NOLINT: the same strings in every run
  for (int limit : {3, 22, 30, 200}) {
    std::vector<std::string> strings(500);
    for (std::string& string : strings) {
      string.resize(random() % static_cast<unsigned>(limit));
      for (char& c : string) c = static_cast<char>(random());
    }
    expectGathers(Elements(strings), strings);
  }
}

TEST(GatherStrings, OfNothing) {
  int64_t offset = -1;
  EXPECT_EQ(measureStrings(nullptr, 0, &offset), 0);
  EXPECT_EQ(offset, 0);
  EXPECT_NO_THROW(gatherStrings(nullptr, 0, nullptr, 0));
  const Elements empty({"", "", ""});
  std::vector<int64_t> offsets;
  EXPECT_EQ(gatherAll(empty.data(), 3, &offsets), "");
  EXPECT_EQ(offsets, std::vector<int64_t>(4, 0));
}

TEST(GatherStrings, NeverLeavesTheBlock) {
  const Elements elements({"0123456789", std::string(30, 'x'), "y"});
  for (int64_t nbytes : {0, 1, 9, 10, 11, 39, 40, 42, 1000}) {
    std::string block(1200, '#');
    expectError(ErrorCode::kInvalidHandle, {"other sizes", "writes into"},
                [&] { gatherStrings(elements.data(), 3, block.data(), nbytes); });
    EXPECT_EQ(block.find_first_not_of('#', static_cast<size_t>(nbytes)), std::string::npos)
        << nbytes;
  }
}

TEST(MeasureStrings, RefusesMoreThanSixtyFourBits) {
  Elements elements;
  const char byte = 'x';
  for (int i = 0; i < 2; ++i) elements.addView(&byte, (size_t{1} << 62) - 1);
  int64_t offsets[4];
  EXPECT_EQ(measureStrings(elements.data(), 2, offsets), INT64_MAX - 1);
  elements.addView(&byte, 2);
  expectError(ErrorCode::kInvalidHandle, {"64 bits"},
              [&] { measureStrings(elements.data(), 3, offsets); });
  expectError(ErrorCode::kInvalidHandle, {"64 bits"}, [&] { measureStrings(elements.data(), 3); });
}

// More than 4 GiB of address space, which maps the same 2 MiB of memory many times.
TEST(GatherStrings, CountsBeyondThirtyTwoBits) {
  constexpr size_t kPiece = size_t{2} << 20;
  constexpr size_t kPieces = 2100;
  const int file = memfd_create("pieces", 0);
  ASSERT_GE(file, 0);
  ASSERT_EQ(ftruncate(file, kPiece), 0);
  auto* block = static_cast<char*>(mmap(nullptr, kPieces * kPiece, PROT_NONE,
                                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  ASSERT_NE(block, MAP_FAILED);
  for (size_t i = 0; i < kPieces; ++i) {
    ASSERT_NE(
        mmap(block + i * kPiece, kPiece, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0),
        MAP_FAILED);
  }
  const std::string text(kPiece, 'x');
  Elements elements;
  for (size_t i = 0; i + 1 < kPieces; ++i) elements.addView(text.data(), text.size());
  elements.add("the end");
  std::vector<int64_t> offsets(kPieces + 1);
  const int64_t total = measureStrings(elements.data(), elements.count(), offsets.data());
  EXPECT_EQ(total, static_cast<int64_t>((kPieces - 1) * kPiece + 7));
  EXPECT_GT(offsets[kPieces - 1], int64_t{1} << 32);
  gatherStrings(elements.data(), elements.count(), block, total);
  EXPECT_EQ(std::string(block + offsets[kPieces - 1], 7), "the end");
  munmap(block, kPieces * kPiece);
  close(file);
}

// ---- writing -----------------------------------------------------------------------------------

TF_Tensor* written(const std::vector<std::string>& strings, const std::vector<int64_t>& shape) {
  StringTensorWriter writer(static_cast<int64_t>(strings.size()));
  for (const std::string& string : strings) {
    writer.append(string.data(), static_cast<int64_t>(string.size()));
  }
  return writer.finish(requireTfApi(), shape.data(), static_cast<int>(shape.size())).release();
}

TF_TString* elementsOf(TF_Tensor* tensor) {
  return static_cast<TF_TString*>(requireTfApi().TF_TensorData(tensor));
}

TEST(StringTensorWriter, WritesWhatTensorflowReads) {
  const std::vector<std::string> strings = samples();
  const auto count = static_cast<int64_t>(strings.size());
  TF_Tensor* tensor = written(strings, {1, count});
  EXPECT_EQ(requireTfApi().TF_TensorType(tensor), kString);
  EXPECT_EQ(requireTfApi().TF_NumDims(tensor), 2);
  EXPECT_EQ(requireTfApi().TF_Dim(tensor, 1), count);
  EXPECT_EQ(requireTfApi().TF_TensorByteSize(tensor), strings.size() * sizeof(TF_TString));
  const TF_TString* elements = elementsOf(tensor);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(elements) % 64, 0u);
  for (size_t i = 0; i < strings.size(); ++i) {
    const TF_TString* element = elements + i;
    const std::string& string = strings[i];
    EXPECT_EQ(std::string(TF_TString_GetDataPointer(element), TF_TString_GetSize(element)), string);
    EXPECT_EQ(TF_TString_GetDataPointer(element)[string.size()], '\0');

    // Every field equals that of a string that TensorFlow itself makes.
    TF_TString own;
    TF_TString_Init(&own);
    TF_TString_Copy(&own, string.data(), string.size());
    EXPECT_EQ(TF_TString_GetType(element), TF_TString_GetType(&own));
    EXPECT_EQ(TF_TString_GetCapacity(element), TF_TString_GetCapacity(&own));
    TF_TString_Dealloc(&own);
  }
  requireTfApi().TF_DeleteTensor(tensor);
}

// TensorFlow may grow, shrink, free and move each string separately.
TEST(StringTensorWriter, LeavesEachStringToTensorflow) {
  const std::string large(1000, 'l');
  TF_Tensor* tensor = written({"a", large, large, large, ""}, {5});
  TF_TString* elements = elementsOf(tensor);
  TF_TString_Copy(&elements[0], large.data(), large.size());
  TF_TString_Resize(&elements[1], 5000, 'm');
  TF_TString_Copy(&elements[2], "s", 1);
  TF_TString moved;
  TF_TString_Init(&moved);
  TF_TString_Move(&moved, &elements[3]);
  TF_TString_Append(&elements[4], &moved);
  TF_TString_Dealloc(&moved);
  EXPECT_EQ(readAll(elements, 5),
            (std::vector<std::string>{large, large + std::string(4000, 'm'), "s", "", large}));
  // AddressSanitizer reports memory that is freed twice or never.
  requireTfApi().TF_DeleteTensor(tensor);
}

TEST(StringTensorWriter, FreesWhatNobodyFinished) {
  StringTensorWriter writer(3);
  const std::string large(100, 'l');
  writer.append(large.data(), 100);
}

TEST(StringTensorWriter, MakesTensorsWithoutElements) {
  TF_Tensor* tensor = written({}, {2, 0, 3});
  EXPECT_EQ(requireTfApi().TF_NumDims(tensor), 3);
  EXPECT_EQ(requireTfApi().TF_Dim(tensor, 2), 3);
  requireTfApi().TF_DeleteTensor(tensor);
  tensor = written({"scalar"}, {});
  EXPECT_EQ(requireTfApi().TF_NumDims(tensor), 0);
  EXPECT_EQ(readAll(elementsOf(tensor), 1), std::vector<std::string>{"scalar"});
  requireTfApi().TF_DeleteTensor(tensor);
}

TEST(StringTensorWriter, HasNoMemoryForTooMany) {
  EXPECT_THROW(StringTensorWriter(INT64_MAX / 8), std::bad_alloc);
}

// ---- tensors -----------------------------------------------------------------------------------

TEST(ExportStrings, ShowsTheElementsOfATensor) {
  OwnerScope owners(liveOwners);
  TF_Tensor* tensor = written({"a", "b", "c", "d"}, {2, 2});
  int64_t shape[kMaxDims];
  TensorRef view;
  exportStrings(requireTfApi(), tensor, shape, &view);
  EXPECT_EQ(view.dl.data, elementsOf(tensor));
  EXPECT_EQ(view.owner, nullptr) << "the tensor stays with the caller";
  EXPECT_EQ(view.dl.ndim, 2);
  EXPECT_EQ(shape[1], 2);
  EXPECT_EQ(view.dtype, Dtype::kString);
  EXPECT_TRUE(view.read_only);
  requireTfApi().TF_DeleteTensor(tensor);
}

TEST(ExportStrings, RefusesOtherTensors) {
  int64_t shape[kMaxDims];
  TensorRef view;
  expectError(ErrorCode::kInvalidHandle, {"null"}, [&] {
    exportStrings(requireTfApi(), static_cast<TF_Tensor*>(nullptr), shape, &view);
  });
  const int64_t dims[] = {2};
  TF_Tensor* floats = requireTfApi().TF_AllocateTensor(kFloat, dims, 1, 8);
  expectError(ErrorCode::kUnsupportedDtype, {"strings", "float32"},
              [&] { exportStrings(requireTfApi(), floats, shape, &view); });
  requireTfApi().TF_DeleteTensor(floats);
}

TEST(ExportStrings, RefusesATensorThatIsTooSmallForItsShape) {
  alignas(64) char memory[64] = {};
  const int64_t dims[] = {3};
  TF_Tensor* tensor = requireTfApi().TF_NewTensor(
      kString, dims, 1, memory, 64, [](void*, size_t, void*) {}, nullptr);
  ASSERT_NE(tensor, nullptr);
  int64_t shape[kMaxDims];
  TensorRef view;
  expectError(ErrorCode::kInvalidHandle, {"64 bytes", "need 72"},
              [&] { exportStrings(requireTfApi(), tensor, shape, &view); });
  requireTfApi().TF_DeleteTensor(tensor);
}

}  // namespace
}  // namespace tensor_bridge::testing
