"""The tables of docs/concepts/shared_or_copied.md and docs/performance.md: each code span is run.

A span in the first table of the page is a statement on `x`, a converted float32 matrix, or on
`flags`, a converted bool vector; the column says whether memory stays shared. A span in its second
table is a torch tensor; the row says what `to_tf` does with it. The spans of docs/performance.md
are statements.
"""

from __future__ import annotations

import json

from fresh import BOTH, COMPILER, run_forked
from native import compile_and_run
from pages import ROOT, Page, spans

PAGE = Page(ROOT / "docs/concepts/shared_or_copied.md")
PERFORMANCE = Page(ROOT / "docs/performance.md")

PYTHON = """
import copy, io, json, pickle
import numpy
from torch import nn

def outcome(span, on_write):
    t = tf.random.stateless_uniform((64, 64), seed=(1, 2))
    u = tf.random.stateless_uniform((64,), seed=(1, 2)) > 0.5
    before = t.numpy().copy(), u.numpy().copy()
    x, flags = (tensor_bridge.to_torch(a, on_write=on_write) for a in (t, u))
    layer, y = nn.Linear(64, 64, bias=False), torch.ones(3)
    error = None
    try:
        exec(span, {**globals(), **locals()})
    except Exception as e:
        error = type(e).__name__
    assert all((a.numpy() == b).all() for a, b in zip((t, u), before)), "written through: " + span
    shared = testing.shares_memory(t, x) and testing.shares_memory(u, flags)
    return shared, error

print(json.dumps([[outcome(s, "copy"), outcome(s, "raise")] for s in SPANS]))
"""


def test_python_table_says_what_happens() -> None:
    rows = [(spans(cells[1]), spans(cells[2]), cells[3]) for cells in PAGE.rows("python surface")]
    every = [span for shared, moved, _ in rows for span in (*shared, *moved)]
    assert len(every) > 50
    done = run_forked(PYTHON.replace("SPANS", repr(every)), timeout=240, after=(BOTH, COMPILER))
    assert done.code == 0, done.err
    outcomes = dict(zip(every, json.loads(done.out.splitlines()[-1]), strict=True))

    wrong = []
    for shared, moved, strict in rows:
        for span in shared:
            if outcomes[span] != [[True, None], [True, None]]:
                wrong.append(f"{span}: expected to stay shared, {outcomes[span]}")
        for span in moved:
            (still_shared, error), (strictly_shared, strict_error) = outcomes[span]
            if still_shared or error:
                wrong.append(f"{span}: expected to copy, {outcomes[span]}")
            if strict == "raises" and (
                strict_error not in ("BufferError", "RuntimeError") or not strictly_shared
            ):
                wrong.append(f"{span}: expected to raise, {outcomes[span]}")
            if strict == "allowed" and strict_error:
                wrong.append(f"{span}: expected to be allowed, {outcomes[span]}")
    assert not wrong, "\n".join(wrong)


LET_GO = """
import copy, io, json, pickle
import numpy
from torch import nn

def converted():
    t = tf.random.stateless_uniform((64, 64), seed=(1, 2))
    return tensor_bridge.to_torch(t), tensor_bridge.to_torch(t[0] > 0.5)

def outcome(span, x, flags):
    layer, y = nn.Linear(64, 64, bias=False), torch.ones(3)
    before = x.const_data_ptr(), flags.const_data_ptr()
    exec(span, {**globals(), **locals()})
    return (x.const_data_ptr(), flags.const_data_ptr()) != before

def outcomes(span):
    own = [x.clone() for x in converted()]
    return outcome(span, *converted()), outcome(span, *own)

print(json.dumps([outcomes(s) for s in SPANS]))
"""


def test_what_tensorflow_has_let_go_of_is_copied_as_torchs_own() -> None:
    cells = [row[2] for row in PAGE.rows("python surface")]
    cells += [row[0] for row in PERFORMANCE.rows("instead")]
    every = list(dict.fromkeys(span for cell in cells for span in spans(cell)))
    assert len(every) > 30
    done = run_forked(LET_GO.replace("SPANS", repr(every)), timeout=240, after=(BOTH, COMPILER))
    assert done.code == 0, done.err
    outcomes = dict(zip(every, json.loads(done.out.splitlines()[-1]), strict=True))
    assert [span for span, (moved, own_moved) in outcomes.items() if moved != own_moved] == []
    other_memory = [row for row in PAGE.rows("python surface") if row[3] == "allowed"]
    moved = {span for span, (moved, _) in outcomes.items() if moved}
    assert moved == {"x.share_memory_()", *(span for row in other_memory for span in spans(row[2]))}


def test_what_performance_advises_avoids_the_copy() -> None:
    rows = [(spans(cells[0]), spans(cells[1])) for cells in PERFORMANCE.rows("instead")]
    every = [span for columns in rows for column in columns for span in column]
    assert len(every) > 25
    assert all(copying and better for copying, better in rows)
    done = run_forked(PYTHON.replace("SPANS", repr(every)), timeout=240, after=(BOTH, COMPILER))
    assert done.code == 0, done.err
    outcomes = dict(zip(every, json.loads(done.out.splitlines()[-1]), strict=True))
    for copying, better in rows:
        for span in copying:
            (shared, error), (_, strict_error) = outcomes[span]
            assert not shared, span
            assert error is None, span
            assert strict_error in ("BufferError", "RuntimeError"), span
        for span in better:
            assert outcomes[span] == [[True, None], [True, None]], span


GIVEN_TO_TF = """
import copy, io, json, pickle
import numpy
from torch import nn

def outcome(span):
    x, flags = torch.rand(64, 64), torch.rand(64) > 0.5
    t, u = tensor_bridge.to_tf(x), tensor_bridge.to_tf(flags)
    before = t.numpy().copy(), u.numpy().copy()
    layer, y = nn.Linear(64, 64, bias=False), torch.ones(3)
    exec(span, {**globals(), **locals()})
    assert all((a.numpy() == b).all() for a, b in zip((t, u), before)), "written through: " + span
    return testing.shares_memory(t, x) and testing.shares_memory(u, flags)

print(json.dumps([outcome(s) for s in SPANS]))
"""


def test_python_table_holds_for_tensors_given_to_tensorflow() -> None:
    expected = {
        span: shared
        for cells in PAGE.rows("python surface")
        for cell, shared in ((cells[1], True), (cells[2], False))
        for span in spans(cell)
    }
    code = GIVEN_TO_TF.replace("SPANS", repr(list(expected)))
    done = run_forked(code, timeout=240, after=(BOTH, COMPILER))
    assert done.code == 0, done.err
    outcomes = dict(zip(expected, json.loads(done.out.splitlines()[-1]), strict=True))
    assert outcomes == expected


TO_TF = """
import json, warnings
import numpy
from torch import nn
from torch._subclasses import FakeTensorMode

warnings.simplefilter("ignore")
t = tf.random.uniform((64, 16))

def to_tf_then_resize(x):
    tensor_bridge.to_tf(x)
    x.resize_(128)
    return x

def with_an_array(x):
    x.numpy()
    return x

def outcome(span):
    x = eval(span)
    explanation = tensor_bridge.explain(x)
    action = explanation.action
    if action == "refused":
        try:
            tensor_bridge.to_tf(x)
        except tensor_bridge.TensorBridgeError:
            return "refuses"
        raise AssertionError(f"{span} was converted, {explanation}")
    u = tensor_bridge.to_tf(x)
    try:
        never = tensor_bridge.to_tf(x, copy=False)
    except tensor_bridge.CopyRequiredError:
        never = None
    assert (action == "shared") == (never is not None), "copy=False"
    values = x.to_dense() if x.layout == torch._mkldnn else x
    values = values.detach().resolve_conj().resolve_neg()
    if span.startswith("torch._efficientzerotensor"):
        values = torch.zeros(64)
    # As text: memory that resize_() brought may hold NaN.
    assert repr(values.tolist()) == repr(u.numpy().tolist())
    if action == "copied":
        return "copies"
    assert testing.shares_memory(u, x.detach()) and testing.shares_memory(never, x.detach())
    return "shares"

print(json.dumps([outcome(s) for s in SPANS]))
"""


def test_the_table_of_to_tf_says_what_happens() -> None:
    expected = [(span, row[0]) for row in PAGE.rows("to_tf surface") for span in spans(row[1])]
    assert len(expected) > 20
    every = [span for span, _ in expected]
    done = run_forked(TO_TF.replace("SPANS", repr(every)), timeout=120)
    assert done.code == 0, done.err
    assert list(zip(every, json.loads(done.out.splitlines()[-1]), strict=True)) == expected


CPP = """
#include <ATen/ATen.h>
#include <ATen/DLConvertor.h>
#include <tensor_bridge/tensor_bridge.h>
#include <tensorflow/c/tf_tensor.h>

#include <iostream>

// One line a statement: 1 if x still shares, 1 if TensorFlow's values are as they were; first for a
// tensor that came from TensorFlow, then for one that was given to it.
template <typename Statement>
void run(Statement statement) {
  const int64_t shape[] = {4, 4};
  TF_Tensor* tensor = TF_AllocateTensor(TF_FLOAT, shape, 2, 64);
  auto* values = static_cast<float*>(TF_TensorData(tensor));
  for (int i = 0; i < 16; ++i) values[i] = static_cast<float>(i + 1);
  at::Tensor x = tensor_bridge::tfTensorToPyTorchTensor(tensor);
  statement(x);
  bool intact = true;
  for (int i = 0; i < 16; ++i) intact = intact && values[i] == static_cast<float>(i + 1);
  std::cout << (x.const_data_ptr() == values) << intact;
  TF_DeleteTensor(tensor);

  at::Tensor own = at::arange(1, 17, at::kFloat).view({4, 4});
  tensor = tensor_bridge::pyTorchTensorToTfTensor(own);
  values = static_cast<float*>(TF_TensorData(tensor));
  statement(own);
  intact = true;
  for (int i = 0; i < 16; ++i) intact = intact && values[i] == static_cast<float>(i + 1);
  std::cout << (own.const_data_ptr() == values) << intact << "\\n";
  TF_DeleteTensor(tensor);
}

int main() {
STATEMENTS
}
"""


def test_cpp_table_says_what_happens() -> None:
    columns = list(zip(*PAGE.rows("C++ surface"), strict=True))
    expected = [
        (span, outcome)
        for cells, outcome in zip(columns, ("1111", "0101", "1010"), strict=True)
        for cell in cells
        for span in spans(cell)
    ]
    assert len(expected) > 15
    calls = "\n".join(
        f"  run([](at::Tensor& x) {{ static_cast<void>({s}); }});" for s, _ in expected
    )
    source = CPP.replace("STATEMENTS", calls)
    printed = compile_and_run(source, "cpp", "program-surface")
    found = list(zip((span for span, _ in expected), printed.split(), strict=True))
    assert found == expected
