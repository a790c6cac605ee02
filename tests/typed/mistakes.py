"""Users' mistakes that a checker must find: one on each line marked "error", none elsewhere."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import tensor_bridge
from tensor_bridge import StringTensor, TensorBridge, checkpoint, data, dlpack, testing


def mistakes(value: Any, x: torch.Tensor, module: nn.Module) -> None:
    tensor_bridge.to_torch(value, on_write="clone")  # error
    tensor_bridge.to_torch(value, copy="never")  # error
    tensor_bridge.to_torch(value, string="list")  # error
    tensor_bridge.to_torch()  # error
    tensor_bridge.to_tf(x, grad="keep")  # error
    tensor_bridge.to_pytorch(value)  # error
    TensorBridge().to_tf(x, gradient="detach")  # error
    tensor_bridge.explain(value, live=3)  # error
    print(tensor_bridge.explain(value).nothing)  # error
    tensor_bridge.assign(value)  # error
    tensor_bridge.release_previous()  # error
    StringTensor.from_list(["a"], errors=1)  # error
    data.loader(value, on_error="ignore")  # error
    data.loader(value, prefetch="many")  # error
    data.loader(value, prefetc=3)  # error
    data.loader(value, batch_size=4)  # error
    data.TorchDataset(value, resume=True)  # error
    checkpoint.load(3)  # error
    checkpoint.load_into(x, "path")  # error
    checkpoint.save(module, "path")  # error
    dlpack.from_dlpack(x, framework="jax")  # error
    testing.shares_memory(value)  # error
    size: str = testing.live_owners()  # error
    print(size)
