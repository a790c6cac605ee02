"""Reading never moves a converted tensor, except by calls that get a mutable pointer from torch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import needs
import numpy as np
import pytest
import tensorflow as tf
import torch
import torch.nn.functional as F
from sharing import SHAPE, Shared, numbers, plain, values
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.data import DataLoader, TensorDataset, default_collate
from ways import Way

import tensor_bridge
from tensor_bridge.testing import shares_memory, torch_data_address

Read = Callable[[torch.Tensor], Any]


def square() -> torch.Tensor:
    return torch.eye(6) + 1


def gradient(x: torch.Tensor) -> torch.Tensor:
    w = torch.ones(SHAPE, requires_grad=True)
    (w * x).sin().sum().backward()
    return w.grad


def gradient_of_input(x: torch.Tensor) -> torch.Tensor:
    leaf = x.detach().requires_grad_()
    (leaf**2).sum().backward()
    return leaf.grad


def module(x: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.LayerNorm(5), nn.Linear(5, 2))
    return network(x).detach()


def transformer(x: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True).eval()
    with torch.no_grad():
        return layer(x.unsqueeze(0))


def loaded(x: torch.Tensor) -> list[torch.Tensor]:
    return [batch[0] for batch in DataLoader(TensorDataset(x), batch_size=2)]


def state(x: torch.Tensor) -> torch.Tensor:
    holder = nn.Module()
    holder.register_buffer("x", x)
    return holder.state_dict()["x"]


OPERATORS: dict[str, Read] = {
    "+": lambda x: x + 1,
    "comparison": lambda x: (x > 3) & (x != 5),
    "matmul": lambda x: x @ x.t(),
    "mv": lambda x: x @ torch.ones(6),
    "einsum": lambda x: torch.einsum("ij,kj->ik", x, x),
    "bmm": lambda x: torch.bmm(x.expand(3, *SHAPE), x.t().expand(3, 6, 4)),
    "sum": lambda x: x.sum(),
    "mean, std": lambda x: (x.mean(0), x.std(1)),
    "max": lambda x: (x.max(), x.max(1), x.amax(0), x.argmax()),
    "median": lambda x: x.median(),
    "sort": lambda x: x.sort(descending=True),
    "topk": lambda x: x.topk(2),
    "unique": lambda x: x.unique(),
    "cumsum": lambda x: x.cumsum(1),
    "where": lambda x: torch.where(x > 3, x, -x),
    "gather": lambda x: x.gather(1, torch.ones(4, 2, dtype=torch.long)),
    "index": lambda x: (x[1], x[:, 2], x[[0, 3]], x[x > 4], x[..., None]),
    "cat": lambda x: torch.cat([x, x]),
    "stack": lambda x: torch.stack([x, x]),
    "linear": lambda x: F.linear(x, square()),
    "conv": lambda x: F.conv1d(x.unsqueeze(0), torch.ones(2, 4, 3)),
    "pool": lambda x: F.max_pool1d(x, 2),
    "interpolate": lambda x: F.interpolate(x[None, None], scale_factor=2, mode="bilinear"),
    "softmax": lambda x: x.softmax(-1),
    "layer_norm": lambda x: F.layer_norm(x, (6,)),
    "batch_norm": lambda x: F.batch_norm(x, torch.zeros(6), torch.ones(6)),
    "cross_entropy": lambda x: F.cross_entropy(x, torch.tensor([0, 1, 2, 3])),
    "embedding": lambda x: F.embedding(torch.tensor([1, 3]), x),
    "attention": lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None]),
    "cdist": lambda x: torch.cdist(x, x),
    "fft": lambda x: torch.fft.rfft(x),
    "svd": lambda x: torch.linalg.svdvals(x),
    "solve": lambda x: torch.linalg.solve(square(), x.t()),
    "inverse": lambda x: torch.linalg.inv(x[:, :4] + 30 * torch.eye(4)),
    "cholesky": lambda x: torch.linalg.cholesky(x @ x.t() + torch.eye(4)),
    "_foreach_add": lambda x: torch._foreach_add([x, x], 1),
    "_foreach_norm": lambda x: torch._foreach_norm([x, x]),
    "bernoulli": lambda x: torch.bernoulli(x / 24),
    "equal": lambda x: torch.equal(x, x),
    "allclose": lambda x: torch.allclose(x, x + 1e-9),
    "assert_close": lambda x: torch.testing.assert_close(x, x.clone()),
    "in place on another": lambda x: torch.zeros(SHAPE).add_(x).mul_(x),
    "out= another": lambda x: torch.add(x, x, out=torch.empty(SHAPE)),
    "setitem of another": lambda x: torch.zeros(SHAPE).__setitem__(1, x[0]),
    "autograd": gradient,
    "autograd of input": gradient_of_input,
    "module": module,
    "transformer": transformer,
    "vmap": lambda x: torch.func.vmap(torch.sum)(x),
    "jacrev": lambda x: torch.func.jacrev(torch.sin)(x[0]),
    "jvp": lambda x: torch.func.jvp(torch.sin, (x,), (x,)),
    "make_fx": lambda x: make_fx(torch.sin)(x)(x),
    "inference_mode": lambda x: torch.inference_mode()(torch.sin)(x).clone(),
    "loader": loaded,
    "collate": lambda x: default_collate([x[0], x[1]]),
    "parameters_to_vector": lambda x: nn.utils.parameters_to_vector([x, x]),
    "clone": torch.clone,
    "contiguous of a transposed view": lambda x: x.t().contiguous(),
    "to(dtype)": lambda x: (x.double(), x.half(), x.to(torch.int32), x.bool()),
    "new_tensor": lambda x: (x.new_zeros(2), torch.zeros_like(x), x.new_tensor(x.tolist())),
    "deepcopy": copy.deepcopy,
    "dlpack with copy": lambda x: torch.from_dlpack(x, copy=True),
    "storage clone": lambda x: list(x.untyped_storage().clone()),
}

ACCESSORS: dict[str, Read] = {
    "repr": repr,
    "str": str,
    "format": lambda x: f"{x[0, 1]:.2f}",
    "item": lambda x: x[1, 1].item(),
    "tolist": torch.Tensor.tolist,
    "float": lambda x: (float(x[0, 1]), int(x[0, 2]), bool(x[0, 3]), complex(x[1, 1])),
    "index protocol": lambda x: [10, 20, 30][x[0, 2].int()],
    "iteration": lambda x: [row.tolist() for row in x],
    "len, hash, dir": lambda x: (len(x), len({x}), len(dir(x))),
    "in": lambda x: (5 in x, 99 in x),
    "metadata": lambda x: (x.shape, x.stride(), x.dtype, x.device, x.layout, x.nbytes, x.is_leaf),
    "is_shared": lambda x: (x.is_shared(), x.is_pinned(), x.is_inference(), x._version),
    "storage reads": lambda x: (
        x.untyped_storage()[4],
        len(x.untyped_storage()),
        x.untyped_storage().nbytes(),
        x.untyped_storage().tolist(),
        x.untyped_storage().resizable(),
    ),
    "__dlpack_device__": lambda x: tuple(map(int, x.__dlpack_device__())),
    "hooks": lambda x: x.requires_grad_().register_hook(lambda g: g).remove(),
    "pretty printed module": lambda x: repr(nn.ParameterList([nn.Parameter(x)])),
}

# Other tensor objects over the same memory.
VIEWS: dict[str, Read] = {
    "detach": torch.Tensor.detach,
    "data": lambda x: x.data,
    "requires_grad_": lambda x: x.requires_grad_(),
    "view": lambda x: x.view(-1),
    "reshape": lambda x: x.reshape(2, 12),
    "t": torch.t,
    "slice from the start": lambda x: x[:2, ::2],
    "as_strided": lambda x: x.as_strided((2, 2), (1, 1)),
    "view(dtype)": lambda x: x.view(torch.int16),
    "expand": lambda x: x.expand(7, *SHAPE),
    "contiguous": torch.Tensor.contiguous,
    "to the same dtype and device": lambda x: x.to("cpu", torch.float32),
    "asarray": torch.asarray,
    "Parameter": nn.Parameter,
    "state_dict": state,
    "copy.copy": copy.copy,
    "squeeze_ of unsqueeze_": lambda x: x.detach().unsqueeze_(0).squeeze_(0),
    "t_": lambda x: x.detach().t_(),
    "detach_": lambda x: x.detach_(),
    "resize_ to the same": lambda x: x.detach().resize_(SHAPE),
    "set_ of another onto it": lambda x: torch.empty(0).set_(x),
    "alias": lambda x: torch.ops.aten.alias(x),
    "subclass": lambda x: x.as_subclass(nn.Buffer),
}

# Reads for which torch gets a mutable pointer; the documentation lists them.
COPYING_READS: dict[str, Read] = {
    "data_ptr": torch.Tensor.data_ptr,
    "storage data_ptr": lambda x: x.untyped_storage().data_ptr(),
    "numpy": torch.Tensor.numpy,
    "np.asarray": np.asarray,
    "np.array": np.array,
    "__dlpack__": lambda x: x.__dlpack__(),
    "from_dlpack": torch.from_dlpack,
    "LSTM": lambda x: nn.LSTM(6, 3)(x),
}
if needs.ONEDNN_COPIES:
    COPYING_READS["linear"] = lambda x: nn.Linear(6, 5)(x)


def flat(value: Any) -> list[Any]:
    if isinstance(value, (tuple, list)):
        return [leaf for part in value for leaf in flat(part)]
    return [plain(value).tolist() if isinstance(value, torch.Tensor) else value]


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # jvp uses it
@pytest.mark.parametrize(
    "name", needs.parameters(OPERATORS, {"dlpack with copy": needs.torch_dlpack_copies})
)
def test_operator_reads_in_place(name: str, sharing_way: Way) -> None:
    shared = sharing_way.share()
    seed = torch.manual_seed
    seed(0)
    with needs.reading_in_place():
        result = flat(OPERATORS[name](shared.torch))
        shared.assert_shared()
        seed(0)
        expected = flat(OPERATORS[name](plain(shared.torch)))
    assert repr(result) == repr(expected)


@pytest.mark.parametrize("name", ACCESSORS)
def test_accessor_reads_in_place(name: str, sharing_way: Way) -> None:
    shared = sharing_way.share()
    result = ACCESSORS[name](shared.torch)
    shared.assert_shared()
    assert result == ACCESSORS[name](plain(shared.torch))


@pytest.mark.parametrize("name", VIEWS)
def test_view_is_the_same_memory(name: str, sharing_way: Way) -> None:
    shared = sharing_way.share()
    view = VIEWS[name](shared.torch)
    shared.assert_shared()
    shared.assert_shared(view)
    expected = VIEWS[name](plain(values()))
    assert torch.equal(view.detach(), expected.detach())
    assert view.requires_grad == expected.requires_grad
    address = shared.address
    del shared
    assert torch_data_address(view) == address
    assert torch.equal(view.detach(), expected.detach())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", COPYING_READS)
def test_read_through_a_mutable_pointer_copies_and_says_the_same(name: str) -> None:
    shared = Shared()
    result = COPYING_READS[name](shared.torch)
    shared.assert_moved()
    assert torch.equal(shared.torch, torch.arange(24.0).reshape(SHAPE))
    if isinstance(result, np.ndarray):
        assert result.tolist() == shared.torch.tolist()
    elif isinstance(result, int):
        assert result == torch_data_address(shared.torch)


def test_copy_on_read_is_seen_by_every_view_at_once() -> None:
    shared = Shared()
    view = shared.torch[1]
    array = shared.torch.numpy()
    array[1] = -1
    assert bool((view == -1).all())
    shared.assert_untouched()


@pytest.mark.parametrize("dtype", [tf.int64, tf.uint8, tf.complex64, tf.bool], ids=lambda d: d.name)
def test_reads_of_other_dtypes(dtype: tf.DType) -> None:
    shared = Shared(numbers(dtype=dtype))
    x = shared.torch
    flat(
        [
            x.clone(),
            x.sum(),
            x[1],
            x.tolist(),
            x == x,
            x.to(torch.float64 if dtype != tf.complex64 else None),
        ]
    )
    repr(x)
    if dtype != tf.complex64:
        x.sort()
    shared.assert_shared()


def test_result_is_an_ordinary_leaf() -> None:
    shared = Shared()
    x = shared.torch
    assert type(x) is torch.Tensor
    assert x.is_leaf
    assert not x.requires_grad
    assert x.grad is None
    assert x._version == 0
    assert x.is_contiguous()
    assert x.storage_offset() == 0
    assert x.untyped_storage().nbytes() == 96
    assert x.untyped_storage().resizable()


def test_zero_copy_checks_of_the_testing_module_materialise_nothing() -> None:
    shared = Shared()
    for _ in range(3):
        assert shares_memory(shared.tf, shared.torch)
        assert tensor_bridge.testing.live_owners() >= 1
    shared.assert_shared()
