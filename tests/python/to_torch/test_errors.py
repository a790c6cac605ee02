"""The exceptions: their classes, and the right one for wrong, broken and failed values."""

from __future__ import annotations

import pickle
import re
from fractions import Fraction
from typing import Any

import needs
import numpy as np
import pytest
import tensorflow as tf
import torch
from claims import claims_test
from refusals import BUILTIN_BASES, assert_refused
from sharing import owners
from tensorflow.python.eager import context, executor
from tree import ROOT

import tensor_bridge
from tensor_bridge import errors

HEADER = ROOT / "include" / "tensor_bridge" / "c_api.h"


# ---- the classes ---------------------------------------------------------------------------------


def test_every_class_has_its_base_and_its_builtin() -> None:
    classes = {getattr(errors, name) for name in errors.__all__ if name.endswith("Error")}
    assert classes == {*BUILTIN_BASES, errors.TensorBridgeError}
    for error, builtin in BUILTIN_BASES.items():
        assert issubclass(error, errors.TensorBridgeError)
        assert issubclass(error, builtin)
        assert error.__doc__
        assert getattr(tensor_bridge, error.__name__) is error
    assert not issubclass(errors.TensorBridgeError, (ValueError, TypeError, RuntimeError))


def test_every_status_of_the_c_abi_has_a_class() -> None:
    enum = re.search(r"enum \{\s*TB_OK = 0,(.*?)\};", HEADER.read_text(), re.DOTALL)
    assert enum is not None
    declared = {int(n): name for name, n in re.findall(r"TB_([A-Z_]+) = (\d+)", enum.group(1))}
    # OUT_OF_MEMORY = 11 is OutOfMemoryError.
    expected = {n: f"{name.title().replace('_', '')}Error" for n, name in declared.items()}
    expected[8] = "TensorFlowError"
    expected[13] = "ValueRangeError"
    assert {status: e.__name__ for status, e in errors.BY_STATUS.items()} == expected


@pytest.mark.parametrize("error", BUILTIN_BASES)
def test_exceptions_can_be_pickled(error: type[Exception]) -> None:
    again = pickle.loads(pickle.dumps(error("message")))
    assert type(again) is error
    assert again.args == ("message",)


def test_callers_need_not_import_our_exceptions(interface: Any) -> None:
    with pytest.raises(TypeError):
        interface.to_torch(None)
    with pytest.raises(TypeError):
        interface.to_torch(tf.Variable(1.0).handle)
    with pytest.raises(ValueError, match="copy"):
        interface.to_torch(tf.constant(1.0), copy=3)
    with pytest.raises(BufferError):
        interface.to_torch(tf.constant(["a"]), copy=False)


# ---- values of the wrong type --------------------------------------------------------------------

MAKE_ONE = r"convert the tensors inside it one by one, or make one .*tf\.convert_to_tensor"
COMPONENTS = "convert the dense tensors inside it"

WRONG_TYPES: dict[str, tuple[Any, str]] = {
    "None": (lambda: None, "leave it out"),
    "int": (lambda: 3, MAKE_ONE),
    "float": (lambda: 3.0, MAKE_ONE),
    "bool": (lambda: True, MAKE_ONE),
    "str": (lambda: "text", MAKE_ONE),
    "class": (lambda: type(tf.constant(1.0)), MAKE_ONE),
    "module": (lambda: tf, MAKE_ONE),
    "numpy scalar": (lambda: np.float32(1.0), MAKE_ONE),
    "numpy array": (lambda: np.zeros(2), r"torch\.from_numpy"),
    "numpy matrix": (lambda: np.ma.zeros(2), r"torch\.from_numpy"),
    "spec": (lambda: tf.TensorSpec([1]), "expected a tf.Tensor"),
    "dtype": (lambda: tf.float32, "expected a tf.Tensor"),
    "shape": (lambda: tf.TensorShape([1]), "expected a tf.Tensor"),
}


# Values of several dense tensors. The module converts some of them, the C ABI none.
KERAS_VARIABLE: dict[str, tuple[Any, str]] = {
    "keras variable": (lambda: tf.keras.Variable([1.0]), r"variable\.value")
}
if not needs.KERAS_3:  # whose variables are TensorFlow's
    KERAS_VARIABLE.clear()
COMPOUND: dict[str, tuple[Any, str]] = {
    "list": (lambda: [tf.constant(1.0)], MAKE_ONE),
    "tuple": (lambda: (tf.constant(1.0),), MAKE_ONE),
    "dict": (lambda: {"a": tf.constant(1.0)}, MAKE_ONE),
    "keras layer": (lambda: tf.keras.layers.Dense(2), MAKE_ONE),
    **KERAS_VARIABLE,
    "ragged": (lambda: tf.ragged.constant([[1], [2, 3]]), COMPONENTS),
    "sparse": (lambda: tf.sparse.from_dense([[1, 0]]), COMPONENTS),
    "slices": (lambda: tf.IndexedSlices(tf.constant([1.0]), tf.constant([0])), COMPONENTS),
    "tensor array": (lambda: tf.TensorArray(tf.float32, 1), COMPONENTS),
    "optional": (lambda: tf.experimental.Optional.from_value(1), COMPONENTS),
    "dataset": (lambda: tf.data.Dataset.range(2), r"tensor_bridge\.data\.loader\(dataset\)"),
    "iterator": (lambda: iter(tf.data.Dataset.range(2)), r"tensor_bridge\.data\.loader\("),
}


@pytest.mark.parametrize("name", WRONG_TYPES)
def test_values_of_other_types_are_refused(name: str, interface: Any) -> None:
    make, advice = WRONG_TYPES[name]
    value = make()
    assert_refused(interface, value, tensor_bridge.UnsupportedTypeError, advice)
    assert_refused(interface, value, tensor_bridge.UnsupportedTypeError, advice, copy=True)


@pytest.mark.parametrize("name", COMPOUND)
def test_the_c_abi_converts_single_dense_tensors_only(name: str) -> None:
    make, advice = COMPOUND[name]
    assert_refused(tensor_bridge.TensorBridge(), make(), tensor_bridge.UnsupportedTypeError, advice)


@pytest.mark.parametrize("make", [torch.zeros, lambda n: torch.nn.Parameter(torch.zeros(n))])
def test_a_torch_tensor_is_torch_s_already(make: Any, interface: Any) -> None:
    with pytest.raises(TypeError, match="nothing to convert") as caught:
        interface.to_torch(make(2))
    assert caught.type is tensor_bridge.UnsupportedTypeError


def test_the_message_names_the_type(interface: Any) -> None:
    with pytest.raises(TypeError, match=r"got a float\b"):
        interface.to_torch(1.0)
    with pytest.raises(TypeError, match=r"got a fractions\.Fraction\b"):
        interface.to_torch(Fraction(1, 2))


def test_components_convert(interface: Any) -> None:
    ragged = tf.ragged.constant([[1], [2, 3]])
    assert interface.to_torch(ragged.values).tolist() == [1, 2, 3]
    assert interface.to_torch(ragged.row_splits).tolist() == [0, 1, 3]
    sparse = tf.sparse.from_dense([[4, 0]])
    assert interface.to_torch(sparse.indices).tolist() == [[0, 0]]
    assert interface.to_torch(sparse.dense_shape).tolist() == [1, 2]


def test_a_keras_symbolic_tensor_is_refused(interface: Any) -> None:
    assert_refused(
        interface,
        tf.keras.Input((2,)),
        tensor_bridge.SymbolicTensorError,
        "Call the model on data and convert its outputs",
    )


# ---- tensors without a value ---------------------------------------------------------------------


@pytest.fixture
def asynchronous() -> Any:
    """An asynchronous executor of TensorFlow, whose error is cleared at the end."""
    pending = executor.new_executor(enable_async=True)
    with context.executor_scope(pending):
        yield pending
        try:
            pending.wait()
        except tf.errors.OpError:
            pending.clear_error()


def test_a_tensor_whose_producer_failed_is_refused(asynchronous: Any, interface: Any) -> None:
    broken = tf.linalg.inv(tf.zeros([3, 3]))
    advice = "(?s)the operation that produces it failed: .*not invertible"
    for _ in range(2):
        assert_refused(interface, broken, tensor_bridge.TensorFlowError, advice)
    assert_refused(interface, broken, tensor_bridge.TensorFlowError, advice, copy=True)
    with pytest.raises(tf.errors.InvalidArgumentError):
        asynchronous.wait()
    asynchronous.clear_error()
    assert_refused(interface, broken, tensor_bridge.TensorFlowError, advice)
    good = tf.linalg.inv(tf.eye(3))
    assert interface.to_torch(good).tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]


def test_a_pending_tensor_is_waited_for(asynchronous: Any, interface: Any) -> None:
    del asynchronous
    a = tf.random.stateless_uniform([600, 600], [1, 2])
    for _ in range(4):
        a = tf.linalg.matmul(a, a)
        a /= tf.reduce_max(a)
    x = interface.to_torch(a)
    assert x.shape == (600, 600)
    assert x.max().item() == 1.0


def test_a_failure_leaves_the_next_call_alone(interface: Any) -> None:
    good, strings = tf.constant([1.0, 2.0]), tf.constant(["a"])
    with owners():
        for value in (None, tf.Variable(1.0).handle, tf.keras.Input((2,))):
            with pytest.raises(TypeError):
                interface.to_torch(value)
            assert interface.to_torch(good).tolist() == [1.0, 2.0]
        for _ in range(100):
            with pytest.raises(BufferError):
                interface.to_torch(strings, copy=False)


# ---- objects that could crash a process, each tried in a separate process ------------------------

HOSTILE_PRELUDE = """
import gc
from tensor_bridge.testing import live_owners

INTERFACES = (tensor_bridge, tensor_bridge.TensorBridge())
EagerTensor = type(tf.constant(1.0))
KEPT = []  # TensorFlow before 2.19 crashes when one dies

def uninitialised():
    KEPT.append(EagerTensor.__new__(EagerTensor))
    return KEPT[-1]

def refused(value, error, advice, **options):
    for interface in INTERFACES:
        try:
            interface.to_torch(value, **options)
        except error.__mro__[2] as e:  # the builtin base
            assert type(e) is error, e
            assert advice in str(e), e
            explanation = interface.explain(value, **options)
            assert (explanation.action, explanation.error) == ("refused", error)
            assert explanation.reason == str(e)
        else:
            raise AssertionError("converted")
    gc.collect()
    assert live_owners() == 0
"""

HOSTILE = {
    "an eager tensor that was never initialised": """
        for options in ({}, {"copy": True}, {"copy": False}, {"raw": True}, {"device": "cpu"}):
            refused(
                uninitialised(),
                tensor_bridge.InvalidHandleError,
                "deleted or never initialised",
                **options,
            )
        """,
    "the same before any other tensor in an interface's life": """
        bridge = tensor_bridge.TensorBridge()
        try:
            bridge.to_torch(uninitialised())
        except ValueError as e:
            assert type(e) is tensor_bridge.InvalidHandleError
        """,
    "a variable whose handle was never initialised": """
        v = tf.Variable([1.0])
        v._handle = uninitialised()
        refused(v, tensor_bridge.InvalidHandleError, "deleted or never initialised")
        """,
    "a variable whose handle is an ordinary tensor": """
        v = tf.Variable([1.0])
        v._handle = tf.constant([1.0])
        refused(v, tensor_bridge.TensorFlowError, "could not read the variable")
        """,
    "a variable whose handle belongs to another dtype": """
        v, w = tf.Variable([1.0]), tf.Variable([1])
        v._handle = w.handle
        refused(v, tensor_bridge.TensorFlowError, "could not read the variable")
        """,
    "a variable whose handle is an iterator": """
        v = tf.Variable([1.0])
        v._handle = iter(tf.data.Dataset.range(2))._iterator_resource
        refused(v, tensor_bridge.TensorFlowError, "could not read the variable")
        """,
    "a variable whose handle is None": """
        v = tf.Variable([1.0])
        v._handle = None
        refused(v, tensor_bridge.SymbolicTensorError, "create the variable eagerly")
        """,
    "something that says it is an eager tensor": """
        class Spoof:
            __class__ = EagerTensor
        refused(Spoof(), tensor_bridge.UnsupportedTypeError, "Spoof")
        """,
    "a class of the same name": """
        Fake = type("EagerTensor", (), {"__module__": EagerTensor.__module__})
        refused(Fake(), tensor_bridge.UnsupportedTypeError, "EagerTensor")
        """,
    "a variable class without a variable": """
        from tensorflow.python.ops import resource_variable_ops
        cls = resource_variable_ops.BaseResourceVariable
        for interface in INTERFACES:
            try:
                interface.to_torch(cls.__new__(cls))
            except AttributeError:
                pass
            else:
                raise AssertionError("converted")
            assert interface.explain(cls.__new__(cls)).action == "refused"
        """,
    "resources and variants of every sort": """
        refused(
            tf.Variable([1.0]).handle, tensor_bridge.UnsupportedDtypeError, "tf.Variable itself"
        )
        iterator = iter(tf.data.Dataset.range(2))
        refused(
            iterator._iterator_resource, tensor_bridge.UnsupportedDtypeError, "iterator's elements"
        )
        variants = (
            tf.data.Dataset.range(2)._variant_tensor,
            tf.experimental.Optional.from_value(1)._variant_tensor,
            tf.raw_ops.EmptyTensorList(
                element_shape=[1], max_num_elements=1, element_dtype=tf.float32
            ),
            tf.ragged.constant([[1], [2, 3]])._to_variant(),
            tf.sparse.from_dense([[1, 0]]) and tf.raw_ops.SerializeSparse(
                sparse_indices=[[0, 0]], sparse_values=[1], sparse_shape=[1, 1],
                out_type=tf.variant,
            ),
        )
        for variant in variants:
            for options in ({}, {"raw": True}, {"copy": True}):
                refused(variant, tensor_bridge.UnsupportedDtypeError, "the dense", **options)
        """,
    "strings of every sort": """
        for strings in ("", "x" * 22, "x" * 23, "x" * 10_000_000, ["a"] * 1000, [], [[]]):
            t = tf.constant(strings, tf.string)
            refused(t, tensor_bridge.CopyRequiredError, "Use copy=None", copy=False)
            for options in ({}, {"raw": True}, {"copy": True}):
                try:
                    tensor_bridge._C.tensor_to_torch(t, **options)
                    raise AssertionError("converted")
                except tensor_bridge.UnsupportedDtypeError as e:
                    assert "tf.io.decode_raw" in str(e)
        """,
    "a result that is deleted while the call goes on": """
        import threading
        stop = threading.Event()
        def churn():
            while not stop.is_set():
                gc.collect()
        thread = threading.Thread(target=churn)
        thread.start()
        for i in range(2000):
            x = INTERFACES[i % 2].to_torch(tf.constant([float(i)]))
            assert x.item() == i
        stop.set()
        thread.join()
        del x
        gc.collect()
        assert live_owners() == 0
        """,
    "a thread that ends with tensors in its hands": """
        import threading
        kept = []
        def work():
            kept.extend(f.to_torch(tf.constant([1.0])) for f in INTERFACES for _ in range(50))
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert live_owners() == 400
        kept.clear()
        assert live_owners() == 0
        """,
}


test_hostile = claims_test(HOSTILE_PRELUDE, HOSTILE)
