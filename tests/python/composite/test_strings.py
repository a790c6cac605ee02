"""Strings: TensorFlow's string tensors as StringTensor and as lists, and back."""

from __future__ import annotations

import copy
import gc
import pickle
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import torch
from fresh import run_forked, run_python
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import assert_refused
from sharing import nothing_kept, numbers

import tensor_bridge
from tensor_bridge import StringTensor
from tensor_bridge.testing import live_owners, shares_memory, tf_data_address, torch_data_address

# Sizes around the limits of TensorFlow's forms (22 bytes are inline) and of ours.
SIZES = (0, 1, 15, 16, 17, 21, 22, 23, 24, 31, 33, 63, 64, 65, 129, 1000, 100_000)
TEXTS = [bytes((i * 7 + size) % 256 for i in range(size)) for size in SIZES]
ODD = [b"", b"\0", b"\0a\0\0b\0", b"\xff\xfe\x80", "naïve ☃ \U0001f600".encode()]

TENSORS = {
    "scalar": tf.constant("text"),
    "empty scalar": tf.constant(b""),
    "large scalar": tf.constant(b"x" * 1000),
    "sizes": tf.constant(TEXTS),
    "odd": tf.constant(ODD),
    "matrix": tf.constant([[b"a", b"bc", b""], [b"d" * 22, b"e" * 23, b"f"]]),
    "deep": tf.reshape(tf.constant([str(i) * i for i in range(24)]), (2, 3, 1, 4)),
    "rank 9": tf.reshape(tf.constant([b"a", b"b" * 30]), (1, 1, 1, 2, 1, 1, 1, 1, 1)),
    "nothing": tf.constant([], tf.string),
    "no rows": tf.zeros((0, 3), tf.string),
    "no columns": tf.zeros((2, 0, 3), tf.string),
    "all empty": tf.fill((3, 2), ""),
    "slice": tf.constant([str(i) * 30 for i in range(20)])[3:17],
    "many": tf.strings.as_string(tf.range(10_000)),
}

tensors = pytest.mark.parametrize("t", TENSORS.values(), ids=TENSORS.keys())


def expected(t: tf.Tensor) -> Any:
    """The strings from NumPy."""
    value = t.numpy()
    return value.tolist() if isinstance(value, np.ndarray) else value


def as_array(x: StringTensor) -> np.ndarray:
    """An object array of the same strings, for NumPy's own indexing."""
    array = np.empty(x.numel(), object)
    array[:] = x.to_bytes()
    return array.reshape(tuple(x.shape))


# ---- to torch ------------------------------------------------------------------------------------


@tensors
def test_a_string_tensor_becomes_bytes_and_offsets(t: tf.Tensor, interface: Any) -> None:
    with nothing_kept():
        x = interface.to_torch(t)
        assert type(x) is StringTensor
        assert x.shape == tuple(t.shape)
        assert isinstance(x.shape, torch.Size)
        assert x.bytes.dtype is torch.uint8
        assert x.offsets.dtype is torch.int64
        flat = [expected(t)] if not t.shape.rank else t.numpy().ravel().tolist()
        assert bytes(x.bytes.tolist()) == b"".join(flat)
        assert x.offsets.tolist() == [0, *np.cumsum([len(s) for s in flat], dtype=int).tolist()]
        assert x.tolist() == expected(t)


@tensors
def test_and_nested_lists(t: tf.Tensor, interface: Any) -> None:
    with nothing_kept():
        assert interface.to_torch(t, strings="list") == expected(t)
        assert repr(interface.to_torch(t, strings="list")) == repr(expected(t))


@tensors
def test_and_comes_back(t: tf.Tensor, interface: Any) -> None:
    with nothing_kept():
        again = interface.to_tf(interface.to_torch(t))
        assert again.dtype == tf.string
        assert again.shape == t.shape
        assert expected(again) == expected(t)
        assert "CPU:0" in again.backing_device


def test_the_result_is_torchs_own() -> None:
    t = tf.constant([b"abc", b"d" * 100])
    before = live_owners()
    x = tensor_bridge.to_torch(t)
    assert live_owners() == before
    for tensor in (x.bytes, x.offsets):
        assert tensor.is_contiguous()
        assert tensor.is_leaf
        assert not tensor.requires_grad
        assert not tensor.is_inference()
        address = torch_data_address(tensor)
        tensor.add_(0)
        assert torch_data_address(tensor) == address, "a write does not move it"
        assert tensor.untyped_storage().nbytes() == tensor.nbytes
        tensor.resize_(tensor.shape[0] + 10)  # an ordinary storage
    assert expected(t) == [b"abc", b"d" * 100]


def test_each_shape_is_the_tensors_own() -> None:
    shapes = [(), (3,), (3,), (0,), (1, 3), (3, 1), (), (2, 0, 5)]
    tensors = [tf.fill(shape, b"text") for shape in shapes]
    for made in ([tensor_bridge.to_torch(t) for t in tensors], tensor_bridge.to_torch(tensors)):
        for x, shape in zip(made, shapes, strict=True):
            assert type(x.shape) is torch.Size
            assert x.shape == shape


def test_under_modes_that_change_what_torch_makes() -> None:
    t = TENSORS["matrix"]
    try:
        torch.set_default_device("meta")
        x = tensor_bridge.to_torch(t)
        made = StringTensor.from_list(expected(t))
    finally:
        torch.set_default_device(None)
    assert x.device.type == made.device.type == "cpu"
    assert x == made
    with torch.inference_mode():
        x = tensor_bridge.to_torch(t)
        assert x.bytes.is_inference()
        assert x.tolist() == expected(t)


def test_options(interface: Any) -> None:
    t = TENSORS["matrix"]
    for options in ({"copy": True}, {"copy": None}, {"device": "cpu"}, {"raw": True}):
        assert interface.to_torch(t, **options) == interface.to_torch(t)
    for on_write in ("copy", "raise", "alias"):
        x = interface.to_torch(t, on_write=on_write)
        x.bytes.zero_()  # a copy, which needs no protection
    assert_refused(interface, t, tensor_bridge.CopyRequiredError, "Use copy=None", copy=False)
    assert_refused(
        interface, t, tensor_bridge.CopyRequiredError, "Use copy=None", copy=False, strings="list"
    )
    for bad in ({"scale": 1.0, "zero_point": 0}, {"axis": 0}):
        assert_refused(interface, t, tensor_bridge.InvalidOptionError, "scale", **bad)
    assert_refused(interface, t, tensor_bridge.InvalidOptionError, "strings", strings="bytes")
    assert_refused(interface, t, tensor_bridge.InvalidOptionError, "strings", strings=None)
    if not torch.cuda.is_available():
        assert_refused(interface, t, tensor_bridge.UnsupportedDeviceError, "cuda", device="cuda")


def test_the_keyword_leaves_other_tensors_alone(interface: Any) -> None:
    t = numbers()
    assert shares_memory(t, interface.to_torch(t, strings="list"))


@pytest.mark.gpu
def test_onto_a_gpu_and_back() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    t = TENSORS["deep"]
    x = tensor_bridge.to_torch(t, device="cuda")
    assert x.bytes.is_cuda
    assert x.offsets.is_cuda
    assert x.tolist() == expected(t)
    assert x[0, 1].to("cpu").tolist() == expected(t)[0][1]
    assert x == tensor_bridge.to_torch(t)
    assert expected(tensor_bridge.to_tf(x)) == expected(t)


def test_explain(interface: Any) -> None:
    t = TENSORS["matrix"]
    x = interface.to_torch(t)
    e = interface.explain(t)
    assert (e.action, e.kind) == ("copied", "string")
    assert (e.tf_dtype, e.torch_dtype) == ("string", "torch.uint8")
    assert (e.shape, e.nbytes, e.device, e.on_write) == ((2, 3), x.nbytes, "cpu", None)
    assert "StringTensor" in str(e)
    e = interface.explain(t, strings="list")
    assert (e.action, e.torch_dtype, e.nbytes, e.shape) == ("copied", None, None, (2, 3))
    assert "lists of bytes" in str(e)
    for bad in ({"copy": False}, {"strings": "x"}, {"scale": 1.0, "zero_point": 0}):
        assert interface.explain(t, **bad).action == "refused"


def test_explain_to_tf() -> None:
    x = tensor_bridge.to_torch(TENSORS["matrix"])
    bridge = tensor_bridge.TensorBridge()
    e = tensor_bridge.explain(x)
    assert e == bridge.explain_to_tf(x)
    assert (e.action, e.kind, e.tf_dtype, e.shape) == ("copied", "string", "string", (2, 3))
    assert e.device == "CPU:0"
    assert tensor_bridge.explain(x, copy=False).error is tensor_bridge.CopyRequiredError
    assert bridge.explain_to_tf(x, copy=False).error is tensor_bridge.CopyRequiredError
    x = StringTensor(x.bytes, x.offsets.flip(0))
    assert tensor_bridge.explain(x).error is tensor_bridge.ValueRangeError
    assert bridge.explain_to_tf(x).error is tensor_bridge.ValueRangeError


def test_variables() -> None:
    v = tf.Variable([["a", "b" * 50]])
    x = tensor_bridge.to_torch(v)
    assert x.tolist() == [[b"a", b"b" * 50]]
    v.assign([["c", "d"]])
    assert x.tolist() == [[b"a", b"b" * 50]]
    assert tensor_bridge.to_torch(v, strings="list") == [[b"c", b"d"]]


def test_inside_structures() -> None:
    t = TENSORS["matrix"]
    tree = {"words": t, "plain": [b"bytes", "str", 1], "number": tf.constant(2.0)}
    x = tensor_bridge.to_torch(tree)
    assert x["words"].tolist() == expected(t)
    assert x["plain"] == tree["plain"]
    again = tensor_bridge.to_tf(x)
    assert expected(again["words"]) == expected(t)
    assert again["plain"] == tree["plain"]
    assert tensor_bridge.to_torch(tree, strings="list")["words"] == expected(t)
    with pytest.raises(tensor_bridge.CopyRequiredError, match="words"):
        tensor_bridge.to_torch(tree, copy=False)


# ---- memory --------------------------------------------------------------------------------------

MEMORY = """
import gc

def status(name):
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith(name))

def peak(call):
    '''What a call adds at most, while it runs and after it.'''
    gc.collect()
    with open("/proc/self/clear_refs", "w") as f:
        f.write("5")
    before = status("VmRSS")
    result = call()
    return status("VmHWM") - before, result

tensor_bridge.to_torch(tf.constant(["warm"]))
"""


@pytest.mark.parametrize("size", [8, 22, 40, 200])
def test_memory_stays_below_one_fifth_more_than_the_result(size: int) -> None:
    run_forked(
        f"""{MEMORY}
t = tf.fill([1_000_000], "x" * {size})
t = tf.strings.join([t, ""])
added, x = peak(lambda: tensor_bridge.to_torch(t))
assert x.nbytes == 1_000_000 * {size} + 8 * 1_000_001
assert added < 1.2 * x.nbytes, (added, x.nbytes)
"""
    ).check()


def test_what_tensorflow_got_is_freed_again() -> None:
    run_forked(
        f"""{MEMORY}
x = tensor_bridge.to_torch(tf.fill([200_000], "x" * 100))
for _ in range(3):
    tensor_bridge.to_tf(x)
gc.collect()
before = status("VmRSS")
for _ in range(20):
    tensor_bridge.to_tf(x)
gc.collect()
grown = status("VmRSS") - before
assert grown < 100_000_000, grown  # one of them is 27 MB
"""
    ).check()


# ---- in TensorFlow -------------------------------------------------------------------------------


def test_tensorflow_computes_with_what_it_got() -> None:
    """Copies of the elements outlive the tensor, because they do not refer to its memory."""
    words = [b"a", b"b" * 22, b"c" * 23, b"d" * 500, b""]
    t = tensor_bridge.to_tf(StringTensor.from_list(words))
    pieces = [words[0], b"z" * 40, words[2], b"z" * 40, words[4]]
    results = [
        (tf.gather(t, [3, 2, 1]), [words[3], words[2], words[1]]),
        (tf.concat([t, t], 0), words * 2),
        (tf.identity(t), words),
        (tf.reverse(t, [0]), words[::-1]),
        (tf.reshape(t, (5, 1)), [[word] for word in words]),
        (tf.strings.upper(t), [word.upper() for word in words]),
        (tf.where([True, False, True, False, True], t, "z" * 40), pieces),
        (tf.Variable(t), words),
        (t[1:4], words[1:4]),
        (tf.stack([t, t]), [words, words]),
    ]
    stored = list(tf.data.Dataset.from_tensor_slices(t).cache())
    array = tf.TensorArray(tf.string, 5).unstack(t)
    del t
    gc.collect()
    clutter = [b"#" * 500] * 10_000  # overwrites freed memory
    for result, right in results:
        assert expected(result) == right
    assert [s.numpy() for s in stored] == words
    assert expected(array.stack()) == words
    assert len(clutter) == 10_000


def test_tensorflow_writes_into_what_it_got() -> None:
    """An op that replaces elements in place frees each string separately."""
    words = [b"c" * 23, b"d" * 500, b"e"]
    t = tensor_bridge.to_tf(StringTensor.from_list([[word] for word in words]))
    tf.raw_ops.InplaceUpdate(x=t, i=[0, 2], v=tf.constant([["new" * 20], ["x"]]))
    assert expected(t)[1] == [b"d" * 500]
    v = tf.Variable(tensor_bridge.to_tf(StringTensor.from_list(words)))
    v.scatter_nd_update([[1]], ["f" * 700])
    assert v.numpy().tolist() == [words[0], b"f" * 700, words[2]]


def test_to_tf_has_its_options(interface: Any) -> None:
    x = StringTensor.from_list([["a", "b"]])
    for options in (
        {"copy": True},
        {"dtype": "string"},
        {"dtype": tf.string},
        {"grad": "raise"},
        {"device": "CPU:0"},
        {"device": "cpu"},
    ):
        assert expected(interface.to_tf(x, **options)) == [[b"a", b"b"]]
    with pytest.raises(tensor_bridge.CopyRequiredError, match="Use copy=None"):
        interface.to_tf(x, copy=False)
    with pytest.raises(tensor_bridge.InvalidOptionError, match="string"):
        interface.to_tf(x, dtype=tf.int32)
    with pytest.raises(tensor_bridge.InvalidOptionError, match="grad"):
        interface.to_tf(x, grad="x")
    with pytest.raises(tensor_bridge.UnsupportedDeviceError):
        interface.to_tf(x, device="GPU:7")


def test_as_the_first_call_of_a_process() -> None:
    run_python(
        """
import tensor_bridge
x = tensor_bridge.StringTensor.from_list(["a", "b" * 30])
t = tensor_bridge.to_tf(x)
assert t.numpy().tolist() == [b"a", b"b" * 30]
""",
    ).check()


# ---- StringTensor --------------------------------------------------------------------------------


@tensors
def test_flat_lists(t: tf.Tensor) -> None:
    assert tensor_bridge.to_torch(t).to_bytes() == tf.reshape(t, [-1]).numpy().tolist()


def test_text() -> None:
    x = StringTensor.from_list([["naïve", "☃"], ["", "\0"]])
    assert x.to_str() == [["naïve", "☃"], ["", "\0"]]
    assert StringTensor.from_list("☃").to_str() == "☃"
    assert StringTensor.from_list([]).to_str() == []
    latin = StringTensor.from_list(["naïve", "a"], encoding="latin-1")
    assert latin.to_bytes() == ["naïve".encode("latin-1"), b"a"]
    assert latin.to_str("latin-1") == ["naïve", "a"]
    assert latin.to_str(errors="replace") == ["na\N{REPLACEMENT CHARACTER}ve", "a"]
    assert latin.to_str(errors="surrogateescape") == ["na\udcefve", "a"]
    assert latin.to_str("ascii", "ignore") == ["nave", "a"]
    assert StringTensor.from_list(["ab"], encoding="utf-16").to_str("utf-16") == ["ab"]
    with pytest.raises(UnicodeDecodeError):
        latin.to_str()
    with pytest.raises(LookupError):
        latin.to_str("no-such-encoding")
    with pytest.raises(LookupError):
        latin.to_str(errors="no-such-handler")
    with pytest.raises(UnicodeEncodeError):
        StringTensor.from_list(["☃"], encoding="ascii")


INDEXES: list[Any] = [
    0,
    -1,
    slice(None),
    slice(1, 2),
    slice(1, None),
    slice(2, 1),
    slice(-1, None),
    slice(None, None, 2),
    (0, 1),
    (1, 2, 0, 3),
    (slice(None), 1),
    (slice(None), slice(0, 3, 2)),
    (..., 0),
    (None, 0),
    None,
    ...,
    (),
    [1, 0, 1],
    ([0, 1], [2, 0]),
    (slice(None), [True, False, True]),
]


@pytest.mark.parametrize("index", INDEXES, ids=repr)
def test_indexing_is_numpys(index: Any) -> None:
    x = tensor_bridge.to_torch(TENSORS["deep"])
    wanted = as_array(x)[index]
    found = x[index]
    if isinstance(wanted, bytes):
        assert found == wanted
    else:
        assert found.shape == wanted.shape
        assert found.tolist() == wanted.tolist()
    # The same for a slice whose offsets do not begin at 0.
    if found is not x and isinstance(found, StringTensor) and found.ndim > 1 and len(found) > 0:
        assert tensor_bridge.StringTensor.from_list(found[-1].tolist()) == found[-1]


def test_indexing_with_tensors() -> None:
    x = tensor_bridge.to_torch(TENSORS["sizes"])
    mask = torch.tensor([len(text) > 16 for text in TEXTS])
    assert x[mask].to_bytes() == [text for text in TEXTS if len(text) > 16]
    order = torch.randperm(len(TEXTS))
    assert x[order].to_bytes() == [TEXTS[i] for i in order.tolist()]
    assert x[torch.tensor(2)] == TEXTS[2]
    assert x[~mask & mask].to_bytes() == []


def test_parts_share_the_bytes() -> None:
    x = tensor_bridge.to_torch(TENSORS["deep"])
    assert x[1].bytes is x.bytes
    assert x[0:1].bytes is x.bytes
    assert x.reshape(-1).bytes is x.bytes
    assert x.reshape(6, 4).offsets is x.offsets


def test_indexing_that_fails() -> None:
    x = StringTensor.from_list(["a", "b"])
    for index in (2, -3, (0, 0), [5]):
        with pytest.raises(IndexError):
            x[index]
    with pytest.raises(IndexError, match="index -3 is out of range for 2 strings"):
        x[-3]
    with pytest.raises(IndexError):
        StringTensor.from_list("a")[0]
    assert StringTensor.from_list("a")[()] == b"a"


def test_length_iteration_and_membership() -> None:
    x = StringTensor.from_list([["a", "b"], ["c", "d"], ["e", "f"]])
    assert len(x) == 3
    assert [row.to_bytes() for row in x] == [[b"a", b"b"], [b"c", b"d"], [b"e", b"f"]]
    assert list(x[1]) == [b"c", b"d"]
    assert b"d" in x[1]
    assert x.numel() == 6
    assert x.ndim == 2
    scalar = StringTensor.from_list(b"s")
    assert scalar.item() == b"s"
    assert StringTensor.from_list([["s"]]).item() == b"s"
    for call in (len, iter, list):
        with pytest.raises(TypeError):
            call(scalar)
    for wrong in (x, StringTensor.from_list([])):
        with pytest.raises(tensor_bridge.MismatchError, match="one string"):
            wrong.item()


def test_reshape() -> None:
    x = StringTensor.from_list(list("abcdef"))
    assert x.reshape(2, 3).tolist() == [[b"a", b"b", b"c"], [b"d", b"e", b"f"]]
    assert x.reshape((3, -1)).shape == (3, 2)
    assert x.reshape(torch.Size([6, 1])).shape == (6, 1)
    assert x[:1].reshape(()).tolist() == b"a"
    assert x[:0].reshape(0, 5).shape == (0, 5)
    for wrong in ((4,), (-1, 4), (2, 2)):
        with pytest.raises(tensor_bridge.MismatchError):
            x.reshape(*wrong)


def test_equality() -> None:
    x = StringTensor.from_list([["a", "bc"], ["", "d"]])
    assert x == StringTensor.from_list([[b"a", b"bc"], [b"", b"d"]])
    assert x == tensor_bridge.to_torch(tensor_bridge.to_tf(x))
    assert x[1] == StringTensor.from_list(["", "d"]), "the offsets begin elsewhere"
    assert x != StringTensor.from_list([["a", "b"], ["c", "d"]]), "the same bytes"
    assert x != x.reshape(-1)
    assert x != x.tolist()
    assert StringTensor.from_list([]) == StringTensor.from_list([])
    with pytest.raises(TypeError):
        hash(x)


def test_repr() -> None:
    assert repr(StringTensor.from_list("a")) == "StringTensor(b'a')"
    assert repr(StringTensor.from_list([["a"], ["b"]])) == "StringTensor([[b'a'], [b'b']])"
    assert repr(StringTensor.from_list([])) == "StringTensor([])"
    many = StringTensor.from_list([str(i) for i in range(1000)])
    assert repr(many) == "StringTensor([b'0', b'1', b'2', ...], shape=(1000,))"
    long = StringTensor.from_list(["x" * 100_000, "y"])
    assert repr(long) == f"StringTensor([b'{'x' * 37}...', b'y'], shape=(2,))"
    lying = StringTensor(torch.zeros(3, dtype=torch.uint8), torch.tensor([0, 9]))
    assert "do not descend" in repr(lying)


def test_copies() -> None:
    x = tensor_bridge.to_torch(TENSORS["matrix"])
    for again in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x), copy.copy(x), x.to("cpu")):
        assert type(again) is StringTensor
        assert again == x
        assert again.shape == x.shape


def test_from_list() -> None:
    for nested in ("a", b"a", [], [[]], [[], []], ["a", b"b"], (("a",), ["b"]), [[["a"] * 2] * 3]):
        x = StringTensor.from_list(nested)
        assert x.shape == np.array(nested, object).shape
    assert StringTensor.from_list([bytearray(b"x"), "y"]).to_bytes() == [b"x", b"y"]
    for ragged in ([["a"], "b"], ["a", ["b"]], [["a"], ["b", "c"]], [["a"], []]):
        with pytest.raises((tensor_bridge.MismatchError, tensor_bridge.UnsupportedTypeError)):
            StringTensor.from_list(ragged)
    for wrong in (1, None, [1], ["a", None], [["a", 1.0]], {"a": 1}, [torch.zeros(1)]):
        with pytest.raises(tensor_bridge.UnsupportedTypeError, match="expected bytes"):
            StringTensor.from_list(wrong)


def test_tensors_of_ones_own() -> None:
    data = torch.tensor(list(b"abcdef"), dtype=torch.uint8)
    x = StringTensor(data, torch.tensor([0, 2, 6]))
    assert x.tolist() == [b"ab", b"cdef"]
    assert x.shape == (2,)
    wide = torch.stack([data, torch.zeros_like(data)], 1)[:, 0]
    offsets = torch.tensor([[1, 9], [3, 9], [3, 9], [6, 9]])[:, 0]
    assert not wide.is_contiguous()
    x = StringTensor(wide, offsets, (3, 1))
    assert x.tolist() == [[b"bc"], [b""], [b"def"]]
    assert expected(tensor_bridge.to_tf(x)) == x.tolist()
    parameter = torch.nn.Parameter(data, requires_grad=False)
    assert StringTensor(parameter, torch.tensor([0, 6])).item() == b"abcdef"


def test_reading_materializes_nothing() -> None:
    """The bytes may be a tensor over TensorFlow's memory."""
    t = tf.constant(list(b"abcdef"), tf.uint8)
    data = tensor_bridge.to_torch(t)
    x = StringTensor(data, torch.tensor([0, 2, 6]))
    assert x.tolist() == [b"ab", b"cdef"]
    assert x.to_str() == ["ab", "cdef"]
    assert expected(tensor_bridge.to_tf(x)) == [b"ab", b"cdef"]
    assert x[1] == b"cdef"
    assert shares_memory(t, data)


def test_parts_that_do_not_fit() -> None:
    data = torch.zeros(4, dtype=torch.uint8)
    offsets = torch.tensor([0, 2, 4])
    cases: list[tuple[Any, Any, Any, type[Exception]]] = [
        (b"abcd", offsets, None, tensor_bridge.UnsupportedTypeError),
        (data, [0, 2, 4], None, tensor_bridge.UnsupportedTypeError),
        (data.to(torch.int8), offsets, None, tensor_bridge.UnsupportedDtypeError),
        (data, offsets.to(torch.int32), None, tensor_bridge.UnsupportedDtypeError),
        (data.reshape(2, 2), offsets, None, tensor_bridge.MismatchError),
        (data, offsets.reshape(3, 1), None, tensor_bridge.MismatchError),
        (data, offsets[:0], None, tensor_bridge.MismatchError),
        (data, offsets, (3,), tensor_bridge.MismatchError),
        (data, offsets, (1, 3), tensor_bridge.MismatchError),
        (data, offsets, (-1, -2), tensor_bridge.MismatchError),
        (data, offsets, (), tensor_bridge.MismatchError),
        (data, offsets.to("meta"), None, tensor_bridge.MismatchError),
    ]
    for bytes_, ends, shape, error in cases:
        with pytest.raises(error) as caught:
            StringTensor(bytes_, ends, shape)
        assert isinstance(caught.value, tensor_bridge.TensorBridgeError)


LIES = [
    [0, 3, 2, 6],
    [-1, 2, 3, 6],
    [0, 2, 3, 7],
    [0, 2**62, 3, 6],
    [0, -(2**63), 3, 6],
    [6, 4, 2, 0],
    [0, 7, 7, 7],
    [2**63 - 1, 0, 1, 2],
]


@pytest.mark.parametrize("offsets", LIES, ids=str)
def test_offsets_that_lie_are_never_followed(offsets: list[int]) -> None:
    x = StringTensor(torch.tensor(list(b"abcdef"), dtype=torch.uint8), torch.tensor(offsets))
    bridge = tensor_bridge.TensorBridge()
    uses: list[Any] = [
        x.tolist,
        x.to_bytes,
        x.to_str,
        lambda: tensor_bridge.to_tf(x),
        lambda: bridge.to_tf(x),
        lambda: list(x),
        lambda: [x[i] for i in range(3)],
        lambda: x[torch.tensor([0, 1, 2])],
        lambda: x.reshape(3, 1).tolist(),
    ]
    for use in uses:
        with pytest.raises(tensor_bridge.ValueRangeError, match="do not descend"):
            use()
    assert isinstance(repr(x), str)
    assert x != StringTensor.from_list(["a", "b", "c"])
    assert tensor_bridge.explain(x).action == "refused"


def test_tensors_that_change_after_they_were_checked() -> None:
    x = StringTensor.from_list(["ab", "cd"])
    x.offsets[1] = 100
    with pytest.raises(tensor_bridge.ValueRangeError):
        x.tolist()
    x.offsets[1] = 2
    x.bytes.resize_(3)
    with pytest.raises(tensor_bridge.ValueRangeError):
        tensor_bridge.to_tf(x)
    x.offsets.resize_(2)
    with pytest.raises(tensor_bridge.TensorBridgeError):
        x.tolist()


def test_values_without_memory_are_refused() -> None:
    x = StringTensor.from_list(["ab", "cd"]).to("meta")
    for use in (
        x.tolist,
        lambda: tensor_bridge.to_tf(x),
        lambda: tensor_bridge.TensorBridge().to_tf(x),
    ):
        with pytest.raises(tensor_bridge.UnsupportedTypeError, match="dense"):
            use()
    assert isinstance(repr(x), str)


def test_other_tensors_are_no_strings() -> None:
    from tensor_bridge import _C

    for function in (_C.strings_to_torch, _C.tf_strings_list, _C.explain_strings_to_torch):
        with pytest.raises(tensor_bridge.UnsupportedDtypeError, match="float32"):
            function(numbers())
        with pytest.raises(tensor_bridge.UnsupportedTypeError):
            function(1)
    with pytest.raises(TypeError):
        _C.torch_strings_list(1, 2, (), None, "strict")


# ---- by property ---------------------------------------------------------------------------------

TEXT = st.one_of(
    st.binary(max_size=4),
    st.binary(max_size=70),
    st.integers(0, 3000).map(lambda n: bytes(i % 251 for i in range(n))),
)


@st.composite
def arrays(draw: Any) -> tf.Tensor:
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    count = int(np.prod(shape))
    texts = draw(st.lists(TEXT, min_size=count, max_size=count))
    return tf.reshape(tf.constant(texts, tf.string, [count]), shape)


@given(t=arrays())
@settings(max_examples=150, deadline=None)
def test_every_string_makes_the_round_trip(t: tf.Tensor) -> None:
    x = tensor_bridge.to_torch(t)
    assert x.tolist() == expected(t)
    assert tensor_bridge.to_torch(t, strings="list") == expected(t)
    again = tensor_bridge.to_tf(x)
    assert again.shape == t.shape
    assert expected(again) == expected(t)
    assert tensor_bridge.to_torch(again) == x
    assert StringTensor.from_list(x.to_bytes()).reshape(tuple(x.shape)) == x
    if x.numel():
        assert x.reshape(-1)[::2].to_bytes() == x.to_bytes()[::2]


def test_no_address_is_shared() -> None:
    t = tf.constant(["a" * 100])
    x = tensor_bridge.to_torch(t)
    with pytest.raises(tensor_bridge.UnsupportedDtypeError):
        tf_data_address(t)
    assert torch_data_address(x.bytes) != torch_data_address(x.offsets)
