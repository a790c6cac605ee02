"""Promises for every supported release of torch, TensorFlow and Python. `make matrix` runs it.

The tests only use what every release has. For what some releases lack (a dtype, sharing with
TensorFlow before torch 2.13) they ask the release, so that nothing is skipped silently.
"""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
import tensorflow as tf
import torch
from fresh import TENSORFLOW_FIRST, TORCH_FIRST, run_forked
from sharing import in_threads, owners
from torch import nn

import tensor_bridge
from tensor_bridge import testing
from tensor_bridge._loaded import version_pair

TORCH = version_pair(torch.__version__)
SHARES_TO_TF = TORCH >= (2, 13)
GROUPS = {(2, m): first for first, last in ((6, 6), (7, 7), (8, 9), (10, 12), (13, 15))
          for m in range(first, last + 1)}  # fmt: skip
# Both frameworks have had these since the oldest supported release.
ALWAYS = {
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64",
    "complex64", "complex128",
}  # fmt: skip


def tf_dtype(name: str) -> Any | None:
    try:
        return tf.dtypes.as_dtype(name)
    except TypeError:
        return None


def rows(*kinds: str) -> list[Any]:
    """The rows of the dtype table whose dtypes both releases have."""
    return [
        row
        for row in tensor_bridge.dtypes()
        if row.kind in kinds
        and tf_dtype(row.name) is not None
        and hasattr(torch, (row.torch_name or row.nearest).removeprefix("torch."))
    ]


def some(dtype: Any, shape: tuple[int, ...] = (4, 8)) -> tf.Tensor:
    """A tensor with random bytes; for bool, zeros and ones."""
    kind = np.dtype(dtype.as_numpy_dtype)
    count = int(np.prod(shape)) * kind.itemsize
    data = np.random.default_rng(7).integers(0, 256, count, dtype=np.uint8)
    if dtype == tf.bool:
        data &= 1
    return tf.constant(data.view(kind).reshape(shape))


def bytes_of(t: tf.Tensor) -> bytes:
    return bytes(ctypes.string_at(testing.tf_data_address(t), t.numpy().nbytes))


def torch_bytes(x: torch.Tensor) -> bytes:
    return bytes(ctypes.string_at(testing.torch_data_address(x), x.numel() * x.element_size()))


def test_the_adapter_is_that_of_the_release(interface: Any) -> None:
    interface.to_torch(tf.constant([1.0]))
    maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    loaded = set(re.findall(r"libtensor_bridge_torch_(\d+)_(\d+)\.so", maps))
    assert loaded == {("2", str(GROUPS[TORCH]))}


@pytest.mark.skipif(not needs.ALL_IS_THERE, reason="older releases lack some dtypes")
def test_the_newest_releases_have_every_row() -> None:
    assert needs.rows() == list(tensor_bridge.dtypes())


def test_an_address_is_that_of_the_view() -> None:
    x = tensor_bridge.to_torch(tf.zeros((4, 8)) + 1)
    first = testing.torch_data_address(x)
    assert testing.torch_data_address(x[1:]) == first + 8 * 4
    assert testing.torch_data_address(x[2, 3:]) == first + (2 * 8 + 3) * 4


def test_the_table_knows_what_both_frameworks_have() -> None:
    assert {row.name for row in rows("shared")} >= ALWAYS


@pytest.mark.parametrize("row", rows("shared"), ids=lambda row: row.name)
def test_every_dtype_is_shared_and_protected(row: Any, interface: Any) -> None:
    t = some(tf_dtype(row.name))
    before = bytes_of(t)
    x = interface.to_torch(t, copy=False)
    assert testing.shares_memory(t, x)
    assert str(x.dtype) == row.torch_name
    assert tuple(x.shape) == (4, 8)
    assert x.is_contiguous()
    assert torch_bytes(x) == before
    x.view(torch.uint8).fill_(1)
    assert bytes_of(t) == before
    assert torch_bytes(x) == b"\1" * len(before)
    assert not testing.shares_memory(t, x)


@pytest.mark.parametrize("row", rows("shared"), ids=lambda row: row.name)
def test_every_dtype_goes_to_tf_exactly(row: Any, interface: Any) -> None:
    t = some(tf_dtype(row.name))
    source = bytes_of(t)
    x = interface.to_torch(t).clone()
    u = interface.to_tf(x)
    assert u.dtype == t.dtype
    assert u.shape == t.shape
    assert bytes_of(u) == source
    assert testing.shares_memory(u, x) == SHARES_TO_TF
    x.view(torch.uint8).fill_(1)
    assert bytes_of(u) == source


@pytest.mark.parametrize("row", rows("viewed", "converted"), ids=lambda row: row.name)
def test_dtypes_that_torch_lacks_have_a_form(row: Any) -> None:
    dtype = tf_dtype(row.name)
    numbers = np.array([0, 1, 1, 0]).astype(dtype.as_numpy_dtype)
    x = tensor_bridge.to_torch(tf.constant(numbers))
    assert x.to(torch.float32).tolist() == [0.0, 1.0, 1.0, 0.0]


def test_a_dtype_that_tensorflow_lacks_is_refused(interface: Any) -> None:
    lacking = [row for row in tensor_bridge.dtypes() if row.tf_enum and not needs.tf_has(row)]
    assert bool(lacking) == (needs.tensorflow_release < (2, 21))
    for row in lacking:
        if not row.torch_name:
            with pytest.raises(tensor_bridge.InvalidOptionError, match="dtype"):
                interface.to_tf(torch.zeros(4), dtype=row.name)
        elif hasattr(torch, row.torch_name.removeprefix("torch.")):
            x = torch.zeros(4).to(getattr(torch, row.torch_name.removeprefix("torch.")))
            with pytest.raises(tensor_bridge.UnsupportedDtypeError, match=f"no {row.name};"):
                interface.to_tf(x)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (2, 3, 4), (1, 2, 1, 2, 1, 2, 1, 2)])
def test_every_rank(shape: tuple[int, ...], interface: Any) -> None:
    t = tf.random.stateless_uniform(shape, seed=(1, 2))
    x = interface.to_torch(t)
    assert tuple(x.shape) == shape
    assert x.tolist() == t.numpy().tolist()
    assert testing.shares_memory(t, x) == (0 not in shape)
    assert interface.to_tf(x).numpy().tolist() == t.numpy().tolist()


WRITES = {
    "add_": lambda x: x.add_(1),
    "mul_": lambda x: x.mul_(2),
    "zero_": lambda x: x.zero_(),
    "setitem": lambda x: x.__setitem__((0, slice(None)), 5),
    "mask": lambda x: x.__setitem__(x > 0.5, 5),
    "view": lambda x: x.view(-1)[3:].add_(1),
    "transpose": lambda x: x.t().sub_(1),
    "detach": lambda x: x.detach().neg_(),
    "data": lambda x: x.data.exp_(),
    "out": lambda x: torch.add(x, 1, out=x),
    "copy_": lambda x: x.copy_(torch.ones_like(x)),
    "index_add_": lambda x: x.index_add_(0, torch.tensor([0]), torch.ones(1, 64)),
    "scatter_": lambda x: x.scatter_(1, torch.zeros(64, 1, dtype=torch.long), 9.0),
    "uniform_": lambda x: x.uniform_(),
    "clamp_": lambda x: x.clamp_(0.4, 0.6),
    "foreach": lambda x: torch._foreach_mul_([x], 3.0),
    "numpy": lambda x: x.numpy().fill(3),
    "dlpack": lambda x: torch.from_dlpack(x).add_(1),
    "data_ptr": lambda x: ctypes.memset(x.data_ptr(), 0, 64),
    "init": lambda x: nn.init.normal_(x),
    "matmul out": lambda x: torch.mm(x.clone(), x.clone(), out=x),
    "sort": lambda x: x.copy_(x.sort().values),
    "linalg out": lambda x: torch.cumsum(x.clone(), 0, out=x),
    "relu": lambda x: nn.functional.relu(x.sub_(0.5), inplace=True),
    "optimizer": lambda x: torch.optim.SGD([step(x)], lr=1.0).step(),
}


def step(x: torch.Tensor) -> torch.Tensor:
    x.requires_grad_()
    (x * 2).sum().backward()
    return x


@pytest.mark.parametrize("name", WRITES)
def test_a_write_stays_in_torch(name: str) -> None:
    t = tf.random.stateless_uniform((64, 64), seed=(3, 4))
    before = t.numpy().copy()
    x = tensor_bridge.to_torch(t)
    view = x.detach()[1:]
    WRITES[name](x)
    assert (t.numpy() == before).all()
    assert not testing.shares_memory(t, x.detach())
    # All views moved together.
    assert view.tolist() == x.detach()[1:].tolist()
    assert x.detach().tolist() != before.tolist()


def test_reading_keeps_the_memory_shared() -> None:
    t = tf.random.stateless_uniform((64, 64), seed=(3, 4))
    x = tensor_bridge.to_torch(t)
    layer = nn.Linear(64, 64)
    with needs.reading_in_place():
        for read in (x + 1, x @ x, x.sum(), layer(x), x.clone(), x[1:].mean(0), torch.cat([x, x])):
            assert read is not None
        layer(x).sum().backward()
        assert testing.shares_memory(t, x)
    before = x.tolist()
    layer(x)
    assert testing.shares_memory(t, x) != needs.ONEDNN_COPIES
    assert x.tolist() == before


def test_a_strict_conversion_refuses_writes(interface: Any) -> None:
    t = tf.constant([1.0, 2.0])
    x = interface.to_torch(t, on_write="raise")
    with pytest.raises((BufferError, RuntimeError)):
        x.add_(1)
    assert t.numpy().tolist() == [1.0, 2.0]
    assert x.sum().item() == 3.0
    assert testing.shares_memory(t, x)


def test_an_alias_writes_through(interface: Any) -> None:
    t = tf.constant([1.0, 2.0]) * 1
    interface.to_torch(t, on_write="alias").add_(1)
    assert t.numpy().tolist() == [2.0, 3.0]


def test_copies_are_copies(interface: Any) -> None:
    t = tf.constant([1.0, 2.0])
    x = interface.to_torch(t, copy=True)
    assert not testing.shares_memory(t, x)
    y = torch.ones(16)
    assert not testing.shares_memory(interface.to_tf(y, copy=True), y)


def test_memory_is_released(interface: Any) -> None:
    gc.collect()
    with owners() as added:
        t = tf.zeros((256,)) + 1
        kept = [interface.to_torch(t) for _ in range(10)]
        assert added() == 10
        kept[0].add_(1)
        again = [interface.to_tf(x) for x in kept]
        kept.clear()
        again.clear()


def test_a_round_trip_gives_the_same_buffer(interface: Any) -> None:
    t = tf.random.stateless_uniform((32,), seed=(1, 1))
    assert testing.tf_data_address(
        interface.to_tf(interface.to_torch(t))
    ) == testing.tf_data_address(t)


@pytest.mark.parametrize("layout", ["t()", "[1:, 1:]", "[::2]", "[:1].expand(4, 6)", "flip(0)"])
def test_other_layouts_are_copied_exactly(layout: str, interface: Any) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    x = eval(f"base.{layout}" if layout[0] != "[" else f"base{layout}")
    u = interface.to_tf(x)
    assert u.numpy().tolist() == x.tolist()
    base.zero_()
    assert u.numpy().sum() > 0


def test_lazy_values_are_resolved(interface: Any) -> None:
    c = torch.tensor([1 + 2j, 3 - 4j])
    assert interface.to_tf(c.conj()).numpy().tolist() == [1 - 2j, 3 + 4j]
    assert interface.to_tf(c.conj().imag).numpy().tolist() == [-2.0, 4.0]


def test_parameters_are_detached(interface: Any) -> None:
    layer = nn.Linear(16, 4)
    u = interface.to_tf(layer.weight)
    before = u.numpy().copy()
    with torch.no_grad():
        layer.weight.add_(1)
    assert (u.numpy() == before).all()


def test_a_variable_is_a_snapshot(interface: Any) -> None:
    v = tf.Variable([1.0, 2.0])
    x = interface.to_torch(v)
    assert testing.shares_memory(v, x)
    v.assign_add([1.0, 1.0])
    assert x.tolist() == [1.0, 2.0]
    x.zero_()
    assert v.numpy().tolist() == [2.0, 3.0]


def test_torch_values_are_assigned() -> None:
    v = tf.Variable([1.0, 2.0])
    tensor_bridge.assign(v, torch.tensor([5.0, 6.0]))
    assert v.numpy().tolist() == [5.0, 6.0]


def test_structures_and_strings() -> None:
    tree = {"a": [tf.constant([1.0]), (tf.constant(2),)], "s": tf.constant([b"x", b"yz"])}
    x = tensor_bridge.to_torch(tree)
    assert x["a"][0].tolist() == [1.0]
    assert x["a"][1][0].item() == 2
    again = tensor_bridge.to_tf(x)
    assert again["s"].numpy().tolist() == [b"x", b"yz"]
    assert tensor_bridge.to_torch(tree["s"], strings="list") == [b"x", b"yz"]


def test_sparse_ragged_and_slices() -> None:
    sparse = tf.sparse.from_dense([[0.0, 5.0], [6.0, 0.0]])
    x = tensor_bridge.to_torch(sparse)
    assert x.to_dense().tolist() == [[0.0, 5.0], [6.0, 0.0]]
    assert tf.sparse.to_dense(tensor_bridge.to_tf(x)).numpy().tolist() == x.to_dense().tolist()
    ragged = tf.ragged.constant([[1.0], [2.0, 3.0]])
    nested = tensor_bridge.to_torch(ragged)
    assert [row.tolist() for row in nested.unbind()] == [[1.0], [2.0, 3.0]]
    assert tensor_bridge.to_tf(nested).to_list() == [[1.0], [2.0, 3.0]]
    slices = tf.IndexedSlices(tf.ones((2, 3)), tf.constant([0, 4]), tf.constant([6, 3]))
    assert tensor_bridge.to_torch(slices).to_dense().sum().item() == 6.0


def test_a_pipeline_is_iterated() -> None:
    ds = tf.data.Dataset.from_tensor_slices({"x": tf.range(5)}).batch(2).prefetch(1)
    assert [b["x"].tolist() for b in tensor_bridge.data.loader(ds)] == [[0, 1], [2, 3], [4]]


def test_a_pending_tensor_is_waited_for() -> None:
    done = run_forked(
        """
        import time
        tf.config.experimental.set_synchronous_execution(False)
        def slow():
            time.sleep(0.3)
            return 7.0
        t = tf.py_function(slow, [], tf.float32)
        assert tensor_bridge.to_torch(t).item() == 7.0
        """,
        timeout=240,
    )
    assert done.code == 0, done.err


def test_threads_read_and_release() -> None:
    t = tf.random.stateless_uniform((1024,), seed=(5, 6))
    total = float(tf.reduce_sum(t))

    def work() -> None:
        for _ in range(100):
            x = tensor_bridge.to_torch(t)
            assert abs(x.sum().item() - total) <= 0.1
            x.add_(1)

    in_threads(*[work] * 4, timeout=240)
    assert abs(float(tf.reduce_sum(t)) - total) < 1e-3


def test_training_leaves_tensorflow_alone() -> None:
    layer = tf.random.stateless_uniform((8, 4), seed=(1, 3))
    before = layer.numpy().copy()
    weight = nn.Parameter(tensor_bridge.to_torch(layer))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (torch.ones(2, 8) @ weight).pow(2).sum().backward()
        optimizer.step()
    assert (layer.numpy() == before).all()
    assert (weight.detach().numpy() != before).any()


@pytest.mark.parametrize("order", [TENSORFLOW_FIRST, TORCH_FIRST])
def test_a_process_ends_well_with_tensors_alive(order: str) -> None:
    done = run_forked(
        """
        import tensor_bridge
        t = tf.constant([1.0, 2.0])
        kept = [tensor_bridge.to_torch(t), tensor_bridge.to_tf(torch.ones(64))]
        kept.append(tensor_bridge.to_torch(tf.Variable([1.0])))
        print("end")
        """,
        exits=True,
        after=(order,),
    )
    assert done.code == 0, done.err
    assert done.out.strip().endswith("end")
