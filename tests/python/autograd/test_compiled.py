"""torch.compile and torch.export, in processes where TensorFlow cannot crash the compiler."""

from __future__ import annotations

import needs
import pytest
from fresh import BOTH, TORCH_FIRST, run_forked

pytestmark = pytest.mark.timeout(600)

# Only imports; the fork compiles. The compiler's own pool of processes would not survive a fork.
START = """
import os, warnings
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
warnings.simplefilter("ignore")
import keras
import torch._dynamo, torch._inductor.compile_fx
from tensor_bridge.autograd import GradientError, TfModule, _tokens, tf_to_torch
from tensor_bridge.autograd.tf_in_torch import _compiled
torch.manual_seed(0)
"""


def run(code: str) -> str:
    # Compilers and TensorFlow also write other things than errors to stderr.
    done = run_forked(code, timeout=500, after=(BOTH, START))
    assert done.code == 0, done.out + done.err
    return done.out.strip()


def test_functions_compile_whole_with_every_backend_and_any_size() -> None:
    assert run("""
f = tf_to_torch(lambda x, s=1: {"y": tf.tanh(x) * x, "n": (tf.reduce_sum(x), None, s)})
linear = torch.nn.Linear(3, 3)

def model(x):
    r = f(linear(x), s=2)
    return r["y"].sum() + r["n"][0] * r["n"][2]

for backend in ("aot_eager", "inductor"):
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for size in (4, 4, 5, 6):
        x = torch.randn(size, 3, requires_grad=True)
        inputs = [x, *linear.parameters()]
        a, b = compiled(x), model(x)
        torch.testing.assert_close(a, b)
        for p, q in zip(torch.autograd.grad(a, inputs), torch.autograd.grad(b, inputs)):
            torch.testing.assert_close(p, q)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x))
del a, b
print("living", _tokens.living())
""").endswith("living 0")


def test_a_model_with_a_keras_part_trains_compiled() -> None:
    run("""
layer = keras.layers.Dense(2)
layer.build((None, 3))
net = torch.nn.Sequential(torch.nn.Linear(3, 3), TfModule(layer), torch.nn.Linear(2, 1))
compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
optimizer = torch.optim.SGD(net.parameters(), 0.05)
x = torch.randn(16, 3)
losses = []
for _ in range(8):
    loss = (compiled(x) - 1).pow(2).mean()
    assert abs(loss.item() - (net(x) - 1).pow(2).mean().item()) < 1e-5
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[-1] < 0.5 * losses[0], losses
""")


def test_opcheck() -> None:
    out = run("""
for fn, count in ((lambda x: tf.tanh(x) * x, 1), (lambda x, y: (x, x + y, tf.constant([1, 2])), 2)):
    f = tf_to_torch(fn)
    shape = ("tuple", ("tuple", *[("tensor",)] * count), ("dict", ()))
    key = _compiled._register(f.number, shape)
    inputs = [torch.randn(4, 3, requires_grad=True) for _ in range(count)]
    ops = torch.ops.tensor_bridge
    taped = list(range(count))
    print(set(torch.library.opcheck(ops.tf_call, (inputs, key, taped)).values()))
    plain = [x.detach() for x in inputs]
    *outputs, token = ops.tf_call(plain, key, taped)
    upstream = [torch.ones_like(outputs[0])]
    arguments = (plain, key, taped, token, [0], upstream)
    print(set(torch.library.opcheck(ops.tf_gradient, arguments).values()))
""")
    assert out.split("\n") == ["{'SUCCESS'}"] * 4


IMPORTS = {
    "ours first": BOTH,
    "torch first": TORCH_FIRST,
    "the compiler first": "import torch._dynamo, tensor_bridge, tensorflow as tf",
}


# Each order imports the frameworks and the compiler anew.
@pytest.mark.parametrize(
    "order", needs.parameters(IMPORTS, {"torch first": pytest.mark.exhaustive})
)
def test_conversions_break_a_graph_without_a_word(order: str) -> None:
    run_forked(
        """
import inspect, sys, tensor_bridge
t = tf.constant([1.0, 2.0])

def through(x):
    return tensor_bridge.to_tf(x * 2 + tensor_bridge.to_torch(t))

compiled = torch.compile(through, backend="eager")
assert compiled(torch.ones(2)).numpy().tolist() == [3.0, 4.0]
torch.compiler.reset()  # which knows the pieces by now
whole = torch.compile(through, backend="eager", fullgraph=True)
try:
    whole(torch.ones(2))
except torch._dynamo.exc.Unsupported as e:
    if "msg" in inspect.signature(torch._dynamo.graph_break).parameters:  # torch 2.7 and newer
        assert "tensor_bridge.autograd.compile_conversions()" in str(e), e
    assert "issue" not in str(e), e
else:
    raise AssertionError("a graph without its conversions")
assert "tensor_bridge._after_import" not in {type(finder).__module__ for finder in sys.meta_path}
if tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 13):
    for _ in range(2):
        tensor_bridge.autograd.compile_conversions()
    for function in (whole, compiled):
        assert function(torch.ones(2)).numpy().tolist() == [3.0, 4.0]
""",
        after=(IMPORTS[order],),
    ).check()


CONVERSIONS = """
from tensor_bridge import _torch_compile
from tensor_bridge.autograd import compile_conversions
from tensor_bridge.testing import live_owners, shares_memory
to_torch, to_tf = tensor_bridge.to_torch, tensor_bridge.to_tf
compile_conversions()
"""


@needs.torch_since(13, "its operators take no opaque objects")
def test_conversions_compile_whole_with_every_backend() -> None:
    run(f"""{CONVERSIONS}
t = tf.constant([1.0, 2.0, 3.0])
v = tf.Variable([1.0, 2.0, 3.0])
w = torch.full((3,), 2.0, requires_grad=True)

def forth(values, w):
    x = to_torch(values)
    return x["t"] * w + x["l"][0].add_(1), to_torch(t, copy=True, device="cpu") * 2

def back(x):
    return to_tf([x * 2, {{"y": (x,)}}]), to_torch(to_tf(x + 1)) * 2

for backend in ("eager", "aot_eager", "inductor"):
    torch.compiler.reset()
    owners = live_owners()
    compiled = torch.compile(forth, fullgraph=True, backend=backend)
    for i in range(3):
        v.assign([1.0 + i, 2.0, 3.0])
        a, b = compiled({{"t": t + i, "l": [v]}}, w)
        assert a.tolist() == [4.0 + 3 * i, 7.0 + 2 * i, 10.0 + 2 * i], (backend, a)
        assert b.tolist() == [2.0, 4.0, 6.0]
        (gradient,) = torch.autograd.grad(a.sum(), w)
        assert gradient.tolist() == [1.0 + i, 2.0 + i, 3.0 + i]
    assert t.numpy().tolist() == [1.0, 2.0, 3.0] and v.numpy().tolist() == [3.0, 2.0, 3.0]
    compiled = torch.compile(back, fullgraph=True, backend=backend, dynamic=True)
    for size in (3, 4, 5):
        x = torch.ones(size, requires_grad=True)
        (y, z), trip = compiled(x)
        assert y.numpy().tolist() == [2.0] * size and z["y"][0].numpy().tolist() == [1.0] * size
        assert trip.tolist() == [4.0] * size
    # Another dtype or shape is another graph.
    compiled = torch.compile(lambda t: to_torch(t), fullgraph=True, backend=backend)
    for each in (t, tf.range(4), tf.constant([[True]]), tf.cast(t, tf.bfloat16), tf.constant(1.0)):
        x = compiled(each)
        assert torch.equal(x, to_torch(each)) and shares_memory(each, x), (backend, each)
        x.fill_(0)
        assert not shares_memory(each, x)
    assert t.numpy().tolist() == [1.0, 2.0, 3.0]
    del a, b, gradient, x, y, z, trip, each
    torch.compiler.reset()
    assert live_owners() == owners, (backend, live_owners())
""")


@needs.torch_since(13, "its operators take no opaque objects")
def test_what_no_graph_converts_is_converted_between_two_or_refused() -> None:
    run(f"""{CONVERSIONS}
cases = [
    (lambda t: to_torch(t), tf.constant(["a"])),
    (lambda t: to_torch(t), tf.sparse.eye(2)),
    (lambda t: to_torch(t, on_write="raise"), tf.constant([1.0])),
    (lambda t: to_torch({{"t": t, "n": None}})["t"], tf.constant([1.0])),
    (lambda t: to_torch(keras.Variable(t)), tf.constant([1.0])),
    (lambda x: to_tf(x), torch.eye(2).to_sparse()),
    (lambda x: to_tf([x, 3])[0], torch.ones(2)),
]
for fn, value in cases:
    torch.compiler.reset()
    assert repr(torch.compile(fn, backend="eager")(value)) == repr(fn(value))
    torch.compiler.reset()
    try:
        torch.compile(fn, fullgraph=True, backend="eager")(value)
    except torch._dynamo.exc.Unsupported:
        pass
    else:
        raise AssertionError(value)
try:
    torch.compile(lambda x: to_tf(x, grad="raise"))(torch.ones(2, requires_grad=True))
except tensor_bridge.TensorBridgeError:
    pass
else:
    raise AssertionError("a gradient was lost")
""")


@needs.torch_since(13, "its operators take no opaque objects")
def test_opcheck_of_conversions() -> None:
    out = run(f"""{CONVERSIONS}
import torch._dynamo
torch._dynamo.config.fake_tensor_cache_enabled = False  # wants to hash every argument
ops = torch.ops.tensor_bridge
# The last of its tests wants to hash them too; tests above trace and compile.
some = ("test_schema", "test_autograd_registration", "test_faketensor")
# It compares results as well, which torch can of TensorFlow's tensors since 2.20.
every = (*some, "test_aot_dispatch_dynamic") if {needs.tensorflow_release >= (2, 20)} else some
for x in (torch.ones(3), torch.ones(2, 2, requires_grad=True)):
    print(set(torch.library.opcheck(ops.to_tf, (x, None), test_utils=every).values()))
for t in (tf.constant([1.0]), tf.Variable([[1, 2]])):
    checked = torch.library.opcheck(ops.to_torch, (t, None, None), test_utils=some)
    print(set(checked.values()))
""")
    assert out.split("\n") == ["{'SUCCESS'}"] * 4


def test_constants_of_tensorflow_and_integers_in_a_compiled_function() -> None:
    run("""
table = tf.constant([[1.0, 2.0], [3.0, 4.0]])
constant = tf_to_torch(lambda: table)
gather = tf_to_torch(lambda i: tf.gather(table, i))
compiled = torch.compile(lambda i: gather(i) + constant()[0], fullgraph=True, backend="aot_eager")
assert compiled(torch.tensor([1])).tolist() == [[4.0, 6.0]]
""")


def test_export_works_in_the_process_and_says_what_is_missing_in_another(tmp_path: object) -> None:
    path = f"{tmp_path}/program.pt2"
    run(f"""
f = tf_to_torch(tf.sin)
class Net(torch.nn.Module):
    def forward(self, x):
        return f(x * 2)
x = torch.randn(3)
program = torch.export.export(Net(), (x,))
torch.testing.assert_close(program.module()(x), torch.sin(x * 2))
torch.export.save(program, {path!r})
""")
    out = run(f"""
_compiled._operators()
program = torch.export.load({path!r})
try:
    program.module()(torch.ones(3))
except GradientError as e:
    print(e)
""")
    assert "not part of a saved program" in out


def test_shapes_that_depend_on_values_are_refused() -> None:
    out = run("""
f = tf_to_torch(lambda x: tf.boolean_mask(x, x > 0))
try:
    torch.compile(f, fullgraph=True, backend="eager")(torch.ones(3))
except Exception as e:
    print(e)
""")
    assert "output shapes follow from its input shapes" in " ".join(out.split())
