// The queue and the thread of a DataStream, over a fake iterator: TensorFlow's functions are
// replaced one by one, so no framework is needed.

#include "bridge/dataset_stream.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/error.h"
#include "support/on_threads.h"

struct TF_Status {
  int code = 0;
  std::string message;
};
struct TFE_TensorHandle {
  int64_t value = 0;
};
struct TFE_Op {
  std::string name;
};
struct TFE_Executor {};
struct TFE_CancellationManager {
  std::atomic<bool> cancelled{false};
};

namespace tensor_bridge {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kLong{60000};

// What the fake iterator does. Only one test at a time uses it.
struct Script {
  int64_t count = 0;              // elements before the end
  int64_t fails_at = -1;          // this element fails
  int64_t blocks_at = -1;         // this element blocks until it is cancelled
  std::atomic<bool> held{false};  // while true no element is made, even if cancelled

  std::atomic<int64_t> next{0};
  std::atomic<int> calls{0};
  std::atomic<int> in_use{0};
  std::atomic<int> handles{0};
  std::atomic<int> others{0};          // operations, cancellation managers, executors
  std::atomic<int> after_failures{0};  // operations that do nothing
  TFE_CancellationManager* manager = nullptr;
};
Script* g_script = nullptr;

void set(TF_Status* status, int code, const char* message) {
  status->code = code;
  status->message = message;
}

void execute(TFE_Op* op, TFE_TensorHandle** outputs, int* count, TF_Status* status) {
  Script& script = *g_script;
  if (op->name == "NoOp") {
    script.after_failures.fetch_add(1);
    return;
  }
  // The iterator is used by one thread at a time.
  EXPECT_EQ(script.in_use.fetch_add(1), 0);
  script.calls.fetch_add(1);
  while (script.held) std::this_thread::sleep_for(milliseconds(1));
  const int64_t value = script.next++;
  if (value == script.blocks_at) {
    while (!script.manager->cancelled) std::this_thread::sleep_for(milliseconds(1));
  }
  if (script.manager->cancelled) {
    set(status, kTfCancelled, "cancelled");
  } else if (value == script.fails_at) {
    set(status, kTfInvalidArgument, "bad element");
  } else if (value >= script.count) {
    set(status, kTfOutOfRange, "End of sequence");
  } else {
    for (int i = 0; i < *count; ++i) outputs[i] = new TFE_TensorHandle{value};
    script.handles.fetch_add(*count);
  }
  script.in_use.fetch_sub(1);
}

TfApi actedApi() {
  TfApi api{};
  api.TF_NewStatus = [] { return new TF_Status; };
  api.TF_DeleteStatus = [](TF_Status* status) { delete status; };
  api.TF_SetStatus = set;
  api.TF_GetCode = [](const TF_Status* status) { return status->code; };
  api.TF_Message = [](const TF_Status* status) { return status->message.c_str(); };
  api.TFE_TensorHandleCopySharingTensor = [](TFE_TensorHandle*, TF_Status*) {
    g_script->handles.fetch_add(1);
    return new TFE_TensorHandle;
  };
  api.TFE_DeleteTensorHandle = [](TFE_TensorHandle* handle) {
    g_script->handles.fetch_sub(1);
    delete handle;
  };
  api.TFE_NewOp = [](TFE_Context*, const char* name, TF_Status*) {
    g_script->others.fetch_add(1);
    return new TFE_Op{name};
  };
  api.TFE_DeleteOp = [](TFE_Op* op) {
    g_script->others.fetch_sub(1);
    delete op;
  };
  api.TFE_OpReset = [](TFE_Op*, const char*, const char*, TF_Status*) {};
  api.TFE_OpAddInput = [](TFE_Op*, TFE_TensorHandle*, TF_Status*) {};
  api.TFE_OpSetAttrTypeList = [](TFE_Op*, const char*, const int*, int) {};
  api.TFE_OpSetAttrShapeList = [](TFE_Op*, const char*, const int64_t**, const int*, int,
                                  TF_Status*) {};
  api.TFE_NewCancellationManager = [] {
    g_script->others.fetch_add(1);
    g_script->manager = new TFE_CancellationManager;
    return g_script->manager;
  };
  api.TFE_DeleteCancellationManager = [](TFE_CancellationManager* manager) {
    g_script->others.fetch_sub(1);
    delete manager;
  };
  api.TFE_CancellationManagerStartCancel = [](TFE_CancellationManager* manager) {
    manager->cancelled = true;
  };
  api.TFE_OpSetCancellationManager = [](TFE_Op*, TFE_CancellationManager*, TF_Status*) {};
  api.TFE_ContextGetExecutorForThread = [](TFE_Context*) {
    g_script->others.fetch_add(1);
    return new TFE_Executor;
  };
  api.TFE_ExecutorIsAsync = [](TFE_Executor*) { return false; };
  api.TFE_DeleteExecutor = [](TFE_Executor* executor) {
    g_script->others.fetch_sub(1);
    delete executor;
  };
  api.TFE_Execute = execute;
  return api;
}

// Lives as long as the process, like every table of TensorFlow's functions, because an abandoned
// thread may. A thread that ends looks up the function here that deletes its status.
const TfApi& api() {
  static const TfApi& published = []() -> const TfApi& {
    static const TfApi acted = actedApi();
    detail::g_tf_api.store(&acted);
    return acted;
  }();
  return published;
}

// Closes at the end, and expects that nothing is left.
struct Stream {
  Stream(Script* script_of_it, int prefetch, bool adaptive = false) : script(script_of_it) {
    g_script = script;
    tb_data_component component{TB_DATA_OPAQUE, 1, 0, 0, 0};
    tb_data_options options{};
    options.struct_size = sizeof(options);
    options.num_components = 1;
    options.components = &component;
    TFE_TensorHandle resource;
    auto iterator = std::make_unique<DatasetIterator>(api(), nullptr, &resource, std::vector{1});
    stream = std::make_unique<DataStream>(std::move(iterator), makeDataPlan(options), prefetch,
                                          adaptive);
  }
  ~Stream() {
    EXPECT_TRUE(stream->close(kLong));
    stream.reset();
    // An abandoned thread frees the rest when it ends.
    for (int i = 0; i < 6000 && script->others != 0; ++i) {
      std::this_thread::sleep_for(milliseconds(10));
    }
    EXPECT_EQ(script->handles, 0);
    EXPECT_EQ(script->others, 0);
  }
  // The value, or -1 for the end, -2 for a failure.
  int64_t take() {
    DataItem item;
    EXPECT_EQ(stream->next(kLong, &item), DataStream::Wait::kItem);
    if (item.is_end()) return -1;
    if (item.status != TB_OK) {
      EXPECT_EQ(item.status, TB_TENSORFLOW);
      EXPECT_EQ(item.tf_code, kTfInvalidArgument);
      EXPECT_EQ(item.message, "bad element");
      return -2;
    }
    EXPECT_EQ(item.ordinal, item.element->slots[0].handle.get()->value);
    return item.element->slots[0].handle.get()->value;
  }
  Script* script;
  std::unique_ptr<DataStream> stream;
};

class DataStreamTest : public ::testing::TestWithParam<std::pair<int, bool>> {};

TEST_P(DataStreamTest, GivesEveryElementAndTheEndForGood) {
  Script script;
  script.count = 1000;
  script.fails_at = 7;
  Stream test(&script, GetParam().first, GetParam().second);
  for (int64_t i = 0; i < 1000; ++i) EXPECT_EQ(test.take(), i == 7 ? -2 : i);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(test.take(), -1);
  EXPECT_EQ(script.calls, 1001);
  // A failed operation leaves its error for later ones; the next operation that succeeds clears it.
  EXPECT_EQ(script.after_failures, 2);
  const tb_data_stats stats = test.stream->stats();
  EXPECT_EQ(stats.elements, 999);
  EXPECT_EQ(stats.failures, 1);
}

TEST_P(DataStreamTest, ManyTakersShareTheElements) {
  Script script;
  script.count = 2000;
  std::vector<std::atomic<int>> seen(2000);
  Stream test(&script, GetParam().first, GetParam().second);
  testing::onThreads(4, [&](int) {
    for (int64_t value = test.take(); value >= 0; value = test.take()) ++seen[value];
  });
  for (const std::atomic<int>& count : seen) EXPECT_EQ(count, 1);
}

TEST_P(DataStreamTest, PausesBetweenTwoElements) {
  Script script;
  script.count = 100000;
  Stream test(&script, GetParam().first, GetParam().second);
  int64_t expected = 0;
  for (int round = 0; round < 50; ++round) {
    for (int i = 0; i < 20; ++i) EXPECT_EQ(test.take(), expected++);
    test.stream->pause();
    const int calls = script.calls;
    DataItem item;
    // The queued elements are delivered, and nothing follows them.
    while (test.stream->next(milliseconds(0), &item) == DataStream::Wait::kItem) {
      EXPECT_EQ(item.ordinal, expected++);
    }
    EXPECT_EQ(calls, expected);
    EXPECT_EQ(script.calls, calls);
    test.stream->resume();
  }
}

TEST_P(DataStreamTest, CloseCancelsWhatIsUnderWay) {
  Script script;
  script.count = 100;
  script.blocks_at = 3;
  Stream test(&script, GetParam().first, GetParam().second);
  std::thread closer([&] {
    while (script.next != 4) std::this_thread::sleep_for(milliseconds(1));
    EXPECT_TRUE(test.stream->close(kLong));
  });
  int64_t value = 0;
  while ((value = test.take()) >= 0) EXPECT_LT(value, 3);
  EXPECT_EQ(value, -1);
  closer.join();
  EXPECT_EQ(test.take(), -1);
}

INSTANTIATE_TEST_SUITE_P(Prefetch, DataStreamTest,
                         ::testing::Values(std::pair(0, false), std::pair(1, false),
                                           std::pair(3, false), std::pair(2, true)));

TEST(DataStream, MakesNoMoreThanWasAskedFor) {
  Script script;
  script.count = 100;
  Stream test(&script, 3);
  EXPECT_EQ(test.take(), 0);
  const auto deadline = std::chrono::steady_clock::now() + kLong;
  while (test.stream->stats().queued < 3 && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(milliseconds(1));
  }
  std::this_thread::sleep_for(milliseconds(20));  // time for an element too many
  EXPECT_EQ(script.calls, 4);
  EXPECT_EQ(test.stream->stats().queued, 3);
}

TEST(DataStream, AWaitHasALimit) {
  Script script;
  script.count = 100;
  script.blocks_at = 0;
  Stream test(&script, 1, /*adaptive=*/true);
  DataItem item;
  EXPECT_EQ(test.stream->next(milliseconds(20), &item), DataStream::Wait::kTimeout);
  EXPECT_FALSE(test.stream->hasItem());
  test.stream->cancel();
  EXPECT_EQ(test.take(), -1);
}

TEST(DataStream, WhereNothingIsMadeAheadAWaitCanBeLeftAndTheElementStays) {
  Script script;
  script.count = 100;
  script.held = true;
  Stream test(&script, 0, /*adaptive=*/true);
  DataItem item;
  EXPECT_EQ(test.stream->next(milliseconds(20), &item), DataStream::Wait::kTimeout);
  script.held = false;
  for (int64_t i = 0; i < 100; ++i) {
    EXPECT_EQ(test.take(), i);
    EXPECT_EQ(script.calls, i + 1);  // no element is made before somebody waits for it
  }
  EXPECT_EQ(test.take(), -1);
}

TEST(DataStream, AThreadThatCannotBeCancelledIsLeftAlone) {
  Script script;
  script.count = 100;
  script.held = true;
  Stream test(&script, 1);
  while (script.in_use == 0) std::this_thread::sleep_for(milliseconds(1));
  EXPECT_FALSE(test.stream->close(milliseconds(10)));
  script.held = false;
}

TEST(DataStream, ATensorFlowWithoutTheFunctionsIsRefused) {
  TfApi bare{};
  TFE_TensorHandle resource;
  try {
    const DatasetIterator iterator(bare, nullptr, &resource, {1});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kFramework);
    EXPECT_NE(std::string(e.what()).find("TFE_OpReset"), std::string::npos);
  }
}

TEST(DataPlan, RefusesWhatMeansNothing) {
  tb_data_options options{};
  options.struct_size = sizeof(options);
  options.num_components = 1;
  EXPECT_THROW(makeDataPlan(options), Error);
  tb_data_component component{};
  options.components = &component;
  EXPECT_EQ(makeDataPlan(options).num_slots, 1U);
  component.kind = 17;
  EXPECT_THROW(makeDataPlan(options), Error);
  component.kind = TB_DATA_RAGGED;  // without a rank
  EXPECT_THROW(makeDataPlan(options), Error);
  component.ragged_rank = 2;
  component.values_dtype = 7;  // strings: bytes and offsets
  EXPECT_EQ(makeDataPlan(options).num_slots, 4U);
}

}  // namespace
}  // namespace tensor_bridge
