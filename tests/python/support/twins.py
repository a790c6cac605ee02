"""Runs one call twice, on plain tensors and on tensors converted from guarded TensorFlow memory.

For the tests that go through torch's own databases (operators, foreach functions, optimizers). It
knows how to rebuild a sample's tensors (aliases, strides, conjugate bits) over other memory and
what to compare; which operators to run belongs in the tests.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf
import torch
from guard import Guard, GuardedTensor
from torch.utils import _pytree as pytree

import tensor_bridge

_Key = tuple[int, torch.dtype]
_Compare = Callable[[Any, Any], str | None]

_COMPRESSED_ROWS = (torch.sparse_csr, torch.sparse_bsr)
_COMPRESSED_COLUMNS = (torch.sparse_csc, torch.sparse_bsc)


def tf_dtype(dtype: torch.dtype) -> tf.DType | None:
    """TensorFlow's dtype of the same name; None if it has none (complex32, packed kinds)."""
    try:
        return tf.as_dtype(str(dtype).removeprefix("torch."))
    except TypeError:
        return None


class Rebuilder:
    """Rebuilds tensors with the same values and layout over memory that `_fresh` chooses.

    What aliases in the original aliases in the result. Leaves and their `requires_grad` are kept;
    anything that is not a tensor passes through.
    """

    def __init__(self) -> None:
        self._made: dict[int, torch.Tensor] = {}
        self._bases: dict[_Key, torch.Tensor] = {}
        self._contents: dict[_Key, torch.Tensor] = {}
        # The keys are addresses: keep their tensors alive.
        self._originals: list[torch.Tensor] = []

    def _fresh(self, contiguous: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def tree(self, tree: Any) -> Any:
        return pytree.tree_map_only(torch.Tensor, self._tensor, tree)

    def _tensor(self, x: torch.Tensor) -> torch.Tensor:
        made = self._made.get(id(x))
        if made is None:
            self._originals.append(x)
            made = self._build(x.detach())
            made = self._made[id(x)] = made.requires_grad_(x.requires_grad)
        return made

    def _build(self, x: torch.Tensor) -> torch.Tensor:
        if x.layout is torch.strided and not x.is_quantized and not x.is_nested:
            return self._strided(x)
        if x.layout is torch.sparse_coo:
            return torch.sparse_coo_tensor(
                self._tensor(x._indices()),
                self._tensor(x._values()),
                x.shape,
                is_coalesced=x.is_coalesced(),
                check_invariants=False,
            )
        if x.layout in _COMPRESSED_ROWS + _COMPRESSED_COLUMNS:
            rows = x.layout in _COMPRESSED_ROWS
            return torch.sparse_compressed_tensor(
                self._tensor(x.crow_indices() if rows else x.ccol_indices()),
                self._tensor(x.col_indices() if rows else x.row_indices()),
                self._tensor(x.values()),
                x.shape,
                layout=x.layout,
                check_invariants=False,
            )
        return x.clone()

    def _strided(self, x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        address = storage.data_ptr()
        # An empty storage has no address; it aliases nothing.
        key = (address if address else -1 - len(self._bases), x.dtype)
        base = self._bases.get(key)
        if base is None:
            count = storage.nbytes() // x.itemsize
            whole = x.numel() == count and x.storage_offset() == 0 and not x.is_conj()
            if whole and not x.is_neg() and x.stride() == _row_major(x.shape):
                self._contents[key] = x
                made = self._fresh(x)
                self._bases[key] = made.detach()
                return made
            flat = torch.empty(0, dtype=x.dtype).set_(storage, 0, (count,), (1,))
            self._contents[key] = flat
            base = self._bases[key] = self._fresh(flat)
        made = base.as_strided(x.size(), x.stride(), x.storage_offset())
        if x.is_neg():
            made = torch._neg_view(made)
        return made.conj() if x.is_conj() else made


class Plain(Rebuilder):
    """Over torch's own memory: the reference."""

    def _fresh(self, contiguous: torch.Tensor) -> torch.Tensor:
        return contiguous.clone()

    def mutated(self, key: _Key) -> bool:
        """Whether a buffer was written, by torch's version counter or by its content."""
        base = self._bases[key]
        return base._version > 0 or not _same(base, self._contents[key])


class Converted(Rebuilder):
    """Over guarded TensorFlow memory, through `tensor_bridge.convert_tf_to_pytorch`."""

    def __init__(self, guard: Guard) -> None:
        super().__init__()
        self._guard = guard
        self.sources: list[GuardedTensor] = []

    def _fresh(self, contiguous: torch.Tensor) -> torch.Tensor:
        dtype = tf_dtype(contiguous.dtype)
        if dtype is None:
            return contiguous.clone()
        guarded = self._guard.tensor(
            contiguous.data_ptr(), contiguous.nbytes, dtype, contiguous.shape
        )
        made = tensor_bridge.convert_tf_to_pytorch(guarded.tensor)
        if made.dtype != contiguous.dtype or made.shape != contiguous.shape:
            raise AssertionError(f"converted to {made.dtype} {made.shape}, not the sample's")
        if contiguous.nbytes and _address(made) != guarded.address:
            raise AssertionError("the converted tensor does not share TensorFlow's memory")
        self.sources.append(guarded)
        return made

    def changed(self) -> bool:
        """Whether any TensorFlow tensor has other bytes than before."""
        return any(self._guard.changed(source) for source in self.sources)

    def moved(self) -> list[_Key]:
        """Which buffers torch has moved to memory of its own."""
        addresses = {source.address for source in self.sources}
        return [
            key
            for key, base in self._bases.items()
            if tf_dtype(base.dtype) is not None
            and base.untyped_storage().nbytes() > 0
            and _address(base) not in addresses
        ]


def _row_major(shape: torch.Size) -> tuple[int, ...]:
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * max(size, 1))
    return tuple(reversed(strides)) if shape else ()


def _address(x: torch.Tensor) -> int:
    return int(tensor_bridge.testing.torch_data_address(x))


class Raised(NamedTuple):
    """A call ended with this exception (its text may name addresses and is not compared)."""

    kind: type[BaseException]
    text: str


def outcome(call: Callable[[Any], Any], tree: Any) -> Any:
    """The call's value or exception, with the same random numbers every time."""
    # torch.manual_seed() takes 4 ms: it records a stack trace for the CUDA generators.
    torch.default_generator.manual_seed(7)
    try:
        return call(tree)
    except Exception as error:
        return Raised(type(error), str(error))


def difference(expected: Any, got: Any, *, exact: bool = True) -> str | None:
    """The first difference, in words; None when equal to the bit (any NaN equals any NaN).

    Not `exact`: None when as close as `torch.testing.assert_close` wants it.
    """
    same = _same if exact else _close
    if isinstance(expected, Raised) or isinstance(got, Raised):
        both = isinstance(expected, Raised) and isinstance(got, Raised)
        if both and expected.kind is got.kind:
            return None
        return f"expected {_brief(expected)}, got {_brief(got)}"
    a_leaves, a_spec = pytree.tree_flatten(expected)
    b_leaves, b_spec = pytree.tree_flatten(got)
    if a_spec != b_spec:
        return f"expected structure {a_spec}, got {b_spec}"
    for i, (a, b) in enumerate(zip(a_leaves, b_leaves, strict=True)):
        if not same(a, b):
            return f"leaf {i}: expected {_brief(a)}, got {_brief(b)}"
    return None


def _same(a: Any, b: Any) -> bool:
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        if isinstance(a, float | complex) and a != a:
            return type(a) is type(b) and b != b
        return type(a) is type(b) and (a is b or not hasattr(a, "__eq__") or bool(a == b))
    if (a.dtype, a.shape, a.layout, a.requires_grad) != (
        b.dtype,
        b.shape,
        b.layout,
        b.requires_grad,
    ):
        return False
    a, b = a.detach(), b.detach()
    if a.layout is torch.sparse_coo:
        return _same(a._indices(), b._indices()) and _same(a._values(), b._values())
    if a.layout is not torch.strided:
        rows = a.layout in _COMPRESSED_ROWS
        names = ("crow_indices", "col_indices") if rows else ("ccol_indices", "row_indices")
        return all(_same(getattr(a, n)(), getattr(b, n)()) for n in (*names, "values"))
    if a.stride() != b.stride():
        return False
    if a.is_quantized:
        return _same(a.int_repr(), b.int_repr())
    a, b = a.resolve_conj().resolve_neg(), b.resolve_conj().resolve_neg()
    if a.is_complex():  # complex32 has no equal()
        return _same(torch.view_as_real(a), torch.view_as_real(b))
    if a.is_floating_point() and a.itemsize == 1:
        a, b = a.view(torch.uint8), b.view(torch.uint8)
    return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())


def _close(a: Any, b: Any) -> bool:
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        return _same(a, b)
    try:
        torch.testing.assert_close(b, a, equal_nan=True, check_stride=True)
    except AssertionError:
        return False
    return a.requires_grad == b.requires_grad


def _brief(x: Any) -> str:
    text = repr(x).replace("\n", " ")
    return text if len(text) < 200 else text[:200] + "..."


class Comparison:
    """Runs calls on both kinds of tensors and collects what is wrong in `problems`."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self.problems: list[str] = []
        self.calls = 0
        self.values = 0
        self.last_error: Raised | None = None

    def run(
        self,
        label: str,
        call: Callable[[Any], Any],
        tree: Any,
        *,
        same_results: bool = True,
        exact: bool = True,
        may_copy: bool = False,
    ) -> None:
        """Runs `call(tree)` on plain and on converted tensors, which must not differ.

        Args:
            label: names the call in messages and in the guard's records.
            call: takes the rebuilt tree; what it returns is compared.
            tree: tensors in containers and whatever else the call needs.
            same_results: False for results that are not initialised or not deterministic.
            exact: False for results that torch itself does not round the same way twice.
            may_copy: True when torch is known to ask for a mutable pointer to what it only reads.
        """
        owners, regions = tensor_bridge.testing.live_owners(), self._guard.live_regions()
        how = functools.partial(difference, exact=exact) if same_results else None
        problems = self._compare(label, call, tree, how, may_copy)
        if not self._all_released(owners, regions):
            # torch's Python layers make cycles now and then.
            gc.collect()
            if not self._all_released(owners, regions):
                problems.append(
                    f"not released: live owners {owners} -> {tensor_bridge.testing.live_owners()},"
                    f" buffers {regions} -> {self._guard.live_regions()}"
                )
        changed = self._guard.take_changed_at_release()
        if changed:
            problems.append(f"{changed} TensorFlow tensors had other bytes when they were released")
        problems += [str(fault) for fault in self._guard.take_faults()]
        self._guard.reclaim()
        self.problems += [f"{label}: {problem}" for problem in problems]

    def _all_released(self, owners: int, regions: int) -> bool:
        live = (tensor_bridge.testing.live_owners(), self._guard.live_regions())
        return live == (owners, regions)

    # A separate function: when it returns, nothing holds a converted tensor any more.
    def _compare(
        self,
        label: str,
        call: Callable[[Any], Any],
        tree: Any,
        compare: _Compare | None,
        may_copy: bool,
    ) -> list[str]:
        problems = []
        plain, converted = Plain(), Converted(self._guard)
        plain_tree, converted_tree = plain.tree(tree), converted.tree(tree)
        expected = outcome(call, plain_tree)
        with self._guard.operator(label):
            got = outcome(call, converted_tree)
        self.calls += 1
        if isinstance(expected, Raised):
            self.last_error = expected
        else:
            self.values += 1
        # A call that raised may have taken a mutable pointer on its way to writing.
        if not may_copy and not isinstance(expected, Raised):
            copied = [key for key in converted.moved() if not plain.mutated(key)]
            if copied:
                problems.append(
                    f"{len(copied)} tensors that were only read moved to torch's memory"
                )
        with self._guard.operator(f"{label}, comparing"):
            if compare is not None:
                if found := compare(expected, got):
                    problems.append(f"result: {found}")
                if found := compare(plain_tree, converted_tree):
                    problems.append(f"arguments after the call: {found}")
            elif isinstance(expected, Raised) != isinstance(got, Raised):
                problems.append(f"expected {_brief(expected)}, got {_brief(got)}")
        if converted.changed():
            problems.append("TensorFlow's bytes changed")
        return problems
