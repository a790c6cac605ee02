"""Training on converted weights, data and gradients only writes to torch's memory."""

from __future__ import annotations

import pytest
import torch
from sharing import SHAPE, Shared, numbers, plain
from torch import nn
from writes import OPTIMIZERS

from tensor_bridge.testing import shares_memory


def test_requires_grad_tensor_is_written_under_no_grad() -> None:
    shared = Shared()
    x = shared.torch.requires_grad_()
    (x * x).sum().backward()
    assert torch.equal(x.grad, 2 * x.detach())
    shared.assert_shared()
    with torch.no_grad():
        x.sub_(x.grad, alpha=0.5)
    assert not x.any()
    shared.assert_moved()


def test_write_to_a_saved_tensor_is_noticed_by_autograd() -> None:
    shared = Shared()
    x = shared.torch
    w = torch.ones(SHAPE, requires_grad=True)
    loss = (x * w).sum()
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    shared.assert_moved()


def test_write_through_data_leaves_a_saved_tensor_with_the_new_values_as_in_torch() -> None:
    shared = Shared()
    for x in (shared.torch, plain(shared.torch)):
        w = torch.ones(SHAPE, requires_grad=True)
        loss = (x * w).sum()
        x.data.fill_(3)
        loss.backward()
        assert bool((w.grad == 3).all())
    shared.assert_moved()


def test_gradient_handed_to_backward_is_not_accumulated_in_place() -> None:
    shared = Shared()
    w = torch.ones(SHAPE, requires_grad=True)
    for count in (1, 2, 3):
        (w * 1).backward(gradient=shared.torch)
        assert torch.equal(w.grad, count * shared.torch)
        shared.assert_untouched()
    shared.assert_shared()
    w.grad.zero_()
    shared.assert_untouched()


def test_zero_grad_leaves_the_gradient_of_tensorflow() -> None:
    shared = Shared()
    w = nn.Parameter(torch.ones(SHAPE))
    w.grad = shared.torch
    torch.optim.SGD([w], lr=1.0).zero_grad(set_to_none=False)
    assert not w.grad.any()
    shared.assert_moved()


def test_clip_grad_norm_leaves_the_gradient_of_tensorflow() -> None:
    shared = Shared()
    w = nn.Parameter(torch.ones(SHAPE))
    w.grad = shared.torch
    nn.utils.clip_grad_norm_([w], 1.0)
    assert abs(float(w.grad.norm()) - 1) < 1e-3
    shared.assert_moved()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_moves_parameters_and_spares_tensorflow(name: str) -> None:
    weight, gradient = Shared(), Shared()
    ours, theirs = nn.Parameter(weight.torch), nn.Parameter(plain(weight.torch))
    weight.assert_shared(ours)
    ours.grad, theirs.grad = gradient.torch, plain(gradient.torch)
    for parameter in (ours, theirs):
        optimizer = OPTIMIZERS[name]([parameter])
        for _ in range(3):
            optimizer.step(lambda parameter=parameter: parameter.detach().sum())
    weight.assert_moved(ours)
    gradient.assert_untouched()
    assert torch.equal(ours, theirs)


def test_module_trains_on_converted_weights() -> None:
    torch.manual_seed(0)
    weight, bias = Shared(numbers((3, 6))), Shared(numbers((3,)))
    data = Shared()
    model, reference = nn.Linear(6, 3), nn.Linear(6, 3)
    model.load_state_dict({"weight": weight.torch, "bias": bias.torch}, assign=True)
    weight.assert_shared(model.weight)
    reference.load_state_dict({"weight": weight.torch, "bias": bias.torch})
    weight.assert_shared()
    assert not shares_memory(weight.tf, reference.weight)
    for network, batch in ((model, data.torch), (reference, plain(data.torch))):
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            network(batch).square().mean().backward()
            optimizer.step()
    assert torch.equal(model.weight, reference.weight)
    weight.assert_moved(model.weight)
    bias.assert_moved(model.bias)
    data.assert_shared()


def test_batch_norm_statistics() -> None:
    mean, variance, data = Shared(numbers((6,))), Shared(numbers((6,))), Shared()
    norm = nn.BatchNorm1d(6)
    norm.running_mean, norm.running_var = mean.torch, variance.torch
    norm(data.torch)
    assert not torch.equal(mean.torch, torch.arange(6.0))
    mean.assert_moved()
    variance.assert_moved()
    data.assert_shared()
