"""The keywords: their combinations, defaults and refusals, and torch's state around a call."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import product
from typing import Any

import needs
import pytest
import tensorflow as tf
import torch
from refusals import assert_refused
from tf_bytes import random_tensor, row_named, tf_memory, torch_memory
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import tensor_bridge
from tensor_bridge.testing import live_owners, shares_memory

COPY = (None, False, True)
ON_WRITE = ("copy", "raise", "alias")
DEVICE = (None, "cpu", torch.device("cpu"))


def scattered_variable() -> tf.Variable:
    """A variable that TensorFlow copies at each read."""
    v = tf.Variable([1.0, 2.0, 3.0, 4.0])
    v.scatter_nd_update([[0]], [5.0])
    return v


SOURCES = {
    "shared": lambda: random_tensor(row_named("float32"), (4,)),
    "viewed": lambda: random_tensor(row_named("uint4"), (4,)),
    "converted": lambda: random_tensor(row_named("int4"), (4,)),
    "quantized": lambda: random_tensor(row_named("qint8"), (4,)),
    "variable": lambda: tf.Variable([1.0, 2.0, 3.0, 4.0]),
    "scattered": scattered_variable,
}
DTYPES = {"viewed": "uint4", "converted": "int4"}
WAYS = [
    pytest.param(source, marks=needs.dtype(DTYPES[source]) if source in DTYPES else ())
    for source in SOURCES
]


def expected(source: str, copy: bool | None, on_write: str, raw: bool) -> str | type[Exception]:
    """The expected result: "shared", "copied", "copied by TensorFlow", or the exception."""
    is_variable = source in ("variable", "scattered")
    if is_variable and on_write == "alias":
        return tensor_bridge.InvalidOptionError
    if source == "quantized" and not raw:
        return tensor_bridge.UnsupportedDtypeError
    needs_copy = (source == "converted" and not raw) or source == "scattered"
    if copy is False and needs_copy:
        return tensor_bridge.CopyRequiredError
    if copy is True or (source == "converted" and not raw):
        return "copied"
    return "copied by TensorFlow" if source == "scattered" else "shared"


@pytest.mark.parametrize("source", WAYS)
@pytest.mark.parametrize("copy", COPY)
@pytest.mark.parametrize("on_write", ON_WRITE)
@pytest.mark.parametrize("raw", [False, True])
def test_every_combination_does_what_the_policy_says(
    source: str, copy: bool | None, on_write: str, raw: bool, interface: Any
) -> None:
    outcome = expected(source, copy, on_write, raw)
    for device in DEVICE:
        value = SOURCES[source]()
        options = {"copy": copy, "on_write": on_write, "raw": raw, "device": device}
        if not isinstance(outcome, str):
            assert_refused(interface, value, outcome, "use|give|allow|raw=True|Use", **options)
            continue
        before = tf_memory(value)
        owners = live_owners()
        x = interface.to_torch(value, **options)
        explanation = interface.explain(value, **options)
        in_tf_memory = outcome != "copied"
        assert live_owners() == owners + in_tf_memory
        assert shares_memory(value, x) == (outcome == "shared")
        assert explanation.action == ("shared" if outcome == "shared" else "copied")
        assert explanation.on_write == (on_write if in_tf_memory else None)
        assert ("copied by TensorFlow" in explanation.reason) == (outcome == "copied by TensorFlow")
        if source != "converted" or raw:
            assert torch_memory(x) == before

        if in_tf_memory and on_write == "raise":
            with needs.forbidden_write("clone"):
                x.zero_()
            assert tf_memory(value) == before
        else:
            x.zero_()
            assert set(torch_memory(x)) == {0}
            written = outcome == "shared" and on_write == "alias"
            assert tf_memory(value) == (bytes(len(before)) if written else before)
        del x
        assert live_owners() == owners


def test_keywords_and_defaults_are_the_same_everywhere() -> None:
    bridge = tensor_bridge.TensorBridge()
    functions = [
        tensor_bridge.convert_tf_to_pytorch,
        tensor_bridge.to_torch,
        tensor_bridge.explain,
        bridge.convert_tf_to_pytorch,
        bridge.to_torch,
        bridge.explain,
    ]
    defaults = {
        "copy": None,
        "device": None,
        "on_write": "copy",
        "raw": False,
        "scale": None,
        "zero_point": None,
        "axis": None,
    }
    for function in functions:
        first, *others = inspect.signature(function).parameters.values()
        assert first.name in ("t", "x")
        assert first.kind is first.POSITIONAL_OR_KEYWORD
        assert defaults.items() <= {p.name: p.default for p in others}.items()
        assert all(p.kind is p.KEYWORD_ONLY for p in others)


def test_the_short_name_is_the_same_function() -> None:
    assert tensor_bridge.to_torch is tensor_bridge.convert_tf_to_pytorch
    assert tensor_bridge.TensorBridge.to_torch is tensor_bridge.TensorBridge.convert_tf_to_pytorch


def test_defaults_given_by_name_are_the_defaults(interface: Any) -> None:
    t = tf.constant([1.0, 2.0]) * 1
    x = interface.to_torch(
        t,
        copy=None,
        device=None,
        on_write="copy",
        raw=False,
        scale=None,
        zero_point=None,
        axis=None,
    )
    assert shares_memory(t, x)
    assert x.tolist() == [1.0, 2.0]


# ---- what keywords refuse ------------------------------------------------------------------------


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


INVALID: list[tuple[dict[str, Any], str]] = [
    ({"copy": 1}, "None, True or False"),
    ({"copy": 0}, "None, True or False"),
    ({"copy": "yes"}, "None, True or False"),
    ({"copy": torch.tensor(True)}, "None, True or False"),
    ({"on_write": "Copy"}, "'copy', 'raise' or 'alias'"),
    ({"on_write": ""}, "'copy', 'raise' or 'alias'"),
    ({"on_write": "copy\0"}, "'copy', 'raise' or 'alias'"),
    ({"on_write": None}, "'copy', 'raise' or 'alias'"),
    ({"on_write": b"copy"}, "'copy', 'raise' or 'alias'"),
    ({"on_write": ["copy"]}, "'copy', 'raise' or 'alias'"),
    ({"raw": None}, "True or False"),
    ({"raw": 1}, "True or False"),
    ({"raw": "true"}, "True or False"),
    ({"axis": 0}, "needs scale and zero_point"),
    ({"axis": True}, "None or an int"),
    ({"axis": 1.0}, "None or an int"),
    ({"axis": "0"}, "None or an int"),
    ({"axis": 2**63}, "64 bits"),
    ({"axis": -(2**70)}, "64 bits"),
    ({"axis": 2**64}, "64 bits"),
    ({"scale": 1.0}, "zero_point is missing"),
    ({"zero_point": 0}, "scale is missing"),
    ({"scale": 1.0, "zero_point": 0}, "leave them out"),
    ({"scale": 1.0, "zero_point": 0, "axis": 0}, "leave them out"),
]


@pytest.mark.parametrize(("options", "advice"), INVALID, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("source", ["shared", "variable"])
def test_meaningless_keywords_are_refused(
    options: dict[str, Any], advice: str, source: str, interface: Any
) -> None:
    assert_refused(
        interface, SOURCES[source](), tensor_bridge.InvalidOptionError, advice, **options
    )


@pytest.mark.parametrize("name", ["copy", "on_write", "raw", "axis", "scale", "device"])
def test_a_value_without_a_repr_is_refused_all_the_same(name: str, interface: Any) -> None:
    t = tf.constant([1.0])
    options = {name: Unprintable()}
    if name == "scale":
        options["zero_point"] = 0
    with pytest.raises((tensor_bridge.InvalidOptionError, RuntimeError)):
        interface.to_torch(t, **options)
    assert interface.explain(t, **options).action == "refused"


@pytest.mark.parametrize("name", ["copies", "shape", "Copy", "requires_grad", "non_blocking", ""])
def test_unknown_keywords_are_a_type_error(name: str, interface: Any) -> None:
    for value in (tf.constant([1.0]), tf.Variable([1.0])):
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
            interface.to_torch(value, **{name: None})
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
            interface.explain(value, **{name: None})


def test_the_number_of_arguments_is_a_type_error(interface: Any) -> None:
    t = tf.constant([1.0])
    for arguments in ((), (t, None), (t, True, None)):
        with pytest.raises(TypeError, match="argument"):
            interface.to_torch(*arguments)
    with pytest.raises(TypeError, match="argument"):
        interface.to_torch(t, t=t)
    with pytest.raises(TypeError, match="argument"):
        interface.to_torch(copy=True)


def test_the_tensor_may_be_named(interface: Any) -> None:
    t = tf.constant([1.0]) * 1
    v = tf.Variable([2.0])
    assert shares_memory(t, interface.to_torch(t=t))
    assert not shares_memory(t, interface.to_torch(copy=True, t=t))
    assert interface.to_torch(t=v, on_write="raise").tolist() == [2.0]


# ---- the state of torch around a call ------------------------------------------------------------


@pytest.fixture(params=[*needs.dtypes(["float32", "int4", "qint8"]), "variable"])
def sample(request: pytest.FixtureRequest) -> tuple[Any, dict[str, Any]]:
    """A value and the keywords that convert it: shared, looked up, per channel, variable."""
    if request.param == "variable":
        return tf.Variable([[1.0, 2.0, 3.0]]), {}
    value = random_tensor(row_named(request.param), (2, 3))
    if request.param == "qint8":
        return value, {"scale": [1.0, 2.0, 3.0], "zero_point": [0, 1, 2], "axis": 1}
    return value, {}


Sample = tuple[Any, dict[str, Any]]


def same(x: torch.Tensor, y: torch.Tensor) -> bool:
    return x.dtype is y.dtype and x.shape == y.shape and torch_memory(x) == torch_memory(y)


@pytest.mark.parametrize("copy", [None, True])
def test_results_are_leaves_without_gradient(sample: Sample, copy: Any, interface: Any) -> None:
    value, options = sample
    x = interface.to_torch(value, copy=copy, **options)
    assert x.is_leaf
    assert not x.requires_grad
    assert x.grad_fn is None
    assert type(x) is torch.Tensor
    assert not x.is_inference()
    with torch.enable_grad():
        assert not interface.to_torch(value, copy=copy, **options).requires_grad


def test_a_result_takes_part_in_autograd(interface: Any) -> None:
    t = tf.constant([1.0, 2.0, 3.0]) * 1
    x = interface.to_torch(t).requires_grad_()
    (x * x).sum().backward()
    assert x.grad.tolist() == [2.0, 4.0, 6.0]
    assert shares_memory(t, x)


@pytest.mark.parametrize("copy", [None, True])
def test_results_are_inference_tensors_in_inference_mode(
    sample: Sample, copy: Any, interface: Any
) -> None:
    value, options = sample
    ordinary = interface.to_torch(value, copy=copy, **options)
    with torch.inference_mode():
        x = interface.to_torch(value, copy=copy, **options)
    assert x.is_inference()
    assert same(x, ordinary)
    with torch.no_grad():
        assert not interface.to_torch(value, copy=copy, **options).is_inference()


@pytest.fixture
def restored_defaults() -> Iterator[None]:
    yield
    torch.set_default_device(None)
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("restored_defaults")
@pytest.mark.parametrize("copy", [None, True])
def test_default_device_and_dtype_are_ignored(sample: Sample, copy: Any, interface: Any) -> None:
    value, options = sample
    ordinary = interface.to_torch(value, copy=copy, **options)
    torch.set_default_device("meta")
    torch.set_default_dtype(torch.float64)
    x = interface.to_torch(value, copy=copy, **options)
    explanation = interface.explain(value, copy=copy, **options)
    torch.set_default_device(None)
    assert x.device.type == explanation.device == "cpu"
    assert same(x, ordinary)
    if x.is_quantized:
        assert x.q_per_channel_scales().device.type == "cpu"
    with torch.device("meta"):
        assert interface.to_torch(value, copy=copy, **options).device.type == "cpu"


class NoDispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"an operator of the conversion reached the mode: {func}")


class NoFunction(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.device:  # torch parses the caller's argument
            return func(*args)
        raise AssertionError(f"a function of the conversion reached the mode: {func}")


@pytest.mark.parametrize("copy", [None, True])
@pytest.mark.parametrize("mode", [NoDispatch, NoFunction, FakeTensorMode])
def test_modes_do_not_see_the_conversion(
    sample: Sample, copy: Any, mode: type, interface: Any
) -> None:
    value, options = sample
    ordinary = interface.to_torch(value, copy=copy, **options)
    with mode():
        x = interface.to_torch(value, copy=copy, **options)
        y = interface.to_torch(value, copy=copy, device="cpu", **options)
    assert not isinstance(x, FakeTensor)
    assert same(x, ordinary)
    assert same(y, ordinary)


def test_large_copies_are_hidden_from_modes_too(interface: Any) -> None:
    t = tf.random.stateless_uniform([300, 300], [1, 2])
    with NoDispatch(), NoFunction():
        x = interface.to_torch(t, copy=True)
    assert torch.equal(x, interface.to_torch(t))


def test_a_conversion_inside_a_function_transform(interface: Any) -> None:
    t = tf.constant([1.0, 2.0]) * 1
    ones = torch.ones(3, 2)
    for copy in (None, True):
        vmapped = torch.func.vmap(lambda a: a + interface.to_torch(t, copy=copy))(ones)  # noqa: B023
        assert vmapped.tolist() == [[2.0, 3.0]] * 3
        grad = torch.func.grad(lambda a: (a * interface.to_torch(t, copy=copy)).sum())(ones[0])  # noqa: B023
        assert grad.tolist() == [1.0, 2.0]
        made = torch.func.functionalize(lambda a: a + interface.to_torch(t, copy=copy))(ones)  # noqa: B023
        assert made.tolist() == [[2.0, 3.0]] * 3
    if not needs.has("int4"):
        return
    i4 = random_tensor(row_named("int4"), (2,))
    vmapped = torch.func.vmap(lambda a: a + interface.to_torch(i4))(ones)
    assert vmapped[0].tolist() == [1.0 + value for value in interface.to_torch(i4).tolist()]


def test_a_conversion_under_deterministic_algorithms(interface: Any) -> None:
    t = tf.random.stateless_uniform([300, 300], [1, 2])
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.equal(interface.to_torch(t, copy=True), interface.to_torch(t))
    finally:
        torch.use_deterministic_algorithms(False)


def test_arguments_are_left_as_they_are(interface: Any) -> None:
    t = tf.constant([1.0, 2.0]) * 1
    v = tf.Variable([1.0, 2.0])
    scales, zero_points = [1.0, 2.0], [0, 1]
    q = random_tensor(row_named("qint8"), (2,))
    quantization = {"scale": scales, "zero_point": zero_points, "axis": 0}
    for value, options in ((t, {}), (v, {}), (q, quantization)):
        attributes = set(dir(value))
        bits = tf_memory(value)
        interface.to_torch(value, **options)
        interface.explain(value, **options)
        assert set(dir(value)) == attributes
        assert tf_memory(value) == bits
    assert scales == [1.0, 2.0]
    assert zero_points == [0, 1]


def test_many_results_of_one_tensor_are_independent(interface: Any) -> None:
    t = tf.constant([1.0, 2.0]) * 1
    before = live_owners()
    xs = [interface.to_torch(t, on_write=on_write) for on_write in ("copy", "copy", "raise")]
    assert live_owners() == before + 3
    xs[0].zero_()
    assert xs[1].tolist() == xs[2].tolist() == [1.0, 2.0]
    assert not shares_memory(t, xs[0])
    assert shares_memory(t, xs[1])
    assert shares_memory(t, xs[2])
    for left in (2, 1):
        # The first result was written to, so torch moved; it still holds TensorFlow's buffer.
        xs.pop()
        assert live_owners() == before + left
    xs.clear()
    assert live_owners() == before


def test_combinations_are_covered() -> None:
    outcomes = {
        expected(source, copy, on_write, raw)
        for source, copy, on_write, raw in product(SOURCES, COPY, ON_WRITE, (False, True))
    }
    assert {"shared", "copied", "copied by TensorFlow"} < outcomes
    assert {tensor_bridge.CopyRequiredError, tensor_bridge.InvalidOptionError} < outcomes
