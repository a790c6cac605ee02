"""Keywords of `to_tf`, devices, interfaces, and the place of the first call."""

from __future__ import annotations

import inspect
import pathlib
from typing import Any

import needs
import pytest
import tensorflow as tf
import torch
from claims import claims_test
from fresh import run_forked, run_python
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import assert_to_tf_refused, explained
from sharing import SHAPE, owners, shared_to_tf, tf_bytes, torch_bytes, values

import tensor_bridge
from tensor_bridge.testing import shares_memory, tf_data_address

# ---- the call ------------------------------------------------------------------------------------


def test_short_name_is_the_same_function() -> None:
    assert tensor_bridge.to_tf is tensor_bridge.convert_pytorch_to_tf
    bridge = tensor_bridge.TensorBridge
    assert bridge.to_tf is bridge.convert_pytorch_to_tf


@needs.shares_to_tf
def test_tensor_as_a_keyword(interface: Any) -> None:
    x = values()
    assert shares_memory(interface.to_tf(x=x), x)
    assert not shares_memory(interface.to_tf(copy=True, x=x), x)


@pytest.mark.parametrize(
    ("arguments", "keywords"),
    [
        ((), {}),
        ((torch.ones(1), None), {}),
        ((torch.ones(1),), {"x": torch.ones(1)}),
        ((), {"t": torch.ones(1)}),
        ((torch.ones(1),), {"nonsense": 1}),
        ((torch.ones(1),), {"on_write": "copy"}),
        ((torch.ones(1),), {"raw": True}),
        ((torch.ones(1),), {"": None}),
    ],
    ids=str,
)
def test_wrong_arguments(
    arguments: tuple[Any, ...], keywords: dict[str, Any], interface: Any
) -> None:
    with pytest.raises(TypeError):
        interface.to_tf(*arguments, **keywords)


@pytest.mark.parametrize("name", ["to_torch", "to_tf"])
def test_the_message_names_all_keywords_and_the_nearest(name: str) -> None:
    value = values() if name == "to_tf" else tf.constant([1.0])
    convert = getattr(tensor_bridge, name)
    with pytest.raises(TypeError, match="; expected copy, device") as caught:
        convert(value, nothing_like_it=1)
    listed = str(caught.value).partition("; expected ")[2].replace(" or ", ", ").split(", ")
    of_the_other = {
        "to_torch": {"dtype", "grad"},
        "to_tf": {"on_write", "raw", "scale", "zero_point", "axis", "strings", "live"},
    }[name]
    every = set(inspect.signature(tensor_bridge.explain).parameters) - {"x"}
    assert set(listed) == every - of_the_other
    for keyword in listed:
        with pytest.raises(TypeError, match=f"did you mean {keyword}[?]"):
            convert(value, **{f"{keyword}_": None})


@pytest.mark.parametrize("copy", [0, 1, "None", "copy", 0.0, [], object(), tf.constant(True)])
def test_copy_is_none_true_or_false(copy: Any, interface: Any) -> None:
    assert_to_tf_refused(
        interface, values(), tensor_bridge.InvalidOptionError, "copy must be None", copy=copy
    )


@pytest.mark.parametrize("grad", [None, True, "Detach", "", b"raise", 1, object()])
def test_grad_is_detach_or_raise(grad: Any, interface: Any) -> None:
    assert_to_tf_refused(
        interface, values(), tensor_bridge.InvalidOptionError, "grad must be 'detach'", grad=grad
    )


# ---- grad ----------------------------------------------------------------------------------------


def parameter() -> torch.Tensor:
    return torch.nn.Parameter(values())


def result_of_autograd() -> torch.Tensor:
    return torch.nn.Parameter(values()) * 1


@needs.shares_to_tf
@pytest.mark.parametrize("make", [parameter, result_of_autograd])
@pytest.mark.parametrize("copy", [None, False, True])
def test_values_of_what_requires_grad_go_alone(
    make: Any, copy: bool | None, interface: Any
) -> None:
    x = make()
    t = interface.to_tf(x, copy=copy, grad="detach")
    assert tf_bytes(t) == torch_bytes(x)
    assert shares_memory(t, x) == (copy is not True)
    assert "detached" in explained(interface, x, copy=copy).reason
    assert x.requires_grad
    assert_to_tf_refused(
        interface, x, tensor_bridge.InvalidOptionError, r"detach\(\) it", copy=copy, grad="raise"
    )
    t = interface.to_tf(x.detach(), grad="raise", copy=copy)
    assert "detached" not in explained(interface, x.detach(), copy=copy).reason
    assert tf_bytes(t) == torch_bytes(x)


def test_graph_survives_the_conversion() -> None:
    w = parameter()
    y = w * 3
    tensor_bridge.to_tf(y)
    y.sum().backward()
    assert bool((w.grad == 3).all())


def test_result_can_be_watched_by_a_tape() -> None:
    t = tensor_bridge.to_tf(parameter())
    with tf.GradientTape() as tape:
        tape.watch(t)
        loss = tf.reduce_sum(t * t)
    assert tf.reduce_sum(tape.gradient(loss, t)).numpy() == 2 * 276


# ---- device --------------------------------------------------------------------------------------

HERE = [
    None,
    "CPU:0",
    "cpu:0",
    "CPU",
    "/CPU:0",
    "/device:CPU:0",
    "/job:localhost/replica:0/task:0/device:CPU:0",
    torch.device("cpu"),
]


@needs.shares_to_tf
@pytest.mark.parametrize("device", HERE, ids=str)
@pytest.mark.parametrize("copy", [None, False])
def test_device_where_it_is_anyway(device: Any, copy: bool | None, interface: Any) -> None:
    x = values()
    shared_to_tf(x, interface.to_tf, device=device, copy=copy)


@pytest.mark.parametrize("device", ["GPU:0", "CPU:7", "TPU:0", "cuda:0", torch.device("cuda", 1)])
def test_devices_that_are_not_here(device: Any, interface: Any) -> None:
    if tf.config.list_logical_devices("GPU") and "CPU" not in str(device):
        pytest.skip("there is a GPU")
    with pytest.raises(tensor_bridge.UnsupportedDeviceError, match=r"expected one of .*CPU:0"):
        interface.to_tf(values(), device=device)
    explanation = tensor_bridge.explain(values(), device=device)
    assert explanation.error is tensor_bridge.UnsupportedDeviceError


@pytest.mark.parametrize("device", [0, 1.5, object, b"CPU:0", ["CPU:0"]], ids=repr)
def test_devices_that_are_none(device: Any, interface: Any) -> None:
    with owners(), pytest.raises(tensor_bridge.InvalidOptionError, match="device must be"):
        interface.to_tf(values(), device=device)


TWO_CPUS = """
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
bridge = TensorBridge()
x = torch.arange(16.0)
def on(t):
    return t.backing_device[-5:]
"""

LOGICAL_DEVICES = {
    "moves between logical devices without a copy": """
        for interface in (tensor_bridge, bridge):
            for copy in (None, False):
                t = interface.to_tf(x, device="CPU:1", copy=copy)
                assert on(t) == "CPU:1"
                assert testing.shares_memory(t, x)
        explanation = tensor_bridge.explain(x, device="CPU:1")
        assert (explanation.action, explanation.device) == ("shared", "CPU:1")
    """,
    "keeps its bytes there": """
        x = torch.arange(16.0)
        t = tensor_bridge.to_tf(x, device="CPU:1")
        x.zero_()
        assert float(tf.reduce_sum(t)) == 120
    """,
    "copies if told to": """
        for interface in (tensor_bridge, bridge):
            t = interface.to_tf(x, device="CPU:1", copy=True)
            assert on(t) == "CPU:1" and not testing.shares_memory(t, x)
        assert tensor_bridge.explain(x, device="CPU:1", copy=True).action == "copied"
    """,
    "goes back to the device it came from": """
        with tf.device("CPU:1"):
            t = tf.range(16.0) + 0
        assert on(t) == "CPU:1"
        y = tensor_bridge.to_torch(t)
        back = tensor_bridge.to_tf(y)
        assert on(back) == "CPU:1" and testing.shares_memory(back, y)
        here = tensor_bridge.to_tf(y, device="CPU:0")
        assert on(here) == "CPU:0"
    """,
    "is a value while a function is traced": """
        @tf.function(autograph=False)
        def f():
            t = tensor_bridge.to_tf(x, device="CPU:1")
            assert type(t).__name__ == "EagerTensor"
            return t + 1
        assert float(f()[0]) == 1
    """,
    "is not moved by the caller's device scope": """
        with tf.device("CPU:1"):
            t = tensor_bridge.to_tf(x)
            assert testing.shares_memory(t, x)
            moved = tensor_bridge.to_tf(x, device="CPU:0")
        assert on(t) == on(moved) == "CPU:0"
    """,
    "places every leaf and component": """
        value = {"a": [x], "b": torch.eye(2).to_sparse()}
        result = tensor_bridge.to_tf(value, device="CPU:1")
        assert on(result["a"][0]) == on(result["b"].values) == "CPU:1"
        explained = tensor_bridge.explain(value, device="CPU:1")
        assert [e.device for _, e in explained.leaves] == ["CPU:1", "CPU:1"]
        try:
            tensor_bridge.to_tf(value, device="CPU:5")
            raise SystemExit
        except tensor_bridge.UnsupportedDeviceError as e:
            assert str(e).startswith("at ['a'][0]: "), e
    """,
    "encodes there": """
        t = tensor_bridge.to_tf(torch.tensor([1, -2]), device="CPU:1", dtype="int4")
        assert on(t) == "CPU:1" and t.dtype.name == "int4"
    """,
    "leaks nothing": """
        del x
        t = y = f = back = here = moved = value = result = explained = None
        import gc
        gc.collect()
        assert testing.live_owners() == 0, testing.live_owners()
    """,
}


test_logical_devices = needs.shares_to_tf(claims_test(TWO_CPUS, LOGICAL_DEVICES))


# ---- where it is called --------------------------------------------------------------------------


@needs.shares_to_tf
def test_inside_a_traced_function() -> None:
    x = values()

    @tf.function(autograph=False)
    def function(t: tf.Tensor) -> tf.Tensor:
        kept = shared_to_tf(x)
        copied = tensor_bridge.to_tf(x.T)
        return t + tf.reduce_sum(kept.tf) + tf.reduce_sum(copied)

    assert function(tf.constant(1.0)).numpy() == 1 + 2 * 276
    x.zero_()
    assert function(tf.constant(2.0)).numpy() == 2 + 2 * 276, "captured with their first values"


@needs.shares_to_tf
def test_inside_a_graph() -> None:
    with tf.Graph().as_default():
        kept = shared_to_tf()
        assert kept.tf.shape == SHAPE
    kept.assert_shared()


def test_inside_a_py_function() -> None:
    x = values()
    t = tf.py_function(lambda: tensor_bridge.to_tf(x), [], tf.float32)
    assert tf.reduce_sum(t).numpy() == 276


@needs.shares_to_tf
def test_inside_an_asynchronous_scope() -> None:
    with tf.experimental.async_scope():
        kept = shared_to_tf()
        result = tf.reduce_sum(kept.tf * 2)
        kept.torch.zero_()
        kept.assert_moved()
    assert result.numpy() == 2 * 276


FIRST_CALLS = {
    "a tensor": "t = tensor_bridge.to_tf(torch.ones(3))",
    "a tensor through ctypes": "t = tensor_bridge.TensorBridge().to_tf(torch.ones(3))",
    "a strided tensor": "t = tensor_bridge.to_tf(torch.ones(3, 2).T[0])",
    "a structure": "t = tensor_bridge.to_tf({'a': [torch.ones(3)]})['a'][0]",
    "an encoded tensor": "t = tensor_bridge.to_tf(torch.ones(3, dtype=torch.int8), dtype='int4')",
    "with a device": "t = tensor_bridge.to_tf(torch.ones(3), device='CPU:0')",
    "from DLPack": "import tensor_bridge.dlpack\n"
    "t = tensor_bridge.dlpack.from_dlpack(torch.ones(3), framework='tensorflow')",
    "explained": "x = torch.ones(3)\nprint(tensor_bridge.explain(x))\nt = tensor_bridge.to_tf(x)",
}


def test_first_tensorflow_call_of_a_process() -> None:
    """The call makes the eager context; TensorFlow is not even imported before."""
    code = f"""
        import torch
        import tensor_bridge
        {FIRST_CALLS["a tensor"]}
        import tensorflow as tf
        assert t.shape == 3 and float(tf.reduce_sum(t + 1)) == 6
        print("fine")
    """
    assert run_python(code).check().endswith("fine")


@pytest.mark.parametrize(
    "call", needs.parameters(FIRST_CALLS, {"an encoded tensor": needs.dtype("int4")})
)
def test_first_call_after_the_imports(call: str) -> None:
    code = f"{FIRST_CALLS[call]}\nassert t.shape == 3\nprint(tf.reduce_sum(tf.cast(t, 'int32')))"
    assert run_forked(code).check().splitlines()[-1].startswith("tf.Tensor(3,")


# ---- keywords of any value -----------------------------------------------------------------------

anything: Any = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.floats(),
    st.text(max_size=6),
    st.binary(max_size=3),
    st.sampled_from(["detach", "raise", "keep", "CPU:0", "cpu", "int4", "qint8", "float32"]),
    st.sampled_from(
        [torch.float32, torch.device("cpu"), tf.bfloat16, tf.float32, int, pathlib.Path()]
    ),
    st.lists(st.integers(0, 3), max_size=2),
)
keywords = st.dictionaries(st.sampled_from(["copy", "device", "dtype", "grad"]), anything)
sources = st.sampled_from(
    [values(), values().T, values().int(), torch.nn.Parameter(values()), torch.ones(0)]
)


@settings(max_examples=250, deadline=None, derandomize=True, database=None)
@given(sources, keywords, st.sampled_from([tensor_bridge, tensor_bridge.TensorBridge()]))
def test_any_keyword_value_works_or_is_refused_as_explained(
    x: torch.Tensor, options: dict[str, Any], interface: Any
) -> None:
    with owners():
        explanation = tensor_bridge.explain(x, **options)
        if explanation.action == "refused":
            with pytest.raises(explanation.error) as caught:
                interface.to_tf(x, **options)
            assert type(caught.value) is explanation.error
            del caught
        else:
            t = interface.to_tf(x, **options)
            assert explanation.action == ("shared" if shares_memory(t, x) else "copied")
            assert t.dtype.name == explanation.tf_dtype
            assert tf_data_address(t) % 64 == 0
            del t
