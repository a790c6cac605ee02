"""The first write through torch moves torch to its own memory, and TensorFlow's values stay.

`write_protection/test_op_db.py` tests each operator. The tests here are for the ways to write: each
kind of call, view, storage access, pointer and protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import needs
import pytest
import torch
from sharing import SHAPE, plain, torch_bytes, values
from torch import nn
from ways import TO_TF, TO_TORCH, Way
from writes import WAYS, WRITES

from tensor_bridge.testing import torch_data_address


@pytest.mark.parametrize("write", WAYS)
def test_first_write_moves_torch_once_and_never_tensorflow(
    write: str, sharing_way: Way, interface: Any
) -> None:
    shared = sharing_way.share(interface=interface)
    x, expected = shared.torch, plain(shared.torch)
    WRITES[write](x)
    WRITES[write](expected)
    shared.assert_moved()
    # Compared as bytes, because raw writes make NaNs.
    assert torch_bytes(x) == torch_bytes(expected)
    address = torch_data_address(x)
    WRITES[write](x)
    WRITES[write](expected)
    assert torch_data_address(x) == address
    assert torch_bytes(x) == torch_bytes(expected)
    shared.assert_untouched()


def views(x: torch.Tensor) -> list[torch.Tensor]:
    return [
        x.detach(),
        x.view(-1),
        x.t(),
        x[:, 1:],
        x[2],
        x.as_strided((3,), (7,), 1),
        x.view(torch.int32),
        x.unsqueeze(0).expand(5, *SHAPE),
        torch.empty(0).set_(x),
        nn.Parameter(x),
    ]


# Before a conversion to torch there is no tensor from which views could be made.
MOMENTS = [
    pytest.param(TO_TORCH, "after", id="to_torch-after"),
    pytest.param(TO_TF, "before", id="to_tf-before", marks=needs.shares_to_tf),
    pytest.param(TO_TF, "after", id="to_tf-after", marks=needs.shares_to_tf),
]


@pytest.mark.parametrize("writer", range(-1, 10))
@pytest.mark.parametrize(("way", "taken"), MOMENTS)
def test_all_views_of_the_storage_move_together(writer: int, taken: str, way: Way) -> None:
    x = values()
    everything = [x, *views(x)] if taken == "before" else []
    shared = way.share(x if way is TO_TF else None)
    x = shared.torch
    everything = everything or [x, *views(x)]
    offsets = [torch_data_address(v) - torch_data_address(x) for v in everything]
    written = everything[writer + 1].detach()
    if writer == 7:
        written = written[0]
    written.fill_(41)
    shared.assert_moved()
    address = torch_data_address(x)
    assert [torch_data_address(v) - address for v in everything] == offsets
    assert len({v.untyped_storage()._cdata for v in everything}) == 1
    x.fill_(5)
    for v in everything:
        same = v.view(torch.float32) if v.dtype == torch.int32 else v
        assert bool((same == 5).all())
    shared.assert_untouched()


def test_view_outlives_the_tensor_it_was_taken_from(sharing_way: Way) -> None:
    shared = sharing_way.share()
    view = shared.torch[1:3].t()
    expected = plain(view)
    del shared.torch
    shared.assert_untouched()
    assert torch.equal(view, expected)
    assert torch_data_address(view) == shared.address + 24
    view.mul_(2)
    assert torch.equal(view, expected * 2)
    shared.assert_untouched()


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_under_every_grad_mode(context: Callable[[], Any], sharing_way: Way) -> None:
    shared = sharing_way.share()
    with context():
        shared.torch.clamp_(2, 5)
    shared.assert_moved()
    assert shared.torch.max() == 5
    with context():
        shared = sharing_way.share()
        shared.torch.add_(1)
        shared.assert_moved()


def test_gradient_that_is_shared_is_accumulated_in_torch_memory(sharing_way: Way) -> None:
    shared = sharing_way.share()
    w = torch.ones(SHAPE, requires_grad=True)
    w.grad = shared.torch
    (w * 2).sum().backward()
    assert torch.equal(w.grad, values() + 2)
    shared.assert_moved(w.grad)


def test_load_state_dict_into_shared_parameters(sharing_way: Way) -> None:
    shared = sharing_way.share()
    model = nn.Linear(6, 4, bias=False)
    model.weight = nn.Parameter(shared.torch)
    model.load_state_dict({"weight": torch.full(SHAPE, 3.0)})
    assert bool((model.weight == 3).all())
    shared.assert_moved(model.weight)
