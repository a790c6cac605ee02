"""The torch parts of composites, by which a loader moves and keeps them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Tuple  # noqa: UP035

import pytest
import tensorflow as tf
import torch

import tensor_bridge
from tensor_bridge.composite import _registry


class Two(tf.experimental.ExtensionType):  # type: ignore[misc]
    """An extension type whose fields are nested."""

    first: tf.Tensor
    others: Tuple[tf.RaggedTensor, ...]  # noqa: UP006 (TensorFlow 2.12 knows no other)


COO = torch.tensor([[0.0, 2.0, 0.0, 0.0], [3.0, 0.0, 0.0, 4.0]])
RAGGED = tf.ragged.constant([[1.0], [2.0, 3.0]])
VALUES: dict[str, Callable[[], Any]] = {
    "nested tensor": lambda: tensor_bridge.to_torch(RAGGED),
    "nested tensor with holes": lambda: torch.nested.narrow(
        torch.rand(3, 5), 1, torch.tensor([0, 1, 2]), torch.tensor([2, 3, 1]), layout=torch.jagged
    ),
    "ragged": lambda: tensor_bridge.to_torch(tf.ragged.constant([[[1]], [[2, 3], []]])),
    "string": lambda: tensor_bridge.to_torch(tf.constant([["a", "bc"], ["", "d"]])),
    "ragged strings": lambda: tensor_bridge.to_torch(tf.ragged.constant([["a"], ["b", "c"]])),
    "sparse": COO.to_sparse,
    "sparse, not coalesced": lambda: torch.sparse_coo_tensor(
        [[1, 1]], [2.0, 3.0], (4,), check_invariants=True
    ),
    "sparse csr": COO.to_sparse_csr,
    "sparse csc": COO.to_sparse_csc,
    "sparse bsr": lambda: COO.to_sparse_bsr((1, 2)),
    "sparse bsc": lambda: COO.to_sparse_bsc((2, 1)),
    "extension type": lambda: tensor_bridge.to_torch(Two(tf.constant([1, 2]), (RAGGED, RAGGED))),
}
# These have no tensors yet, belong to a variable that does not move, or have a form that `to_torch`
# never makes.
WITHOUT = {"uninitialized parameter", "live view", "strided nested tensor"}
pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")


def plain(value: Any) -> list[torch.Tensor]:
    """The dense tensors of a value, including the parts of its parts."""
    composite = _registry.for_torch(value)
    if composite is None:
        assert value.layout is torch.strided
        return [value]
    assert composite.parts is not None
    parts, _ = composite.parts(value)
    return [x for part in parts for x in plain(part)]


@pytest.mark.parametrize("name", VALUES)
def test_a_value_is_made_again_of_its_parts(name: str) -> None:
    value = VALUES[name]()
    composite = _registry.for_torch(value)
    assert composite is not None
    assert composite.parts is not None
    parts, make = composite.parts(value)
    again = make(parts)
    assert type(again) is type(value)
    assert repr(again) == repr(value) or "nested" in name
    for x, y in zip(plain(value), plain(again), strict=True):
        assert x.data_ptr() == y.data_ptr()
    if isinstance(value, torch.Tensor):
        assert again.layout is value.layout
        assert again.dtype == value.dtype
        assert len(again.shape) == len(value.shape)


def test_nested_tensors_keep_the_lengths_of_their_rows() -> None:
    for name in ("nested tensor", "nested tensor with holes"):
        value = VALUES[name]()
        parts, make = _registry.for_torch(value).parts(value)  # type: ignore[union-attr, misc]
        again = make([x.clone() for x in parts])
        assert [x.tolist() for x in again.unbind()] == [x.tolist() for x in value.unbind()]
        assert again._maybe_max_seqlen == value._maybe_max_seqlen
        assert (again.lengths() is None) == (value.lengths() is None)


def test_every_kind_says_what_it_is_made_of() -> None:
    kinds = {c.name: c for c in _registry._torch.by_key.values() if c.name not in WITHOUT}
    assert {"ragged", "sparse", "string", "extension type"} <= kinds.keys()
    assert [name for name, composite in kinds.items() if composite.parts is None] == []


def test_what_a_user_registers_is_taken_apart_by_the_users_functions() -> None:
    class Tf:
        pass

    class Torch:
        def __init__(self, x: torch.Tensor) -> None:
            self.x = x

    tensor_bridge.register_composite(
        "mine",
        Tf,
        Torch,
        tf_flatten=lambda _: ([], None),
        torch_unflatten=lambda _, parts: Torch(*parts),
        torch_flatten=lambda value: ([value.x], None),
        tf_unflatten=lambda _, parts: Tf(),
    )
    try:
        value = Torch(torch.ones(2))
        assert plain(value) == [value.x]
    finally:
        tensor_bridge.unregister_composite("mine")
