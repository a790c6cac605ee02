"""An in-place write corrupts TensorFlow's values through DLPack, but not through tensor_bridge.

TensorFlow shares buffers in unexpected places: it caches scalar constants and gradient seeds in the
process, datasets cache their elements, functions their constants, and several operators return
their input. Each case runs in separate processes, because the DLPack way corrupts its process. If a
"dlpack" case fails, the frameworks no longer share there: delete the case.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest
from fresh import BOTH, COMPILER, run_forked

DLPACK = {
    "to_torch": "lambda t: torch.utils.dlpack.from_dlpack(tf.experimental.dlpack.to_dlpack(t))",
    "to_tf": "lambda x: tf.experimental.dlpack.from_dlpack("
    "torch.utils.dlpack.to_dlpack(x.detach()))",
}
INTERFACES = {"module": "tensor_bridge", "ctypes": "TensorBridge()"}
WAYS = ("dlpack", *INTERFACES)


def converter(direction: str, way: str) -> str:
    """Code that makes `to`, which converts a tensor."""
    return f"to = {DLPACK[direction] if way == 'dlpack' else f'{INTERFACES[way]}.{direction}'}"


ONES, ZEROS = [1, 1], [0, 0]


class Case(NamedTuple):
    """Code: the write by torch, what exists before, and the values that TensorFlow then has."""

    write: str = "x.zero_()"
    right: Any = ONES
    wrong: Any = ZEROS
    setup: str = "x = torch.ones(16)\nt = to(x)"
    probe: str = "t[:2]"


def from_tf(write: str, probe: str, right: Any, setup: str = "", wrong: Any = ZEROS) -> Case:
    """A write through `to(tensor)`, and TensorFlow values that seem unrelated to it."""
    return Case(write, right, wrong, setup, probe)


# ---- TensorFlow's memory -------------------------------------------------------------------------

X = "x = tf.constant([10.0, 20.0])"
MATRIX = "m = tf.constant([[1, 2], [10, 20]])"
TAPE = """
def gradient(of):
    x = tf.Variable(3.0)
    with tf.GradientTape() as tape:
        y = of(x)
    return tape.gradient(y, x)
"""

TO_TORCH = {
    "scalar constant, sum": from_tf(
        "to(tf.constant(1.0, tf.float32)).add_(1)", "x + 1.0", [11, 21], X, wrong=[12, 22]
    ),
    "scalar constant, product": from_tf(
        "to(tf.constant(1.0, tf.float32)).add_(1)", "x * 1.0", [10, 20], X, wrong=[20, 40]
    ),
    "scalar constant, itself": from_tf(
        "to(tf.constant(1.0)).add_(1)", "tf.constant(1.0)", 1, wrong=2
    ),
    "axis of a reduction": from_tf(
        "to(tf.constant(0, tf.int32)).add_(1)",
        "tf.reduce_sum(m, axis=0)",
        [11, 22],
        MATRIX,
        wrong=[3, 30],
    ),
    "axis of concat": from_tf(
        "to(tf.constant(0, tf.int32)).add_(1)",
        "tf.shape(tf.concat([m, m], 0))",
        [4, 2],
        MATRIX,
        wrong=[2, 4],
    ),
    "integer arithmetic": from_tf(
        "to(tf.constant(2, tf.int32)).add_(40)",
        "i * 2",
        [2, 4, 6],
        "i = tf.constant([1, 2, 3])",
        wrong=[42, 84, 126],
    ),
    "boolean constant": from_tf(
        "to(tf.constant(True)).fill_(False)",
        "tf.cond(tf.constant(True), lambda: 1, lambda: 0)",
        1,
        wrong=0,
    ),
    "gradient seed, accumulated": from_tf(
        "to(gradient(tf.identity)).add_(1)", "gradient(lambda x: x * x)", 6, TAPE, wrong=12
    ),
    "gradient seed, zeroed": from_tf(
        "to(gradient(tf.identity)).zero_()", "gradient(lambda x: x * x)", 6, TAPE, wrong=0
    ),
    "gradient shared with another": from_tf(
        "to(a).mul_(10)",
        "b",
        [1, 1],
        """
u, v = tf.Variable([1.0, 2.0]), tf.Variable([3.0, 4.0])
with tf.GradientTape() as tape:
    y = u + v
a, b = tape.gradient(y, [u, v])
""",
        wrong=[10, 10],
    ),
    "constant captured by a function": from_tf(
        "to(captured).add_(100)",
        "f()",
        [2, 4, 6],
        "captured = tf.constant([1.0, 2.0, 3.0])\n"
        "f = tf.function(lambda: captured * 2, autograph=False)",
        wrong=[202, 204, 206],
    ),
    "constant returned by a function": from_tf(
        "to(f()).add_(100)",
        "f()",
        [1, 2, 3],
        "f = tf.function(lambda: tf.constant([1.0, 2.0, 3.0]), autograph=False)",
        wrong=[101, 102, 103],
    ),
    "constant folded by the optimizer": from_tf(
        "to(f()).add_(100)",
        "f()",
        [6, 6],
        "two, three = [2.0, 2.0], [3.0, 3.0]\n"
        "f = tf.function(lambda: tf.constant(two) * tf.constant(three), autograph=False)",
        wrong=[106, 106],
    ),
    "repeated dataset": from_tf(
        "to(next(elements)).add_(100)",
        "next(elements)",
        [0, 0],
        "elements = iter(tf.data.Dataset.from_tensors([0.0, 0.0]).repeat())",
        wrong=[100, 100],
    ),
    "cached dataset": from_tf(
        "[to(e).add_(100) for e in data]",
        "[e.numpy().tolist() for e in data]",
        [[0, 0]],
        "data = tf.data.Dataset.from_tensors([0.0, 0.0]).map(tf.abs).cache()\nlist(data)",
        wrong=[[100, 100]],
    ),
    "sliced dataset": from_tf(
        "to(next(iter(data))).add_(100)",
        "next(iter(data))",
        [0, 0],
        "data = tf.data.Dataset.from_tensor_slices([[0.0, 0.0]])",
        wrong=[100, 100],
    ),
    "variable, through its value": from_tf(
        "to(v.read_value()).zero_()", "v", [1, 2], "v = tf.Variable([1.0, 2.0])"
    ),
    "variable, through its initial value": from_tf(
        "to(init).zero_()", "v", [1, 2], "init = tf.constant([1.0, 2.0])\nv = tf.Variable(init)"
    ),
    "two variables of one initial value": from_tf(
        "to(first.read_value()).zero_()",
        "second",
        [1, 2],
        "init = tf.constant([1.0, 2.0])\nfirst, second = tf.Variable(init), tf.Variable(init)",
    ),
    "variable that another was assigned from": from_tf(
        "to(target.read_value()).zero_()",
        "online",
        [1, 2],
        "online, target = tf.Variable([1.0, 2.0]), tf.Variable([0.0, 0.0])\ntarget.assign(online)",
    ),
    "variable, through a function": from_tf(
        "to(read()).zero_()",
        "v",
        [1, 2],
        "v = tf.Variable([1.0, 2.0])\nread = tf.function(lambda: v.read_value(), autograph=False)",
    ),
    "SavedModel getter": from_tf(
        "to(loaded.weights()).zero_()",
        "loaded(tf.ones((1, 2)))",
        [[3, 3]],
        """
import tempfile
class Model(tf.Module):
    def __init__(self):
        self.w = tf.Variable([[1.0, 1.0], [2.0, 2.0]])
    @tf.function(input_signature=[], autograph=False)
    def weights(self):
        return self.w
    @tf.function(input_signature=[tf.TensorSpec((None, 2))], autograph=False)
    def __call__(self, x):
        return x @ self.w
with tempfile.TemporaryDirectory() as folder:
    tf.saved_model.save(Model(), folder)
    loaded = tf.saved_model.load(folder)
""",
        wrong=[[0, 0]],
    ),
    "learning rate": from_tf(
        "to(tf.convert_to_tensor(optimizer.learning_rate)).mul_(1000)",
        "step()",
        -0.5,
        """
optimizer = tf.keras.optimizers.SGD(0.5)
w = tf.Variable(0.0)
def step():
    w.assign(0.0)
    optimizer.apply_gradients([(tf.ones(1)[0], w)])
    return w
""",
        wrong=-500,
    ),
    "TensorArray element": from_tf(
        "to(array.read(0)).fill_(9)",
        "array.read(0)",
        [1, 2],
        "array = tf.TensorArray(tf.float32, 1, clear_after_read=False).write(0, [1.0, 2.0])",
        wrong=[9, 9],
    ),
    "aligned rows": from_tf(
        "to(x[2]).zero_()",
        "tf.reduce_sum(x, 1)",
        [1024] * 4,
        "x = tf.ones((4, 1024)) + 0.0",
        wrong=[1024, 1024, 0, 1024],
    ),
}

ALIASING = {
    "reshape": "tf.reshape(x, (1, 2))",
    "identity": "tf.identity(x)",
    "expand_dims": "tf.expand_dims(x, 0)",
    "squeeze": "tf.squeeze(x)",
    "cast to the same": "tf.cast(x, tf.float32)",
    "stop_gradient": "tf.stop_gradient(x)",
    "concat of one": "tf.concat([x], 0)",
    "broadcast to the same": "tf.broadcast_to(x, (2,))",
    "ensure_shape": "tf.ensure_shape(x, (2,))",
    "bitcast": "tf.bitcast(x, tf.int32)",
    "dropout of nothing": "tf.nn.dropout(x, 0.0)",
    "stack of one": "tf.stack([x])",
}
TO_TORCH |= {
    f"alias by {name}": from_tf(
        f"to({code}).zero_()", "x", [10, 20], "x = tf.constant([10.0, 20.0]) + 0.0"
    )
    for name, code in ALIASING.items()
}

# ---- torch's memory ------------------------------------------------------------------------------

MODEL = """
layer = torch.nn.Linear(16, 16, bias=False)
with torch.no_grad():
    layer.weight.fill_(1)
layer.weight.grad = torch.ones(16, 16)
t = to(layer.weight)
"""

TO_TF = {
    "zero_": Case(),
    "item": Case("x[0] = 7", [1, 1], [7, 1]),
    "augmented assignment": Case("x += 1", [1, 1], [2, 2]),
    "out=": Case("torch.add(torch.ones(16), 4, out=x)", [1, 1], [5, 5]),
    "copy_": Case("x.copy_(torch.arange(16.0))", [1, 1], [0, 1]),
    "a view": Case("x.view(4, 4).T[1].mul_(3)", [1, 1], [1, 3]),
    "a view made before": Case(
        "y.fill_(3)", [1, 1], [3, 3], setup="x = torch.ones(16)\ny = x[:8]\nt = to(x)"
    ),
    "the tensor behind a view": Case(
        "x.fill_(3)", [1, 1], [3, 3], setup="x = torch.ones(64)\nt = to(x[16:32])"
    ),
    "no_grad": Case("torch.no_grad()(x.clamp_)(max=0)"),
    "a NumPy array taken afterwards": Case("x.numpy()[:] = 9", [1, 1], [9, 9]),
    "SGD": Case(
        "torch.optim.SGD(layer.parameters(), lr=0.5).step()",
        [1, 1],
        [0.5, 0.5],
        setup=MODEL,
        probe="t[0, :2]",
    ),
    "initialisation": Case("torch.nn.init.zeros_(layer.weight)", setup=MODEL, probe="t[0, :2]"),
    "a loaded state dict": Case(
        "layer.load_state_dict({'weight': torch.zeros(16, 16)})", setup=MODEL, probe="t[0, :2]"
    ),
    "zero_grad": Case(
        "layer.zero_grad(set_to_none=False)",
        setup=MODEL + "t = to(layer.weight.grad)",
        probe="t[0, :2]",
    ),
    "clipped gradients": Case(
        "torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.6)",
        [1, 1],
        pytest.approx([0.1, 0.1]),
        setup=MODEL + "t = to(layer.weight.grad)",
        probe="tf.round(t[0, :2] * 1000) / 1000",
    ),
    "accumulated gradients": Case(
        "layer(torch.ones(1, 16)).sum().backward()",
        [1, 1],
        [2, 2],
        setup=MODEL + "t = to(layer.weight.grad)",
        probe="t[0, :2]",
    ),
    "running statistics": Case(
        "norm(torch.full((4, 16), 10.0))",
        [0, 0],
        [1, 1],
        setup="norm = torch.nn.BatchNorm1d(16)\nt = to(norm.running_mean)",
    ),
    "variable made from it": Case(
        setup="x = torch.ones(16)\nv = tf.Variable(to(x))", probe="v[:2]"
    ),
    "variable assigned from it": Case(
        setup="x = torch.ones(16)\nv = tf.Variable(tf.zeros(16))\nv.assign(to(x))", probe="v[:2]"
    ),
    "weights of a Keras layer": Case(
        "x.zero_()",
        [4],
        [0],
        setup="x = torch.ones(4, 1)\nlayer = tf.keras.layers.Dense(1)\nlayer.build((None, 4))\n"
        "layer.kernel.assign(to(x))",
        probe="layer(tf.ones((1, 4)))[0]",
    ),
    "checkpoint written later": Case(
        setup="""
import tempfile
x = torch.ones(16)
v = tf.Variable(to(x))
def saved():
    with tempfile.TemporaryDirectory() as folder:
        path = tf.train.Checkpoint(v=v).write(folder + "/c")
        return tf.train.load_checkpoint(path).get_tensor("v/.ATTRIBUTES/VARIABLE_VALUE")
""",
        probe="saved()[:2]",
    ),
    "constant captured by a function": Case(
        "x.zero_()",
        [3, 3],
        setup="x = torch.ones(16)\nt = to(x)\nf = tf.function(lambda: t * 3, autograph=False)",
        probe="f()[:2]",
    ),
    "repeated dataset": Case(
        setup="x = torch.ones(16)\nelements = iter(tf.data.Dataset.from_tensors(to(x)).repeat())",
        probe="next(elements)[:2]",
    ),
    "gradient computed later": Case(
        "x.fill_(10)",
        [2, 2],
        [20, 20],
        setup="""
x = torch.ones(16)
t = to(x)
with tf.GradientTape(persistent=True) as tape:
    tape.watch(t)
    y = tf.reduce_sum(t * t)
""",
        probe="tape.gradient(y, t)[:2]",
    ),
    "alias in TensorFlow": Case(
        setup="x = torch.ones(16)\nr = tf.reshape(to(x), (4, 4))", probe="r[0, :2]"
    ),
}

CASES = {"to_torch": TO_TORCH, "to_tf": TO_TF}
EVERY = [(direction, name) for direction, cases in CASES.items() for name in cases]

PROGRAM = """
import json
{converter}
{setup}
def probe():
    value = {probe}
    value = value.numpy() if hasattr(value, "numpy") else value
    return value.tolist() if hasattr(value, "tolist") else value
before = probe()
{write}
print(json.dumps([before, probe(), testing.live_owners()]))
"""


def run(direction: str, name: str, way: str) -> list[Any]:
    """TensorFlow's values before and after the write, and the number of owners left."""
    case = CASES[direction][name]
    code = PROGRAM.format(converter=converter(direction, way), **case._asdict())
    return json.loads(run_forked(code, after=(BOTH, COMPILER)).check())


@pytest.mark.parametrize(("direction", "name"), EVERY)
def test_dlpack_corrupts(direction: str, name: str) -> None:
    before, after, _ = run(direction, name, "dlpack")
    assert before == CASES[direction][name].right
    assert after == CASES[direction][name].wrong


@pytest.mark.parametrize("way", INTERFACES)
@pytest.mark.parametrize(("direction", "name"), EVERY)
def test_tensor_bridge_does_not(direction: str, name: str, way: str) -> None:
    before, after, owners = run(direction, name, way)
    assert before == after == CASES[direction][name].right
    # With to_tf, TensorFlow still holds torch's tensor and its gradient.
    assert owners <= {"to_torch": 0, "to_tf": 2}[direction]


# Values that are already wrong through DLPack without a write.

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
    program = f"{converter('to_tf', way)}\nprint([str(v) for v in to({code}).numpy().tolist()])"
    out = run_forked(program).check()
    assert out == str(wrong if way == "dlpack" else right)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("offset", [1, 4, 15])
def test_misaligned_memory(offset: int, way: str) -> None:
    """Through DLPack, TensorFlow aborts in the first operation."""
    program = f"x = torch.ones(64)[{offset}:]\nprint(float(tf.reduce_sum(to(x) + 1)))"
    done = run_forked(f"{converter('to_tf', way)}\n{program}")
    if way == "dlpack":
        assert done.code == -6
        assert "IsAligned()" in done.err
    else:
        assert done.check() == str(2.0 * (64 - offset))
