"""What torch's in-place writes do to TensorFlow through DLPack, and that they do nothing here.

The mirror image of write_protection/test_corruption.py. Each case runs in processes of its own. If
a "dlpack" case fails, the frameworks have stopped sharing there: delete the case.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest
from fresh import run_forked

WAYS = {
    "dlpack": "to = lambda x: tf.experimental.dlpack.from_dlpack("
    "torch.utils.dlpack.to_dlpack(x.detach()))",
    "module": "to = tensor_bridge.to_tf",
    "ctypes": "to = TensorBridge().to_tf",
}


class Case(NamedTuple):
    """Code: what exists before, the write on torch's side, and what TensorFlow shows of it."""

    write: str
    right: Any
    wrong: Any
    setup: str = "x = torch.ones(16)\nt = to(x)"
    probe: str = "t[:2]"


MODEL = """
layer = torch.nn.Linear(16, 16, bias=False)
with torch.no_grad():
    layer.weight.fill_(1)
layer.weight.grad = torch.ones(16, 16)
t = to(layer.weight)
"""

CASES = {
    "zero_": Case("x.zero_()", [1, 1], [0, 0]),
    "item": Case("x[0] = 7", [1, 1], [7, 1]),
    "augmented assignment": Case("x += 1", [1, 1], [2, 2]),
    "out=": Case("torch.add(torch.ones(16), 4, out=x)", [1, 1], [5, 5]),
    "copy_": Case("x.copy_(torch.arange(16.0))", [1, 1], [0, 1]),
    "a view": Case("x.view(4, 4).T[1].mul_(3)", [1, 1], [1, 3]),
    "a view made before": Case(
        "y.fill_(3)", [1, 1], [3, 3], "x = torch.ones(16)\ny = x[:8]\nt = to(x)"
    ),
    "the tensor behind a view": Case(
        "x.fill_(3)", [1, 1], [3, 3], "x = torch.ones(64)\nt = to(x[16:32])"
    ),
    "no_grad": Case("torch.no_grad()(x.clamp_)(max=0)", [1, 1], [0, 0]),
    "a NumPy array taken afterwards": Case("x.numpy()[:] = 9", [1, 1], [9, 9]),
    "SGD": Case(
        "torch.optim.SGD(layer.parameters(), lr=0.5).step()", [1, 1], [0.5, 0.5], MODEL, "t[0, :2]"
    ),
    "initialisation": Case("torch.nn.init.zeros_(layer.weight)", [1, 1], [0, 0], MODEL, "t[0, :2]"),
    "a loaded state dict": Case(
        "layer.load_state_dict({'weight': torch.zeros(16, 16)})", [1, 1], [0, 0], MODEL, "t[0, :2]"
    ),
    "zero_grad": Case(
        "layer.zero_grad(set_to_none=False)",
        [1, 1],
        [0, 0],
        MODEL + "t = to(layer.weight.grad)",
        "t[0, :2]",
    ),
    "clipped gradients": Case(
        "torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.6)",
        [1, 1],
        [0.1, 0.1],
        MODEL + "t = to(layer.weight.grad)",
        "tf.round(t[0, :2] * 1000) / 1000",
    ),
    "accumulated gradients": Case(
        "layer(torch.ones(1, 16)).sum().backward()",
        [1, 1],
        [2, 2],
        MODEL + "t = to(layer.weight.grad)",
        "t[0, :2]",
    ),
    "running statistics": Case(
        "norm(torch.full((4, 16), 10.0))",
        [0, 0],
        [1, 1],
        "norm = torch.nn.BatchNorm1d(16)\nt = to(norm.running_mean)",
    ),
    "variable made from it": Case(
        "x.zero_()", [1, 1], [0, 0], "x = torch.ones(16)\nv = tf.Variable(to(x))", "v[:2]"
    ),
    "variable assigned from it": Case(
        "x.zero_()",
        [1, 1],
        [0, 0],
        "x = torch.ones(16)\nv = tf.Variable(tf.zeros(16))\nv.assign(to(x))",
        "v[:2]",
    ),
    "weights of a Keras layer": Case(
        "x.zero_()",
        [4],
        [0],
        "x = torch.ones(4, 1)\nlayer = tf.keras.layers.Dense(1)\nlayer.build((None, 4))\n"
        "layer.kernel.assign(to(x))",
        "layer(tf.ones((1, 4)))[0]",
    ),
    "checkpoint written later": Case(
        "x.zero_()",
        [1, 1],
        [0, 0],
        """
import tempfile
x = torch.ones(16)
v = tf.Variable(to(x))
def saved():
    with tempfile.TemporaryDirectory() as folder:
        path = tf.train.Checkpoint(v=v).write(folder + "/c")
        return tf.train.load_checkpoint(path).get_tensor("v/.ATTRIBUTES/VARIABLE_VALUE")
""",
        "saved()[:2]",
    ),
    "constant captured by a function": Case(
        "x.zero_()",
        [3, 3],
        [0, 0],
        "x = torch.ones(16)\nt = to(x)\nf = tf.function(lambda: t * 3, autograph=False)",
        "f()[:2]",
    ),
    "repeated dataset": Case(
        "x.zero_()",
        [1, 1],
        [0, 0],
        "x = torch.ones(16)\nelements = iter(tf.data.Dataset.from_tensors(to(x)).repeat())",
        "next(elements)[:2]",
    ),
    "gradient computed later": Case(
        "x.fill_(10)",
        [2, 2],
        [20, 20],
        """
x = torch.ones(16)
t = to(x)
with tf.GradientTape(persistent=True) as tape:
    tape.watch(t)
    y = tf.reduce_sum(t * t)
""",
        "tape.gradient(y, t)[:2]",
    ),
    "alias in TensorFlow": Case(
        "x.zero_()",
        [1, 1],
        [0, 0],
        "x = torch.ones(16)\nr = tf.reshape(to(x), (4, 4))",
        "r[0, :2]",
    ),
}

PROGRAM = """
import json
{way}
{setup}
def probe():
    value = {probe}
    return value.numpy().tolist() if hasattr(value, "numpy") else value.tolist()
before = probe()
{write}
print(json.dumps([before, probe(), testing.live_owners()]))
"""


def run(case: Case, way: str) -> list[Any]:
    code = PROGRAM.format(way=WAYS[way], setup=case.setup, probe=case.probe, write=case.write)
    return json.loads(run_forked(code).check())


@pytest.mark.parametrize("name", CASES)
def test_dlpack_corrupts(name: str) -> None:
    case = CASES[name]
    before, after, _ = run(case, "dlpack")
    assert before == pytest.approx(case.right)
    assert after == pytest.approx(case.wrong)


@pytest.mark.parametrize("way", ["module", "ctypes"])
@pytest.mark.parametrize("name", CASES)
def test_tensor_bridge_does_not(name: str, way: str) -> None:
    case = CASES[name]
    before, after, owners = run(case, way)
    assert before == pytest.approx(case.right)
    assert after == pytest.approx(case.right)
    assert owners <= 2


# What DLPack hands over wrongly before anybody writes.

LOST = {
    "conjugate": ("torch.tensor([1 + 2j]).conj()", ["(1-2j)"], ["(1+2j)"]),
    "negation": ("torch._neg_view(torch.ones(1))", ["-1.0"], ["1.0"]),
    "imaginary part": (
        "torch.tensor([1 + 2j, 3 + 4j]).conj().imag[:1].view(1)",
        ["-2.0"],
        ["2.0"],
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", LOST)
def test_lazy_signs(name: str, way: str) -> None:
    code, right, wrong = LOST[name]
    program = f"{WAYS[way]}\nprint([str(v) for v in to({code}).numpy().tolist()])"
    out = run_forked(program).check()
    assert out == str(wrong if way == "dlpack" else right)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("offset", [1, 4, 15])
def test_misaligned_memory(offset: int, way: str) -> None:
    """Through DLPack TensorFlow aborts in the first operation."""
    program = f"{WAYS[way]}\nx = torch.ones(64)[{offset}:]\nprint(float(tf.reduce_sum(to(x) + 1)))"
    done = run_forked(program)
    if way == "dlpack":
        assert done.code == -6
        assert "IsAligned()" in done.err
    else:
        assert done.check() == str(2.0 * (64 - offset))
