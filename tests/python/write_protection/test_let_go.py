"""If TensorFlow has released a buffer, torch owns it: the first write neither copies nor moves.

Every possible holder is tried on both sides: while it holds the buffer, a write moves torch; after
it is gone, a write happens in place.
"""

from __future__ import annotations

import atexit
import functools
import gc
import itertools
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import needs
import numpy as np
import pytest
import tensorflow as tf
import torch
from sharing import from_bytes, nothing_kept, numbers, owners, plain, tf_bytes, torch_bytes
from writes import WAYS, WRITES

import tensor_bridge
from tensor_bridge.testing import tf_data_address, torch_data_address

pytestmark = needs.takes_over

# Many pages, so that no allocator puts other memory on them.
LARGE = 1 << 15
DLPACK = tf.experimental.dlpack


def stays(x: torch.Tensor) -> bool:
    """Writes to `x`, checks its values, and returns whether it has not moved."""
    expected, before = plain(x), torch_data_address(x)
    for tensor in (x, expected):
        tensor.logical_not_() if tensor.dtype == torch.bool else tensor.add_(1)
    assert torch_bytes(x) == torch_bytes(expected)
    return torch_data_address(x) == before


# --- makers of tensors ---------------------------------------------------------------------------


def slope(of: Callable[[tf.Variable], tf.Tensor]) -> tf.Tensor:
    v = tf.Variable(tf.fill((LARGE,), 2.0))
    with tf.GradientTape() as tape:
        y = of(v)
    return tape.gradient(y, v)


def first(dataset: tf.data.Dataset) -> Any:
    return next(iter(dataset))


def rows(count: int = 4) -> tf.Tensor:
    return numbers((count, 1024))


@tf.function
def doubled(t: tf.Tensor) -> tf.Tensor:
    return t * 2


@tf.function(jit_compile=True)
def compiled(t: tf.Tensor) -> tf.Tensor:
    return t * 2 + 1


def of_a_model() -> tf.Tensor:
    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(1024)])
    return model(tf.ones((4, 16)))


def looped() -> tf.Tensor:
    array = tf.TensorArray(tf.float32, size=4, element_shape=(1024,))
    for i in range(4):
        array = array.write(i, tf.fill((1024,), float(i)))
    return array.stack()


LET_GO: dict[str, Callable[[], tf.Tensor]] = {
    "op": numbers,
    "large op": lambda: numbers((1024, 64)),
    "scalar op": lambda: tf.reduce_sum(numbers()),
    "list constant": lambda: tf.constant([[1.0, 2.0], [3.0, 4.0]]),
    "zeros": lambda: tf.zeros((4, 6)),
    "ones": lambda: tf.ones((4, 6)),
    "random": lambda: tf.random.stateless_uniform((4, 6), (1, 2)),
    "tf.function": lambda: doubled(numbers()),
    "compiled function": lambda: compiled(numbers()),
    "Keras model": of_a_model,
    "gradient": lambda: slope(lambda v: v * v),
    "reshape of a temporary": lambda: tf.reshape(numbers(), (-1,)),
    "slice of a temporary": lambda: rows()[1:3],
    "row of a temporary": lambda: tf.unstack(rows())[2],
    "part of a split temporary": lambda: tf.split(rows(), 2)[1],
    "element of map": lambda: first(tf.data.Dataset.range(3).map(lambda i: tf.fill((64,), i))),
    "element of batch": lambda: first(tf.data.Dataset.range(64).batch(32)),
    "element of slices": lambda: first(tf.data.Dataset.from_tensor_slices(rows())),
    "element of prefetch": lambda: first(tf.data.Dataset.range(64).batch(32).prefetch(2)),
    "element of shuffle": lambda: first(tf.data.Dataset.range(64).shuffle(64, 1).batch(32)),
    "parsed": lambda: tf.io.decode_raw(tf.constant(bytes(4096)), tf.float32),
    "parsed tensor": lambda: tf.io.parse_tensor(tf.io.serialize_tensor(numbers()), tf.float32),
    "py_function": lambda: tf.py_function(lambda: tf.ones((64,)), [], tf.float32),
    "map_fn": lambda: tf.map_fn(lambda row: row + 1, rows()),
    "while loop": looped,
    "read of a variable that is gone": lambda: tf.Variable(numbers()).read_value(),
    "values of a ragged tensor": lambda: tf.RaggedTensor.from_row_lengths(numbers(), [1, 3]).values,
    "values of a sparse tensor": lambda: tf.sparse.from_dense(numbers()).values,
}

CACHED = tf.data.Dataset.from_tensors(tf.zeros((1024,))).map(tf.abs).cache()
FOR_CAPTURE = numbers()
VARIABLE = tf.Variable(numbers())
ALIVE = numbers((4, 1024))


def aligned_array() -> Any:
    """An array whose own memory TensorFlow can use, because it is aligned to 64 bytes by chance."""
    made = []
    while not made or made[-1].ctypes.data % 64:
        made.append(np.zeros(1024 + 4 * len(made), np.float32))
    return made[-1]


MEMORY = aligned_array()
TORCH_MEMORY = torch.arange(4096.0).reshape(4, 1024)


@tf.function(autograph=False)
def constant() -> tf.Tensor:
    return tf.constant([1.0, 2.0, 3.0])


@tf.function(autograph=False)
def captured() -> tf.Tensor:
    return tf.identity(FOR_CAPTURE)


def seed() -> tf.Tensor:
    v = tf.Variable(3.0)
    with tf.GradientTape() as tape:
        y = tf.identity(v)
    return tape.gradient(y, v)


@tf.function(autograph=False)
def numpy_function() -> tf.Tensor:
    return tf.numpy_function(lambda: MEMORY, [], tf.float32)


def of_numpy_function() -> tf.Tensor:
    t = numpy_function()
    assert tf_data_address(t) == MEMORY.ctypes.data
    return t


def of_dlpack() -> tf.Tensor:
    t = tf.experimental.dlpack.from_dlpack(MEMORY.__dlpack__())
    assert tf_data_address(t) == MEMORY.ctypes.data
    return t


def of_cache() -> tf.Tensor:
    list(CACHED)
    return first(CACHED)


@functools.cache
def mapped_file() -> str:
    """A file that is too large for constant folding, so that TensorFlow maps it read-only."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    path = Path(folder.name) / "zeros"
    with path.open("wb") as f:
        f.truncate(16 << 20)
    return str(path)


def mapped() -> tf.Tensor:
    return tf.raw_ops.ImmutableConst(
        dtype=tf.float32, shape=[4 << 20], memory_region_name=mapped_file()
    )


KEPT: dict[str, Callable[[], tf.Tensor]] = {
    "scalar constant": lambda: tf.constant(5.0),
    "identity of a scalar": lambda: tf.identity(1.0),
    "reshape of a scalar": lambda: tf.reshape(0.5, [1]),
    "boolean constant": lambda: tf.constant(True),
    "gradient seed": seed,
    "reshape of what lives": lambda: tf.reshape(ALIVE, (-1,)),
    "identity of what lives": lambda: tf.identity(ALIVE),
    "slice of what lives": lambda: ALIVE[1:3],
    "row of what lives": lambda: tf.unstack(ALIVE)[2],
    "a variable's value": VARIABLE.read_value,
    "constant of a function": constant,
    "captured by a function": captured,
    "element of cache": of_cache,
    "memory of NumPy": of_dlpack,
    "array of a numpy_function": of_numpy_function,
    "memory of torch": lambda: tensor_bridge.to_tf(torch.arange(64.0)),
    "mapped file": mapped,
    "slice of a mapped file": lambda: mapped()[1 << 20 : 2 << 20],
    # After the whole tensor is gone, TensorFlow says that these slices own their memory.
    "slice of NumPy's": lambda: of_dlpack()[64:128],
    "slice of a numpy_function's": lambda: of_numpy_function()[64:128],
    "slice of torch's": lambda: tensor_bridge.to_tf(TORCH_MEMORY)[1:3],
    "slice of a slice of torch's": lambda: tensor_bridge.to_tf(TORCH_MEMORY)[1:][1:],
    "row of torch's": lambda: tf.unstack(tensor_bridge.to_tf(TORCH_MEMORY))[2],
    "split of torch's": lambda: tf.split(tensor_bridge.to_tf(TORCH_MEMORY), 2)[1],
    "reshaped row of torch's": lambda: tf.reshape(tensor_bridge.to_tf(TORCH_MEMORY)[3], (32, 32)),
    "view of a DLPack tensor's slice": lambda: tf.reshape(of_dlpack()[64:128], (1, -1)),
}


@pytest.mark.parametrize("make", LET_GO)
def test_first_write_stays_where_it_is_once_tensorflow_let_go(make: str, interface: Any) -> None:
    t = LET_GO[make]()
    before = tf_bytes(t)
    x, early = interface.to_torch(t), interface.to_torch(t)
    assert not stays(early), "the tf.Tensor is alive"
    assert tf_bytes(t) == before
    del early, t
    gc.collect()
    assert torch_bytes(x) == before
    assert stays(x)
    assert stays(x)


@pytest.mark.parametrize("make", KEPT)
def test_first_write_moves_what_tensorflow_keeps(make: str, interface: Any) -> None:
    x = interface.to_torch(KEPT[make]())
    gc.collect()
    before = torch_bytes(x)
    assert not stays(x)
    assert torch_bytes(interface.to_torch(KEPT[make]())) == before, "the write was visible"


@pytest.mark.parametrize("make", LET_GO)
def test_what_made_a_tensor_makes_the_same_one_after_a_write(make: str) -> None:
    """If anything but the tensor held the buffer, the write would be visible in it."""
    t = LET_GO[make]()
    if make != "Keras model":  # random weights
        before = tf_bytes(t)
        x = tensor_bridge.to_torch(t)
        del t
        x.view(torch.uint8).fill_(0x55) if x.dim() else x.fill_(0x55)
        assert tf_bytes(LET_GO[make]()) == before


@pytest.mark.parametrize("make", LET_GO)
def test_raise_raises_whoever_holds_the_buffer(make: str) -> None:
    t = LET_GO[make]()
    x = tensor_bridge.to_torch(t, on_write="raise")
    del t
    gc.collect()
    before = torch_bytes(x)
    with pytest.raises(BufferError, match="on_write"):
        x.add_(1)
    assert torch_bytes(x) == before


@pytest.mark.parametrize("write", WAYS)
def test_every_way_to_write_takes_over(write: str, interface: Any) -> None:
    x = interface.to_torch(numbers())
    expected, before = plain(x), torch_data_address(x)
    WRITES[write](x)
    WRITES[write](expected)
    assert torch_bytes(x) == torch_bytes(expected)
    assert torch_data_address(x) == before


@pytest.mark.parametrize("row", needs.rows(), ids=lambda row: row.name)
def test_every_shared_dtype_is_taken_over(row: tensor_bridge.DtypeRow) -> None:
    if row.kind not in ("shared", "viewed"):
        pytest.skip("not shared")
    raw = bytes([1, 0]) * (row.itemsize * 32)
    x = tensor_bridge.to_torch(from_bytes(raw, (64,), tf.as_dtype(row.tf_enum)))
    before = torch_data_address(x)
    x.fill_(0)
    assert torch_data_address(x) == before
    assert not any(torch_bytes(x))


@pytest.mark.parametrize("shape", [(), (1,), (70000,), (1,) * 7 + (3,), (2,) * 12], ids=str)
def test_every_kind_of_shape_is_taken_over(shape: tuple[int, ...], interface: Any) -> None:
    x = interface.to_torch(numbers(shape))
    assert stays(x)


# --- holders, one by one --------------------------------------------------------------------------


def test_second_torch_tensor_is_a_holder() -> None:
    t = numbers()
    x, y = tensor_bridge.to_torch(t), tensor_bridge.to_torch(t)
    before = torch_bytes(y)
    del t
    assert not stays(x), "y shows the buffer"
    assert torch_bytes(y) == before
    assert not stays(y), "x keeps the buffer for readers from before its move"
    y = None
    t = numbers()
    x, y = tensor_bridge.to_torch(t), tensor_bridge.to_torch(t)
    del t, y
    assert stays(x)


def test_views_are_one_holder() -> None:
    x = tensor_bridge.to_torch(numbers())
    view, parameter = x[1:3].t(), torch.nn.Parameter(x)
    before = torch_data_address(x)
    view.mul_(2)
    assert torch_data_address(x) == before
    assert torch.equal(parameter[1:3].t(), view)


def test_share_to_tf_is_a_holder() -> None:
    x = tensor_bridge.to_torch(numbers())
    u = tensor_bridge.to_tf(x)
    assert tf_data_address(u) == torch_data_address(x)
    before = tf_bytes(u)
    assert not stays(x)
    assert tf_bytes(u) == before


@pytest.mark.parametrize("part", [slice(None), slice(2, 4)], ids=["whole", "part"])
def test_share_to_tf_that_is_gone_is_none(part: slice) -> None:
    x = tensor_bridge.to_torch(rows())
    u = tensor_bridge.to_tf(x[part])
    assert tf_data_address(u) == torch_data_address(x[part])
    del u
    assert stays(x)


def test_part_that_was_shared_to_tf_is_a_holder() -> None:
    x = tensor_bridge.to_torch(rows())
    u = tensor_bridge.to_tf(x[2:])
    before = tf_bytes(u)
    del_rest = tensor_bridge.to_torch(u)
    assert not stays(x)
    assert tf_bytes(u) == before == torch_bytes(del_rest)


def test_conversion_after_a_round_trip() -> None:
    x = tensor_bridge.to_torch(numbers())
    y = tensor_bridge.to_torch(tensor_bridge.to_tf(x))
    before = torch_bytes(y)
    assert not stays(x), "y shows the buffer"
    assert torch_bytes(y) == before
    del x
    assert stays(y)


def test_sharing_what_was_taken_over_keeps_its_bytes_for_tensorflow() -> None:
    x = tensor_bridge.to_torch(numbers())
    assert stays(x)
    u = tensor_bridge.to_tf(x)
    assert tf_data_address(u) == torch_data_address(x)
    before = tf_bytes(u)
    assert not stays(x)
    assert tf_bytes(u) == before
    v = tensor_bridge.to_tf(x)
    del u, v
    assert stays(x)


def test_array_over_what_was_taken_over_forbids_sharing() -> None:
    """Nothing notices writes through the array."""
    x = tensor_bridge.to_torch(numbers())
    before = torch_data_address(x)
    array = x.numpy()
    assert array.ctypes.data == before
    u = tensor_bridge.to_tf(x)
    assert tf_data_address(u) != before
    kept = tf_bytes(u)
    array[:] = -1
    assert tf_bytes(u) == kept
    assert "NumPy array" in tensor_bridge.explain(x).reason


def test_export_through_dlpack_takes_over() -> None:
    x = tensor_bridge.to_torch(numbers())
    before = torch_data_address(x)
    y = torch.from_dlpack(x)
    assert torch_data_address(y) == before == torch_data_address(x)
    y.add_(1)
    assert torch.equal(x, y)


# Objects that hold a tensor, and functions that read its bytes from them.
HOLDERS: dict[str, tuple[Callable[[tf.Tensor], Any], Callable[[Any], bytes]]] = {
    "torch tensor that raises": (partial(tensor_bridge.to_torch, on_write="raise"), torch_bytes),
    "torch tensor without protection": (
        partial(tensor_bridge.to_torch, on_write="alias"),
        torch_bytes,
    ),
    "read-only export": (lambda t: np.from_dlpack(tensor_bridge.dlpack.Exporter(t)), bytes),
    "TensorFlow's own capsule": (DLPACK.to_dlpack, lambda held: tf_bytes(DLPACK.from_dlpack(held))),
    "buffer protocol": (lambda t: np.asarray(memoryview(t)), bytes),
    "list": (
        lambda t: tf.raw_ops.TensorListFromTensor(tensor=t, element_shape=[1024]),
        lambda held: tf_bytes(
            tf.raw_ops.TensorListStack(
                input_handle=held, element_shape=[1024], element_dtype=tf.float32
            )
        ),
    ),
    "variant": (
        lambda t: tf.RaggedTensor.from_row_lengths(t, [1, 3])._to_variant(),
        lambda held: tf_bytes(tf.RaggedTensor._from_variant(held, tf.float32, 1).values),
    ),
    "optional": (tf.experimental.Optional.from_value, lambda held: tf_bytes(held.get_value())),
    "array": (
        lambda t: tf.TensorArray(tf.float32, 1).write(0, t),
        lambda held: tf_bytes(held.read(0)),
    ),
}


@pytest.mark.parametrize("kind", HOLDERS)
def test_what_else_has_the_buffer_is_a_holder(kind: str) -> None:
    hold, read = HOLDERS[kind]
    t = rows()
    x, held, before = tensor_bridge.to_torch(t), hold(t), tf_bytes(t)
    del t
    gc.collect()
    assert not stays(x) or kind == "list", "only a list has copies"
    assert read(held) == before


def test_graph_of_a_tape_is_a_holder() -> None:
    v = tf.Variable(numbers())
    with tf.GradientTape() as tape:
        inner = v + 1
        y = inner * inner
    x = tensor_bridge.to_torch(inner)
    del inner
    assert not stays(x)
    assert (tape.gradient(y, v).numpy() == 2 * (numbers() + 1).numpy()).all()


def test_variable_is_a_holder_until_it_moves() -> None:
    v = tf.Variable(numbers())
    x = tensor_bridge.to_torch(v)
    y = tensor_bridge.to_torch(v)
    del y
    assert not stays(x)
    assert (v.numpy() == numbers().numpy()).all()
    x = tensor_bridge.to_torch(v)
    v.assign_add(tf.ones(v.shape))  # moves the variable
    after = v.numpy()
    assert stays(x)
    assert (v.numpy() == after).all()


def test_live_view_is_a_holder() -> None:
    v = tf.Variable(numbers())
    live = tensor_bridge.to_torch(v, live=True)
    x = tensor_bridge.to_torch(v)
    assert not stays(x)
    assert torch_bytes(live.tensor) == tf_bytes(v)


# --- composites and structures --------------------------------------------------------------------


def test_parts_of_composites_are_taken_over() -> None:
    jagged = tensor_bridge.to_torch(tf.RaggedTensor.from_row_lengths(numbers((64,)), [30, 34]))
    assert stays(jagged.values())
    sparse = tensor_bridge.to_torch(tf.sparse.from_dense(numbers()))
    assert stays(sparse._values())


def test_leaves_of_structures_are_taken_over() -> None:
    made = {"a": [numbers(), (numbers((3,)),)], "b": numbers((2, 2))}
    converted = tensor_bridge.to_torch(made)
    del made
    assert all(stays(x) for x in (converted["a"][0], converted["a"][1][0], converted["b"]))


def test_elements_of_the_loader_are_taken_over() -> None:
    dataset = tf.data.Dataset.range(64).map(lambda i: tf.fill((128,), i)).batch(8)
    batches = list(tensor_bridge.data.loader(dataset))
    assert len(batches) == 8
    assert all(stays(batch) for batch in batches)
    assert all(stays(batch) for batch in tensor_bridge.data.loader(dataset))


def test_elements_of_a_cached_dataset_move() -> None:
    dataset = tf.data.Dataset.range(8).map(lambda i: tf.fill((128,), i)).cache()
    for _ in range(3):
        for i, element in enumerate(tensor_bridge.data.loader(dataset)):
            assert bool((element == i).all())
            element.add_(100)


# --- memory that this saves -----------------------------------------------------------------------


def test_pointers_that_nobody_writes_through_copy_nothing() -> None:
    for pointer in (
        lambda x: x.data_ptr(),
        lambda x: x.untyped_storage().data_ptr(),
        lambda x: x.numpy().ctypes.data,
        lambda x: torch.from_dlpack(x).data_ptr(),
    ):
        x = tensor_bridge.to_torch(numbers())
        address = torch_data_address(x)
        assert pointer(x) == address == torch_data_address(x)


def test_one_owner_is_left_and_goes_with_the_storage() -> None:
    with nothing_kept(), owners() as added:
        x = tensor_bridge.to_torch(numbers())
        assert stays(x)
        assert added() == 1
        view = x[1]
        del x
        assert added() == 1
        del view


def test_memory_that_was_taken_over_can_be_resized_and_replaced() -> None:
    for change in (
        lambda x: x.resize_(100, 100),
        lambda x: x.set_(torch.zeros(3)),
        lambda x: x.untyped_storage().resize_(0),
        lambda x: torch.utils.swap_tensors(x, torch.zeros(3)),
        lambda x: x.share_memory_(),
    ):
        with nothing_kept():
            x = tensor_bridge.to_torch(numbers())
            assert stays(x)
            change(x)
            del x


def test_nothing_is_taken_over_where_tensorflow_cannot_tell() -> None:
    """In any order of releases, a write moves the tensor while another holder is left."""
    for order in itertools.permutations(range(3)):
        t = numbers()
        before = tf_bytes(t)
        holders: list[Any] = [t, tensor_bridge.to_torch(t), tensor_bridge.to_torch(t)]
        x = tensor_bridge.to_torch(t)
        del t
        for i in order[:-1]:
            holders[i] = None
        left = holders[order[-1]]
        assert not stays(x)
        assert (tf_bytes if isinstance(left, tf.Tensor) else torch_bytes)(left) == before
