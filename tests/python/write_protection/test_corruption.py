"""What an in-place write does through DLPack, and that it does nothing through tensor_bridge.

TensorFlow shares buffers where nobody expects it: scalar constants and gradient seeds are cached
in the process, datasets cache their elements, functions their constants, several operators
return their input. Each case runs in processes of its own, because the DLPack way spoils the one
it runs in. If a "dlpack" case fails, TensorFlow has stopped sharing that buffer: delete the case.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest
from fresh import run_forked

WAYS = {
    "dlpack": "al = lambda t: torch.utils.dlpack.from_dlpack(tf.experimental.dlpack.to_dlpack(t))",
    "module": "al = tensor_bridge.to_torch",
    "ctypes": "al = TensorBridge().to_torch",
}


class Case(NamedTuple):
    """Code: what exists before, the write through `al(tensor)`, and what looks unrelated to it."""

    write: str
    probe: str
    right: Any
    wrong: Any
    setup: str = ""


X = "x = tf.constant([10.0, 20.0])"
MATRIX = "m = tf.constant([[1, 2], [10, 20]])"
TAPE = """
def gradient(of):
    x = tf.Variable(3.0)
    with tf.GradientTape() as tape:
        y = of(x)
    return tape.gradient(y, x)
"""

CASES = {
    "scalar constant, sum": Case(
        "al(tf.constant(1.0, tf.float32)).add_(1)", "x + 1.0", [11, 21], [12, 22], X
    ),
    "scalar constant, product": Case(
        "al(tf.constant(1.0, tf.float32)).add_(1)", "x * 1.0", [10, 20], [20, 40], X
    ),
    "scalar constant, itself": Case("al(tf.constant(1.0)).add_(1)", "tf.constant(1.0)", 1, 2),
    "axis of a reduction": Case(
        "al(tf.constant(0, tf.int32)).add_(1)",
        "tf.reduce_sum(m, axis=0)",
        [11, 22],
        [3, 30],
        MATRIX,
    ),
    "axis of concat": Case(
        "al(tf.constant(0, tf.int32)).add_(1)",
        "tf.shape(tf.concat([m, m], 0))",
        [4, 2],
        [2, 4],
        MATRIX,
    ),
    "integer arithmetic": Case(
        "al(tf.constant(2, tf.int32)).add_(40)",
        "i * 2",
        [2, 4, 6],
        [42, 84, 126],
        "i = tf.constant([1, 2, 3])",
    ),
    "boolean constant": Case(
        "al(tf.constant(True)).fill_(False)",
        "tf.cond(tf.constant(True), lambda: 1, lambda: 0)",
        1,
        0,
    ),
    "gradient seed, accumulated": Case(
        "al(gradient(tf.identity)).add_(1)", "gradient(lambda x: x * x)", 6, 12, TAPE
    ),
    "gradient seed, zeroed": Case(
        "al(gradient(tf.identity)).zero_()", "gradient(lambda x: x * x)", 6, 0, TAPE
    ),
    "gradient shared with another": Case(
        "al(a).mul_(10)",
        "b",
        [1, 1],
        [10, 10],
        """
u, v = tf.Variable([1.0, 2.0]), tf.Variable([3.0, 4.0])
with tf.GradientTape() as tape:
    y = u + v
a, b = tape.gradient(y, [u, v])
""",
    ),
    "constant captured by a function": Case(
        "al(captured).add_(100)",
        "f()",
        [2, 4, 6],
        [202, 204, 206],
        "captured = tf.constant([1.0, 2.0, 3.0])\n"
        "f = tf.function(lambda: captured * 2, autograph=False)",
    ),
    "constant returned by a function": Case(
        "al(f()).add_(100)",
        "f()",
        [1, 2, 3],
        [101, 102, 103],
        "f = tf.function(lambda: tf.constant([1.0, 2.0, 3.0]), autograph=False)",
    ),
    "constant folded by the optimizer": Case(
        "al(f()).add_(100)",
        "f()",
        [6, 6],
        [106, 106],
        "two, three = [2.0, 2.0], [3.0, 3.0]\n"
        "f = tf.function(lambda: tf.constant(two) * tf.constant(three), autograph=False)",
    ),
    "repeated dataset": Case(
        "al(next(elements)).add_(100)",
        "next(elements)",
        [0, 0],
        [100, 100],
        "elements = iter(tf.data.Dataset.from_tensors([0.0, 0.0]).repeat())",
    ),
    "cached dataset": Case(
        "[al(e).add_(100) for e in data]",
        "[e.numpy().tolist() for e in data]",
        [[0, 0]],
        [[100, 100]],
        "data = tf.data.Dataset.from_tensors([0.0, 0.0]).map(tf.abs).cache()\nlist(data)",
    ),
    "sliced dataset": Case(
        "al(next(iter(data))).add_(100)",
        "next(iter(data))",
        [0, 0],
        [100, 100],
        "data = tf.data.Dataset.from_tensor_slices([[0.0, 0.0]])",
    ),
    "variable, through its value": Case(
        "al(v.read_value()).zero_()", "v", [1, 2], [0, 0], "v = tf.Variable([1.0, 2.0])"
    ),
    "variable, through its initial value": Case(
        "al(init).zero_()",
        "v",
        [1, 2],
        [0, 0],
        "init = tf.constant([1.0, 2.0])\nv = tf.Variable(init)",
    ),
    "two variables of one initial value": Case(
        "al(first.read_value()).zero_()",
        "second",
        [1, 2],
        [0, 0],
        "init = tf.constant([1.0, 2.0])\nfirst, second = tf.Variable(init), tf.Variable(init)",
    ),
    "variable that another was assigned from": Case(
        "al(target.read_value()).zero_()",
        "online",
        [1, 2],
        [0, 0],
        "online, target = tf.Variable([1.0, 2.0]), tf.Variable([0.0, 0.0])\ntarget.assign(online)",
    ),
    "variable, through a function": Case(
        "al(read()).zero_()",
        "v",
        [1, 2],
        [0, 0],
        "v = tf.Variable([1.0, 2.0])\nread = tf.function(lambda: v.read_value(), autograph=False)",
    ),
    "SavedModel getter": Case(
        "al(loaded.weights()).zero_()",
        "loaded(tf.ones((1, 2)))",
        [[3, 3]],
        [[0, 0]],
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
    ),
    "learning rate": Case(
        "al(tf.convert_to_tensor(optimizer.learning_rate)).mul_(1000)",
        "step()",
        -0.5,
        -500,
        """
optimizer = tf.keras.optimizers.SGD(0.5)
w = tf.Variable(0.0)
def step():
    w.assign(0.0)
    optimizer.apply_gradients([(tf.ones(1)[0], w)])
    return w
""",
    ),
    "TensorArray element": Case(
        "al(array.read(0)).fill_(9)",
        "array.read(0)",
        [1, 2],
        [9, 9],
        "array = tf.TensorArray(tf.float32, 1, clear_after_read=False).write(0, [1.0, 2.0])",
    ),
    "aligned rows": Case(
        "al(x[2]).zero_()",
        "tf.reduce_sum(x, 1)",
        [1024] * 4,
        [1024, 1024, 0, 1024],
        "x = tf.ones((4, 1024)) + 0.0",
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
CASES |= {
    f"alias by {name}": Case(
        f"al({code}).zero_()", "x", [10, 20], [0, 0], "x = tf.constant([10.0, 20.0]) + 0.0"
    )
    for name, code in ALIASING.items()
}

PROGRAM = """
import json
{way}
{setup}
def probe():
    value = {probe}
    return value.numpy().tolist() if hasattr(value, "numpy") else value
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
    assert before == case.right
    assert after == case.wrong


@pytest.mark.parametrize("way", ["module", "ctypes"])
@pytest.mark.parametrize("name", CASES)
def test_tensor_bridge_does_not(name: str, way: str) -> None:
    case = CASES[name]
    before, after, owners = run(case, way)
    assert before == case.right
    assert after == case.right
    assert owners == 0
