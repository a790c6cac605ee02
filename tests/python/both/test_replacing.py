"""Calls that give a tensor other memory, or its memory to another tensor."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler

import needs
import pytest
import torch
from sharing import SHAPE, plain, saved, values
from torch import nn
from ways import Way

from tensor_bridge.testing import torch_data_address


def test_moved_tensor_is_resizable(sharing_way: Way) -> None:
    shared = sharing_way.share()
    shared.torch.add_(1)
    shared.torch.resize_(10, 10)
    assert torch.equal(shared.torch.view(-1)[:24], torch.arange(24.0) + 1)
    shared.torch.fill_(2)
    shared.assert_moved()


def test_resize_to_more_moves(sharing_way: Way) -> None:
    shared = sharing_way.share()
    shared.torch.resize_(10, 10)
    assert torch.equal(shared.torch.view(-1)[:24], torch.arange(24.0))
    shared.assert_moved()
    shared.torch.fill_(2)
    assert bool((shared.torch == 2).all())
    shared.assert_untouched()


def test_resize_to_less_stays_shared_until_the_write(sharing_way: Way) -> None:
    shared = sharing_way.share()
    x = shared.torch.resize_(2, 3)
    shared.assert_shared(x.view(-1)[:6])
    x.fill_(9)
    shared.assert_moved()
    assert torch.equal(x.resize_(4, 6)[1:], torch.arange(6.0, 24.0).reshape(3, 6))


def test_set_onto_a_converted_storage_shares_and_protects(sharing_way: Way) -> None:
    shared = sharing_way.share()
    x = torch.empty(0)
    x.set_(shared.torch.untyped_storage(), 6, (6,), (1,))
    x.zero_()
    assert not shared.torch[1].any()
    shared.assert_moved()


def test_converted_tensor_gets_other_memory_through_data(sharing_way: Way) -> None:
    shared = sharing_way.share()
    other = torch.zeros(SHAPE)
    shared.torch.data = other
    shared.torch.fill_(3)
    assert torch_data_address(shared.torch) == torch_data_address(other)
    assert bool((other == 3).all())
    shared.assert_untouched()


@pytest.mark.parametrize("nbytes", [0, 8, 96, 4096])
def test_storage_resize(nbytes: int, sharing_way: Way) -> None:
    shared = sharing_way.share()
    storage = shared.torch.untyped_storage()
    storage.resize_(nbytes)
    assert storage.nbytes() == nbytes
    shared.assert_untouched()
    storage.resize_(4096)
    shared.torch.fill_(1)
    assert bool((shared.torch == 1).all())
    shared.assert_untouched()


def test_set_leaves_the_views_behind(sharing_way: Way) -> None:
    shared = sharing_way.share()
    view = shared.torch[1]
    shared.torch.set_(torch.zeros(2))
    shared.torch.fill_(5)
    assert torch_data_address(view) == shared.address + 24
    view.zero_()
    assert torch_data_address(view) != shared.address + 24
    shared.assert_untouched()


@pytest.mark.parametrize("way", [".data", "set_", "swap_tensors", "copy_"])
def test_other_tensor_gets_the_shared_memory(way: str, sharing_way: Way) -> None:
    shared = sharing_way.share()
    x = torch.zeros(SHAPE)
    if way == ".data":
        x.data = shared.torch
    elif way == "set_":
        x.set_(shared.torch)
    elif way == "swap_tensors":
        torch.utils.swap_tensors(x, shared.torch)
    else:
        x.copy_(shared.torch)
    assert torch.equal(x, values())
    x.add_(1)
    assert torch.equal(x, values() + 1)
    shared.assert_untouched()


def test_swap_of_two_shared_tensors(sharing_way: Way) -> None:
    first, second = sharing_way.share(), sharing_way.share(sharing_way.leaf((2, 3)))
    torch.utils.swap_tensors(first.torch, second.torch)
    assert first.torch.shape == (2, 3)
    first.assert_shared(second.torch)
    second.torch.zero_()
    first.assert_moved(second.torch)
    second.assert_shared(first.torch)


def test_shared_memory_is_torchs_own(sharing_way: Way) -> None:
    shared = sharing_way.share()
    x = shared.torch
    assert not x.is_shared()
    x.share_memory_()
    assert x.is_shared()
    assert torch.equal(x, values())
    shared.assert_moved()
    x.fill_(1)
    shared.assert_untouched()
    assert x.is_shared()


SERIALISERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "torch.save": saved,
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "ForkingPickler": lambda x: pickle.loads(ForkingPickler.dumps(x)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "clone": torch.clone,
    "dlpack copy": lambda x: torch.from_dlpack(x, copy=True),
}


@pytest.mark.parametrize(
    "way", needs.parameters(SERIALISERS, {"dlpack copy": needs.torch_dlpack_copies})
)
@pytest.mark.parametrize("taken", ["tensor", "slice", "parameter"])
def test_copies_made_by_serialisation_are_torchs_own(
    way: str, taken: str, sharing_way: Way
) -> None:
    shared = sharing_way.share()
    x = shared.torch
    if taken == "slice":
        x = x[1:, 2:]
    elif taken == "parameter":
        x = nn.Parameter(x)
    if taken == "parameter" and way == "dlpack copy":
        x = x.detach()
    expected = plain(x)
    other = SERIALISERS[way](x)
    assert torch.equal(other.detach(), expected)
    shared.assert_untouched()
    with torch.no_grad():
        other.add_(1)
        shared.assert_untouched()
        x.zero_()
    shared.assert_untouched()


def test_saved_views_share_with_each_other(sharing_way: Way) -> None:
    shared = sharing_way.share()
    first, second = saved((shared.torch, shared.torch[1]))
    assert second.tolist() == [6, 7, 8, 9, 10, 11]
    first.zero_()
    assert not second.any()
    shared.assert_untouched()
