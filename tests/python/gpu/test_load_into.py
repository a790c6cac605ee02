"""The weights of a checkpoint into modules on a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tensor_bridge import MismatchError, checkpoint


def test_modules_on_a_gpu() -> None:
    module = nn.ModuleDict({"embed": nn.Embedding(5, 4), "out": nn.Linear(4, 5, bias=False)})
    module["out"].weight = module["embed"].weight
    module.cuda()
    table = torch.rand(5, 4)
    weights = {"embed/embeddings": table, "out/kernel": table.t().clone()}
    assert checkpoint.load_into(module, weights).complete
    assert torch.equal(module["out"].weight.cpu(), table)
    weights["out/kernel"][0, 0] += 1
    with pytest.raises(MismatchError, match="share memory in the module, but their values differ"):
        checkpoint.load_into(module, weights)
    lazy = nn.LazyLinear(2).cuda()
    kernel = torch.rand(3, 2)
    assert checkpoint.load_into(lazy, {"kernel": kernel, "bias": torch.rand(2)}).complete
    assert lazy.weight.is_cuda
    assert torch.equal(lazy.weight.cpu(), kernel.t())
