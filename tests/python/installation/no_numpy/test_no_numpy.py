"""No conversion uses NumPy: everything works while every conversion by NumPy raises.

A process makes its inputs and replaces the functions of NumPy, TensorFlow and torch that lead to
NumPy by functions that raise. It shows that they raise, and then uses the whole API with every
dtype.
"""

from __future__ import annotations

from claims import claims_test

PRELUDE = '''
import ctypes, gc, inspect, sys
import needs
import numpy as np
import torch._dynamo  # by torch's nested tensors, and has NumPy loaded in turn
from tensorflow.core.framework import tensor_pb2
from tensorflow.python.framework import dtypes as tf_dtypes, ops, tensor_util
from tensorflow.python.ops import resource_variable_ops, script_ops
from tensor_bridge.testing import (
    live_owners, shares_memory, tf_data_address, torch_data_address
)

INTERFACES = (tensor_bridge, tensor_bridge.TensorBridge())
ROWS = [row for row in needs.rows() if row.tf_enum]

def tensor_of(row):
    data = bytes([1, 0, 1, 1, 0, 1] * row.itemsize)
    proto = tensor_pb2.TensorProto(dtype=row.tf_enum, tensor_content=data)
    for size in (2, 3):
        proto.tensor_shape.dim.add().size = size
    return tf.io.parse_tensor(proto.SerializeToString(), tf.as_dtype(row.tf_enum)), data

NUMERIC = [(row, *tensor_of(row)) for row in ROWS if row.itemsize]
EagerTensor = type(NUMERIC[0][1])

def variable_of(t):
    try:
        return tf.Variable(t)
    except tf.errors.OpError:
        return None

VARIABLES = [(row, variable_of(t), data) for row, t, data in NUMERIC]
VARIABLES = [case for case in VARIABLES if case[1] is not None]
SCATTERED = tf.Variable([1.0, 2.0])
SCATTERED.scatter_nd_update([[0]], [1.0])
STRINGS = tf.constant([["a", "bc"], ["", "d" * 100]])
COMPOUND = {
    "strings": STRINGS,
    "ragged": tf.ragged.constant([[1], [2, 3], []]),
    "ragged strings": tf.ragged.constant([["a"], ["b", "c"]]),
    "sparse": tf.sparse.from_dense([[0.0, 1.0], [2.0, 0.0]]),
    "slices": tf.IndexedSlices(tf.constant([[1.0]]), tf.constant([1]), tf.constant([3, 1])),
    "optional": tf.experimental.Optional.from_value(tf.constant([1.0])),
    "list": [tf.constant([1.0]), (tf.Variable([2.0]), {"a": tf.constant([3])}), None, "text"],
}
OBJECTS = {
    "resource": SCATTERED.handle,
    "variant": tf.raw_ops.TensorListReserve(
        element_shape=[1], num_elements=1, element_dtype=tf.float32
    ),
}
PROTO = tensor_pb2.TensorProto(dtype=1, float_val=[1.0])
TRUE, ONE = tf.constant(True), tf.constant(1)
DATASET = tf.data.Dataset.range(2)
ARRAY = np.zeros(2, np.float32)
ONES = torch.ones(2)
SCALES, ZEROS = torch.tensor([0.5, 0.25, 1.0]), torch.tensor([0, 1, 2])


class NumpyUsed(Exception):
    """Nothing catches it by accident."""

PATCHED = {}

def forbid(owner, name):
    original = inspect.getattr_static(owner, name)
    label = f"{getattr(owner, '__name__', owner)}.{name}"
    def forbidden(*args, **kwargs):
        raise NumpyUsed(label)
    replacement = property(forbidden) if isinstance(original, property) else forbidden
    setattr(owner, name, replacement)
    PATCHED[label] = (owner, name)

# Every public function of NumPy's, and its array type.
for name, value in list(vars(np).items()):
    if not name.startswith("_") and callable(value) and not isinstance(value, type):
        forbid(np, name)
for name in ("array", "asarray", "asanyarray", "ascontiguousarray", "frombuffer", "fromiter",
             "from_dlpack", "copyto", "copy", "zeros", "empty"):
    assert f"numpy.{name}" in PATCHED, name

class ndarray:  # a type: TensorFlow asks what is one
    def __new__(cls, *args, **kwargs):
        raise NumpyUsed("numpy.ndarray")

np.ndarray = ndarray
PATCHED["numpy.ndarray"] = (np, "ndarray")
for owner, names in {
    EagerTensor: ("numpy", "_numpy", "_numpy_internal", "__array__"),
    ops._EagerTensorBase: ("numpy", "_numpy", "__array__"),
    resource_variable_ops.BaseResourceVariable: ("numpy", "__array__"),
    tensor_util: ("MakeNdarray", "make_tensor_proto", "constant_value"),
    tf: ("make_ndarray", "make_tensor_proto", "numpy_function"),
    script_ops: ("numpy_function",),
    tf_dtypes.DType: ("as_numpy_dtype",),
    tf.data.Dataset: ("as_numpy_iterator",),
    torch: ("from_numpy",),
    torch.Tensor: ("numpy", "__array__", "__array_wrap__"),
}.items():
    for name in names:
        forbid(owner, name)


def raises(function):
    try:
        function()
    except NumpyUsed:
        return True
    except Exception as e:
        # TensorFlow and torch may wrap it; they may not succeed.
        while e is not None:
            if isinstance(e, NumpyUsed):
                return True
            e = e.__cause__ or e.__context__
        raise
    return False

def memory(address, size):
    return ctypes.string_at(address, size)

def numpy_calls(function):
    """Names of NumPy's functions, in C or Python, that run while ``function`` does."""
    seen = []
    def profile(frame, event, argument):
        if event == "c_call":
            module = getattr(argument, "__module__", None) or ""
            owner = type(getattr(argument, "__self__", None)).__module__
            if "numpy" in module or "ml_dtypes" in module or owner.startswith("numpy"):
                seen.append(str(argument))
        elif event == "call" and "/numpy/" in frame.f_code.co_filename:
            seen.append(frame.f_code.co_qualname)
    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return seen


def use_everything():
    for interface in INTERFACES:
        for cases in (NUMERIC, VARIABLES):
            for row, value, data in cases:
                ways = [{"raw": True}, {"raw": True, "copy": True}, {"raw": True, "device": "cpu"}]
                if row.kind == "quantized" and row.torch_name:
                    ways += [
                        {"scale": 0.5, "zero_point": 1},
                        {"scale": SCALES, "zero_point": ZEROS, "axis": 1},
                    ]
                if row.kind in ("shared", "viewed", "converted"):
                    ways += [{}, {"copy": True}, {"on_write": "raise"}]
                for options in ways:
                    x = interface.to_torch(value, **options)
                    assert x.shape == (2, 3)
                    explanation = interface.explain(value, **options)
                    assert str(x.dtype) == explanation.torch_dtype
                    assert str(explanation)
                    if explanation.action == "shared":
                        assert shares_memory(value, x)
                        assert memory(torch_data_address(x), len(data)) == data
                    if x.is_quantized:
                        x.fill_(1.0)
                    elif options.get("on_write") != "raise":
                        x.zero_()
                        assert memory(torch_data_address(x), x.nbytes) == bytes(x.nbytes)
                    assert memory(tf_data_address(value), len(data)) == data
        for value in OBJECTS.values():
            try:
                interface.to_torch(value)
            except tensor_bridge.UnsupportedDtypeError:
                assert interface.explain(value).error is tensor_bridge.UnsupportedDtypeError
            else:
                raise AssertionError("converted")
        for wrong in (None, 3, ARRAY, object()):
            try:
                interface.to_torch(wrong)
            except TypeError:
                assert interface.explain(wrong).action == "refused"
            else:
                raise AssertionError("converted")
        x = interface.to_torch(SCATTERED)
        assert x.tolist() == [1.0, 2.0]
        assert "copied by TensorFlow" in interface.explain(SCATTERED).reason
        assert bytes(interface.to_torch(STRINGS).bytes.tolist()) == b"abc" + b"d" * 100
        assert interface.to_torch(STRINGS, strings="list") == [[b"a", b"bc"], [b"", b"d" * 100]]
    for name, value in COMPOUND.items():
        x = tensor_bridge.to_torch(value)
        assert str(tensor_bridge.explain(value))
        if name != "sparse":
            tensor_bridge.to_tf(x)
    assert len(tensor_bridge.dtypes()) > 30
'''

CLAIMS = {
    "each replaced function raises": """
        for label, (owner, name) in PATCHED.items():
            static = inspect.getattr_static(owner, name)
            call = static.fget if isinstance(static, property) else getattr(owner, name)
            assert raises(lambda: call(None)), label
        assert len(PATCHED) > 400
        """,
    "the ways that people take today raise": """
        row, t, data = NUMERIC[0]
        v = VARIABLES[0][1]
        ways = {
            "t.numpy()": lambda: t.numpy(),
            "t._numpy()": lambda: t._numpy(),
            "np.asarray(t)": lambda: np.asarray(t),
            "np.array(t)": lambda: np.array(t),
            "v.numpy()": lambda: v.numpy(),
            "bool(t)": lambda: bool(TRUE),
            "int(t)": lambda: int(ONE),
            "repr(t)": lambda: repr(t),
            "make_ndarray": lambda: tf.make_ndarray(PROTO),
            "as_numpy_dtype": lambda: t.dtype.as_numpy_dtype,
            "as_numpy_iterator": lambda: DATASET.as_numpy_iterator(),
            "torch.from_numpy": lambda: torch.from_numpy(ARRAY),
            "x.numpy()": lambda: ONES.numpy(),
            "np.asarray(x)": lambda: np.asarray(ONES),
            "x.__array__()": lambda: ONES.__array__(),
            "the NumPy hop": lambda: torch.from_numpy(t.numpy()),
        }
        for name, way in ways.items():
            assert raises(way), f"{name} still works, so the test would show nothing"
        """,
    "the whole API works for every dtype": """
        use_everything()
        gc.collect()
        assert live_owners() == 0
        """,
    # Delete this, and the exception in use_everything, when TensorFlow's constructor no longer
    # does.
    "TensorFlow's SparseTensor reads its own shape through NumPy": """
        parts = [tf.zeros([1, 2], tf.int64), tf.zeros([1]), tf.ones([2], tf.int64)]
        assert raises(lambda: tf.SparseTensor(*parts))
        x = tensor_bridge.to_torch(COMPOUND["sparse"])
        assert raises(lambda: tensor_bridge.to_tf(x))
        del x
        """,
    "to_tf works for every dtype": """
        for interface in INTERFACES:
            for row, t, data in NUMERIC:
                if row.kind == "shared":
                    x = interface.to_torch(t, copy=True)
                    again = interface.to_tf(x)
                    assert again.dtype == t.dtype
                    assert memory(tf_data_address(again), len(data)) == data
                    del x, again
        gc.collect()
        assert live_owners() == 0
        """,
    "no function of NumPy's runs at all": """
        assert numpy_calls(lambda: ARRAY.tolist()), "the detection sees nothing"
        assert numpy_calls(use_everything) == []
        gc.collect()
        assert live_owners() == 0
        """,
}


test_while_numpy_raises = claims_test(PRELUDE, CLAIMS)
