"""Round trips: the same buffer, one owner, and no sharing after a write."""

from __future__ import annotations

import gc
from collections.abc import Callable
from math import prod
from typing import Any

import needs
import pytest
import tensorflow as tf
import torch
from hypothesis import given, note
from hypothesis import strategies as st
from properties import QUICK, Case, cases, quick_and_thorough
from refusals import explained
from sharing import SHAPE, Shared, numbers, owners, shared_to_tf, tf_bytes, torch_bytes, values
from tf_bytes import NUMERIC, random_tensor, tf_tensor, torch_dtype, torch_memory

import tensor_bridge
from tensor_bridge import DtypeRow, to_tf, to_torch
from tensor_bridge.testing import (
    live_owners,
    shares_memory,
    tf_data_address,
    torch_data_address,
)

pytestmark = needs.shares_to_tf

# ---- from TensorFlow -----------------------------------------------------------------------------


def test_unwritten_tensor_goes_to_tf_as_the_same_buffer(interface: Any) -> None:
    shared = Shared(convert=interface.to_torch)
    before = live_owners()
    t = interface.to_tf(shared.torch)
    assert tf_data_address(t) == tf_data_address(shared.tf)
    assert tf_bytes(t) == shared.before
    assert live_owners() == before, "to_tf returned the handle itself"
    explanation = explained(interface, shared.torch)
    assert explanation.action == "shared"
    assert "TensorFlow's own" in explanation.reason
    shared.assert_shared()


@pytest.mark.parametrize("copy", [None, False])
def test_even_where_torch_must_not_copy(copy: bool | None, interface: Any) -> None:
    shared = Shared()
    t = interface.to_tf(shared.torch, copy=copy)
    assert tf_data_address(t) == tf_data_address(shared.tf)


def test_copy_true_copies(interface: Any) -> None:
    shared = Shared()
    t = interface.to_tf(shared.torch, copy=True)
    assert tf_data_address(t) != tf_data_address(shared.tf)
    assert tf_bytes(t) == shared.before
    assert explained(interface, shared.torch, copy=True).reason == "copy=True"
    shared.assert_shared()


def test_written_tensor_is_torchs_own(interface: Any) -> None:
    shared = Shared()
    shared.torch.add_(1)
    kept = shared_to_tf(shared.torch, interface.to_tf)
    assert kept.address != tf_data_address(shared.tf)
    shared.torch.add_(1)
    kept.assert_moved()
    shared.assert_moved()


def test_write_after_it_went_to_tf_moves_torch_alone(interface: Any) -> None:
    shared = Shared()
    t = interface.to_tf(shared.torch)
    shared.torch.zero_()
    shared.assert_moved()
    assert tf_bytes(t) == shared.before


@pytest.mark.parametrize("row", [r for r in NUMERIC if r.kind == "shared"], ids=lambda r: r.name)
@pytest.mark.parametrize("shape", [(), (3,), (2, 0, 3), (2, 1, 3)], ids=str)
def test_every_dtype_and_rank(row: DtypeRow, shape: tuple[int, ...]) -> None:
    t = random_tensor(row, shape)
    again = to_tf(to_torch(t))
    assert again.dtype == t.dtype
    assert again.shape == t.shape
    assert tf_bytes(again) == tf_bytes(t)
    assert tf_data_address(again) == tf_data_address(t) or not prod(shape)


@pytest.mark.parametrize("row", [r for r in NUMERIC if r.kind == "viewed"], ids=lambda r: r.name)
def test_viewed_dtypes_go_to_tf_by_name(row: DtypeRow) -> None:
    t = random_tensor(row)
    x = to_torch(t)
    again = to_tf(x, dtype=row.name, copy=False)
    assert again.dtype.name == row.name
    assert tf_data_address(again) == tf_data_address(t)
    plain = to_tf(x, copy=False)
    assert plain.dtype == tf.uint8
    assert tf_data_address(plain) == tf_data_address(t)


@pytest.mark.parametrize("row", [r for r in NUMERIC if r.kind == "quantized"], ids=lambda r: r.name)
def test_quantized_dtypes_go_to_tf_by_name(row: DtypeRow) -> None:
    t = random_tensor(row)
    again = to_tf(to_torch(t, raw=True), dtype=row.name, copy=False)
    assert again.dtype == t.dtype
    assert tf_data_address(again) == tf_data_address(t)


VIEWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "reshaped": lambda x: x.view(2, 2048),
    "flat": lambda x: x.view(-1),
    "with a dimension": lambda x: x.unsqueeze(0),
    "aligned row": lambda x: x[2],
    "aligned rows": lambda x: x[1:3],
    "detached": lambda x: x.detach(),
    "as integers": lambda x: x.view(torch.int32),
    "as bytes": lambda x: x.view(torch.uint8),
    "of a parameter": lambda x: torch.nn.Parameter(x),
    "first elements": lambda x: x.view(-1)[:5],
}


@pytest.mark.parametrize("view", VIEWS)
def test_aligned_view_of_a_tensor_of_tensorflow_s_is_shared(view: str, interface: Any) -> None:
    shared = Shared(numbers((4, 1024)))
    x = VIEWS[view](shared.torch)
    before = live_owners()
    t = interface.to_tf(x, copy=False)
    assert tf_data_address(t) == torch_data_address(x)
    assert t.shape == x.shape
    assert t.dtype.name == str(x.dtype).removeprefix("torch.")
    assert tf_bytes(t) == torch_bytes(x)
    assert live_owners() <= before + 1
    expected = tf_bytes(t)
    del shared.tf
    shared.torch.zero_()
    assert tf_bytes(t) == expected
    assert tf.size(t).numpy() == x.numel()


COPIED_VIEWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "transposed": lambda x: x.T,
    "columns": lambda x: x[:, 1:],
    "misaligned": lambda x: x.view(-1)[1:],
    "expanded": lambda x: x[0].expand(3, 1024),
}


@pytest.mark.parametrize("view", COPIED_VIEWS)
def test_other_views_of_a_tensor_of_tensorflow_s_are_copied(view: str, interface: Any) -> None:
    shared = Shared(numbers((4, 1024)))
    x = COPIED_VIEWS[view](shared.torch)
    with pytest.raises(tensor_bridge.CopyRequiredError):
        interface.to_tf(x, copy=False)
    with owners():
        t = interface.to_tf(x)
    assert tf_data_address(t) % 64 == 0
    assert tf_bytes(t) == torch_bytes(x.contiguous())
    shared.assert_shared()


@pytest.mark.parametrize("on_write", ["copy", "raise"])
def test_every_protecting_policy_goes_to_tf(on_write: str, interface: Any) -> None:
    shared = Shared(on_write=on_write)
    t = interface.to_tf(shared.torch, copy=False)
    assert tf_data_address(t) == tf_data_address(shared.tf)
    assert interface.to_tf(shared.torch.view(-1), copy=False).shape == 24
    shared.assert_shared()
    if on_write == "raise":
        with needs.forbidden_write("on_write"):
            shared.torch.zero_()
        shared.assert_shared()
    else:
        shared.torch.zero_()
        shared.assert_moved()


def test_tensor_that_writes_through_is_copied(interface: Any) -> None:
    shared = Shared(on_write="alias")
    with pytest.raises(tensor_bridge.CopyRequiredError, match="alias"):
        interface.to_tf(shared.torch, copy=False)
    t = interface.to_tf(shared.torch)
    expected = tf_bytes(t)
    assert tf_data_address(t) != tf_data_address(shared.tf)
    shared.torch.zero_()
    assert tf_bytes(t) == expected
    assert not any(tf_bytes(shared.tf))


def test_variable_read_goes_back_and_the_variable_moves_on() -> None:
    v = tf.Variable(numbers())
    x = to_torch(v)
    t = to_tf(x)
    assert tf_data_address(t) == tf_data_address(v)
    v.assign_add(tf.ones(SHAPE))
    assert torch.equal(x, values())
    assert tf_bytes(t) == torch_bytes(values())
    v.assign(to_tf(x))
    assert tf.reduce_sum(v).numpy() == 276


def test_tensor_of_tensorflow_s_stays_alive_without_its_names() -> None:
    with owners(1) as added:
        t = numbers()
        expected = tf_bytes(t)
        x = to_torch(t)
        del t
        u = to_tf(x)
        del x
        assert added() == 0
        assert tf_bytes(u) == expected
        y = to_torch(u)
        del u
    assert torch_bytes(y) == expected


# ---- from torch ----------------------------------------------------------------------------------


def test_torchs_tensor_comes_back_as_the_same_memory(interface: Any) -> None:
    kept = shared_to_tf(convert=interface.to_tf)
    y = interface.to_torch(kept.tf)
    assert torch_data_address(y) == kept.address
    assert shares_memory(kept.tf, y)
    assert torch.equal(y, kept.torch)
    kept.assert_shared()


@pytest.mark.parametrize("writer", ["original", "returned"])
def test_write_to_one_of_the_two_moves_it_alone(writer: str) -> None:
    kept = shared_to_tf()
    y = to_torch(kept.tf)
    written, other = (kept.torch, y) if writer == "original" else (y, kept.torch)
    written.zero_()
    kept.assert_untouched()
    assert torch_data_address(written) != kept.address
    assert torch_data_address(other) == kept.address
    assert torch.equal(other, values())
    other.fill_(2)
    assert torch_data_address(other) != kept.address
    assert not written.any()
    kept.assert_untouched()


def test_aliased_return_of_torchs_tensor_writes_torch() -> None:
    """With on_write="alias" writes reach the owner of the memory, as the caller requested."""
    kept = shared_to_tf()
    y = to_torch(kept.tf, on_write="alias")
    y.zero_()
    assert not kept.torch.any()


def test_original_written_while_only_the_returned_one_lives() -> None:
    x = values()
    y = to_torch(to_tf(x))
    address = torch_data_address(x)
    gc.collect()
    x.add_(1)
    assert torch_data_address(y) == address
    assert torch.equal(y, values())
    del y
    address = torch_data_address(x)
    x.add_(1)
    assert torch_data_address(x) == address


def test_original_is_not_moved_once_the_returned_one_is_gone() -> None:
    x = values()
    address = torch_data_address(x)
    y = to_torch(to_tf(x))
    del y
    x.add_(1)
    assert torch_data_address(x) == address


# ---- chains --------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 10, 300])
@pytest.mark.parametrize("start", ["tensorflow", "torch"])
def test_chain_of_any_length_keeps_one_owner(length: int, start: str, interface: Any) -> None:
    with owners() as added:
        if start == "tensorflow":
            first: Any = numbers()
            address = tf_data_address(first)
            x = interface.to_torch(first)
            for _ in range(length):
                x = interface.to_torch(interface.to_tf(x))
            assert torch_data_address(x) == address
            assert added() == 1
            del first
            assert added() == 1
        else:
            first = values()
            address = torch_data_address(first)
            t = interface.to_tf(first)
            for _ in range(length):
                t = interface.to_tf(interface.to_torch(t))
            assert tf_data_address(t) == address
            assert added() == 1
            del first
            assert added() == 1
            x = interface.to_torch(t)
            del t
            assert added() == 2, "TensorFlow holds torch's bytes, and torch holds TensorFlow's"
        assert torch.equal(x, values())
        del x


def test_chain_whose_every_link_is_held() -> None:
    before = live_owners()
    links: list[Any] = [values()]
    for _ in range(20):
        links += [to_tf(links[-1])]
        links += [to_torch(links[-1])]
    assert live_owners() == before + 1 + 20
    links[0].zero_()
    assert all(torch.equal(x, values()) for x in links[2::2])
    links[-1].zero_()
    assert all(tf_bytes(t) == torch_bytes(values()) for t in links[1::2])
    del links
    assert live_owners() == before


def test_chain_with_a_write_at_each_link() -> None:
    x = values()
    shares = []
    for i in range(10):
        t = to_tf(x)
        shares.append((t, tf_bytes(t)))
        x = to_torch(t)
        x.add_(1)
        assert x[0, 0] == i + 1
    assert len({tf_data_address(t) for t, _ in shares}) == 10
    assert all(tf_bytes(t) == expected for t, expected in shares)


def test_views_at_each_link_keep_the_whole_buffer() -> None:
    before = live_owners()
    t = numbers((64, 1024))
    last = tf_bytes(t)[-4096:]
    address = tf_data_address(t)
    x = to_torch(t)
    for i in range(63):
        x = to_torch(to_tf(x[1:], copy=False))
        assert torch_data_address(x) == address + (i + 1) * 4096
    del t
    gc.collect()
    assert torch_bytes(x) == last
    assert live_owners() <= before + 2 * 63 + 1
    del x
    assert live_owners() == before


# ---- properties ----------------------------------------------------------------------------------

interfaces = st.sampled_from([tensor_bridge, tensor_bridge.TensorBridge()])
# The same examples each time; the exhaustive runs look for new ones.
SHARED = [row for row in NUMERIC if row.kind == "shared"]


@st.composite
def views(draw: Any) -> list[tuple[str, Any]]:
    """Views as names and numbers, which are reduced to the tensor's sizes."""
    step = st.tuples(
        st.sampled_from(["slice", "step", "transpose", "flatten", "unsqueeze", "select", "expand"]),
        st.tuples(st.integers(0, 7), st.integers(0, 7), st.integers(1, 3)),
    )
    return draw(st.lists(step, max_size=4))


def view_of(x: torch.Tensor, steps: list[tuple[str, Any]]) -> torch.Tensor:
    for name, (i, j, k) in steps:
        if name == "unsqueeze":
            x = x.unsqueeze(i % (x.dim() + 1))
        elif name == "flatten" and x.is_contiguous():
            x = x.view(-1)
        if not x.dim():
            continue
        dim, size = i % x.dim(), x.size(i % x.dim())
        if name == "slice":
            x = x.narrow(dim, j % (size + 1), size - j % (size + 1))
        elif name == "step":
            x = x[(slice(None),) * dim + (slice(None, None, k),)]
        elif name == "transpose":
            x = x.transpose(dim, j % x.dim())
        elif name == "select" and size:
            x = x.select(dim, j % size)
        elif name == "expand" and size == 1:
            x = x.expand(*x.shape[:dim], k, *x.shape[dim + 1 :])
    return x


def check_from_torch(
    case: Case,
    steps: list[tuple[str, Any]],
    copy: bool | None,
    interface: Any,
) -> None:
    row, shape, data = case
    note(f"{row.name} {shape} {data[:64].hex()} {steps} {copy}")
    memory = torch.zeros(max(len(data), 1), dtype=torch.uint8)[: len(data)]
    memory.copy_(torch.frombuffer(bytearray(data + b"\0"), dtype=torch.uint8)[: len(data)])
    base = memory.view(torch_dtype(row.torch_name)).view(shape)
    x = view_of(base, steps)
    expected = torch_memory(torch.clone(x, memory_format=torch.contiguous_format))
    with owners() as added:
        fits = x.is_contiguous() and torch_data_address(x) % 64 == 0
        explanation = explained(interface, x, copy=copy)
        if copy is False and not fits and x.numel():
            assert explanation.error is tensor_bridge.CopyRequiredError
            with pytest.raises(tensor_bridge.CopyRequiredError):
                interface.to_tf(x, copy=copy)
            assert added() == 0
            return
        t = interface.to_tf(x, copy=copy)
        shared = fits and copy is not True and x.numel() > 0
        assert explanation.action == ("shared" if shared else "copied")
        assert shares_memory(t, x) == shared
        assert added() == shared
        assert (t.dtype.name, tuple(t.shape)) == (row.name, tuple(x.shape))
        assert tf_bytes(t) == expected
        assert tf_data_address(t) % 64 == 0
        # Back again: the same memory, the same bits.
        y = interface.to_torch(t)
        assert torch_memory(y) == expected
        assert shares_memory(t, y) == (x.numel() > 0)
        again = interface.to_tf(y)
        assert tf_data_address(again) == tf_data_address(t) or not x.numel()
        y.fill_(1)
        base.fill_(0)
        assert tf_bytes(t) == tf_bytes(again) == expected
        del y, t, again


test_from_torch_and_back, test_from_torch_and_back_thoroughly = quick_and_thorough(
    check_from_torch, cases(SHARED), views(), st.sampled_from([None, False, True]), interfaces
)


def check_from_tensorflow(
    case: Case,
    steps: list[tuple[str, Any]],
    on_write: str,
    interface: Any,
) -> None:
    row, shape, data = case
    note(f"{row.name} {shape} {data[:64].hex()} {steps} {on_write}")
    t = tf_tensor(row, shape, data)
    with owners():
        whole = interface.to_torch(t, on_write=on_write)
        x = view_of(whole, steps)
        expected = torch_memory(torch.clone(x, memory_format=torch.contiguous_format))
        again = interface.to_tf(x)
        fits = x.is_contiguous() and torch_data_address(x) % 64 == 0 and x.numel() > 0
        fits = fits and on_write != "alias"  # an aliased tensor is copied
        assert shares_memory(again, x) == fits
        assert tf_bytes(again) == expected
        assert (again.dtype.name, tuple(again.shape)) == (row.name, tuple(x.shape))
        if on_write == "copy":
            whole.fill_(1)
            if fits:
                assert not shares_memory(again, x)
        elif on_write == "raise" and prod(shape):
            with needs.forbidden_write():
                whole.fill_(1)
        if on_write != "alias":
            assert tf_bytes(t) == data
            assert tf_bytes(again) == expected
        del whole, x, again


test_from_tensorflow_and_back, test_from_tensorflow_and_back_thoroughly = quick_and_thorough(
    check_from_tensorflow,
    cases(SHARED),
    views(),
    st.sampled_from(["copy", "raise", "alias"]),
    interfaces,
)


@QUICK
@given(
    st.lists(
        st.sampled_from(["to_tf", "to_torch", "write", "drop tf", "view", "write the first"]),
        min_size=1,
        max_size=14,
    )
)
def test_any_order_of_steps(steps: list[str]) -> None:
    """TensorFlow's tensors keep their bytes, whatever torch does."""
    with owners():
        first = values((64,))
        xs, ts = [first], []
        for i, step in enumerate(steps):
            if step == "to_tf":
                ts.append((t := to_tf(xs[-1]), tf_bytes(t)))
                del t
            elif step == "to_torch" and ts:
                xs.append(to_torch(ts[-1][0]))
            elif step == "write":
                xs[-1].fill_(i)
            elif step == "write the first":
                first.add_(1)
            elif step == "drop tf" and ts:
                ts.pop(0)
            elif step == "view":
                xs.append(xs[-1][:16])
            assert all(tf_bytes(t) == expected for t, expected in ts)
        del xs, ts, first
