#include "extension/records.h"

namespace tensor_bridge::python {
namespace {

// Calls call() without the GIL. False with an exception.
template <typename Call>
bool released(Call call) {
  const tb_status status = withoutGil(call);
  if (status != TB_OK) raiseStatus(status);
  return status == TB_OK;
}

}  // namespace

int64_t* numbers(const Integers& integers, int index) {
  return static_cast<int64_t*>(integers.address(index));
}

tb_record_files recordFiles(const Integers& integers, int first) {
  auto files = sized<tb_record_files>();
  files.data = static_cast<const void* const*>(integers.address(first));
  files.sizes = numbers(integers, first + 1);
  files.ends = numbers(integers, first + 2);
  files.count = integers.number(first + 3);
  files.offsets = numbers(integers, first + 4);
  return files;
}

PyObject* recordsScan(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  const Integers integers(args, nargs, 11, "records_scan");
  const void* data = integers.address(0);
  const int64_t size = integers.number(1);
  auto scan = sized<tb_record_scan>();
  scan.next = integers.number(2);
  scan.searching = static_cast<int32_t>(integers.number(3));
  scan.budget = integers.number(4);
  scan.verify = static_cast<int32_t>(integers.number(5));
  scan.skip = static_cast<int32_t>(integers.number(6));
  scan.final = static_cast<int32_t>(integers.number(7));
  const int64_t most = integers.number(8);
  int64_t* begins = numbers(integers, 9);
  int64_t* sizes = numbers(integers, 10);
  int64_t count = 0;
  if (integers.failed() ||
      !released([&] { return tb_records_scan(data, size, &scan, most, begins, sizes, &count); })) {
    return nullptr;
  }
  return Py_BuildValue(
      "(LLiLiLLL)", static_cast<long long>(count), static_cast<long long>(scan.next),
      static_cast<int>(scan.searching), static_cast<long long>(scan.budget),
      static_cast<int>(scan.fault), static_cast<long long>(scan.fault_at),
      static_cast<long long>(scan.skipped_records), static_cast<long long>(scan.skipped_bytes));
}

PyObject* recordsAt(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  const Integers integers(args, nargs, 11, "records_at");
  const tb_record_files files = recordFiles(integers, 0);
  const int64_t* asked = numbers(integers, 5);
  const int64_t count = integers.number(6);
  const auto verify = static_cast<int32_t>(integers.number(7));
  const void* base = integers.address(8);
  int64_t* begins = numbers(integers, 9);
  int64_t* sizes = numbers(integers, 10);
  auto stop = sized<tb_record_stop>();
  if (integers.failed() || !released([&] {
        return tb_records_at(&files, asked, count, verify, base, begins, sizes, &stop);
      })) {
    return nullptr;
  }
  return Py_BuildValue("(LLi)", static_cast<long long>(stop.done),
                       static_cast<long long>(stop.file), static_cast<int>(stop.fault));
}

PyObject* recordBytes(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  const Integers integers(args, nargs, 7, "record_bytes");
  const tb_record_files files = recordFiles(integers, 0);
  if (integers.failed()) return nullptr;
  const Py_ssize_t asked = PyNumber_AsSsize_t(args[5], PyExc_IndexError);
  const int64_t verify = integers.number(6);
  if (integers.failed()) return nullptr;
  const int64_t total = files.count == 0 ? 0 : files.ends[files.count - 1];
  const int64_t number = asked < 0 ? asked + total : asked;
  if (number < 0 || number >= total) Py_RETURN_NONE;
  int64_t begin = 0;
  int64_t size = 0;
  auto stop = sized<tb_record_stop>();
  const auto find = [&](bool checks) {
    const int32_t checked = checks ? 1 : 0;
    return tb_records_at(&files, &number, 1, checked, nullptr, &begin, &size, &stop);
  };
  // First without the checksum. Its computation releases the GIL if it takes longer than the
  // release does.
  constexpr int64_t kGilFreeBytes = 64 * 1024;
  tb_status status = find(false);
  if (status == TB_OK && stop.file < 0 && verify != 0) {
    const auto check = [&] { return find(true); };
    status = size > kGilFreeBytes ? withoutGil(check) : check();
  }
  if (status != TB_OK) return raiseStatus(status);
  if (stop.file >= 0) Py_RETURN_NONE;
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(begin), size);
}

PyObject* recordsGather(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  const Integers integers(args, nargs, 6, "records_gather");
  const void* base = integers.address(0);
  const int64_t* begins = numbers(integers, 1);
  const int64_t* sizes = numbers(integers, 2);
  const int64_t count = integers.number(3);
  void* out = integers.address(4);
  int64_t* offsets = numbers(integers, 5);
  if (integers.failed() ||
      !released([&] { return tb_records_gather(base, begins, sizes, count, out, offsets); })) {
    return nullptr;
  }
  Py_RETURN_NONE;
}

PyObject* recordsFrame(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  const Integers integers(args, nargs, 5, "records_frame");
  const void* base = integers.address(0);
  const int64_t* begins = numbers(integers, 1);
  const int64_t* sizes = numbers(integers, 2);
  const int64_t count = integers.number(3);
  void* out = integers.address(4);
  if (integers.failed() ||
      !released([&] { return tb_records_frame(base, begins, sizes, count, out); })) {
    return nullptr;
  }
  Py_RETURN_NONE;
}

}  // namespace tensor_bridge::python
