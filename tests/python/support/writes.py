"""Ways to write to a torch tensor through Python; the tests say what must happen."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import needs
import numpy as np
import torch
import torch.nn.functional as F
from sharing import SHAPE
from torch import nn

Write = Callable[[torch.Tensor], Any]


def value() -> torch.Tensor:
    return torch.full(SHAPE, 0.5)


def set_item(index: Any, new: Any) -> Write:
    def write(x: torch.Tensor) -> None:
        x[index] = new

    return write


def iadd(x: torch.Tensor) -> None:
    x += 1


def ipow(x: torch.Tensor) -> None:
    x **= 2


def by_pointer(x: torch.Tensor) -> None:
    ctypes.memset(x.data_ptr(), 1, 4)


def by_storage_pointer(x: torch.Tensor) -> None:
    ctypes.memset(x.untyped_storage().data_ptr(), 1, 4)


def by_array(x: torch.Tensor) -> None:
    x.numpy()[1] = 7


def by_asarray(x: torch.Tensor) -> None:
    np.asarray(x)[1] = 7


def by_array_ufunc(x: torch.Tensor) -> None:
    array = x.numpy()
    np.add(array, 1, out=array)


def by_capsule(x: torch.Tensor) -> None:
    torch.utils.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(x)).add_(1)


def by_dlpack(x: torch.Tensor) -> None:
    torch.from_dlpack(x).add_(1)


def by_numpy_dlpack(x: torch.Tensor) -> None:
    # NumPy marks an array as read-only if the producer says so; torch never does.
    np.from_dlpack(x)[0] = 9


def storage_set_item(x: torch.Tensor) -> None:
    x.untyped_storage()[0] = 7


def storage_copy(x: torch.Tensor) -> None:
    x.untyped_storage().copy_(value().untyped_storage())


def foreign_view(x: torch.Tensor) -> None:
    """Writes through an unrelated tensor over the same storage."""
    torch.empty(0).set_(x.untyped_storage(), 0, SHAPE, (6, 1)).add_(1)


def seeded(write: Write) -> Write:
    def run(x: torch.Tensor) -> None:
        torch.manual_seed(1)
        write(x)

    return run


IN_PLACE: dict[str, Write] = {
    "add_": lambda x: x.add_(1),
    "mul_": lambda x: x.mul_(3),
    "zero_": lambda x: x.zero_(),
    "fill_": lambda x: x.fill_(7),
    "copy_": lambda x: x.copy_(value()),
    "copy_ of equal values": lambda x: x.copy_(x.clone()),
    "copy_ from itself transposed": lambda x: x[:, :4].copy_(x[:, :4].clone().T),
    "clamp_": lambda x: x.clamp_(2, 5),
    "addmm_": lambda x: x.addmm_(torch.ones(4, 3), torch.ones(3, 6)),
    "index_fill_": lambda x: x.index_fill_(0, torch.tensor([1]), 9),
    "index_add_": lambda x: x.index_add_(0, torch.tensor([1]), torch.ones(1, 6)),
    "index_put_": lambda x: x.index_put_((torch.tensor([1]),), torch.tensor(5.0)),
    "scatter_": lambda x: x.scatter_(0, torch.zeros(1, 6, dtype=torch.long), 5.0),
    "masked_fill_": lambda x: x.masked_fill_(x > 3, 0),
    "masked_scatter_": lambda x: x.masked_scatter_(x > 3, torch.zeros(24)),
    "put_": lambda x: x.put_(torch.tensor([3]), torch.tensor([5.0])),
    "fill_diagonal_": lambda x: x.fill_diagonal_(8),
    "tril_": lambda x: x.tril_(-1),
    "cumsum_": lambda x: x.cumsum_(0),
    "apply_": lambda x: x.apply_(lambda v: v + 1),
    "map_": lambda x: x.map_(value(), lambda a, b: a + b),
    "normal_": seeded(lambda x: x.normal_()),
    "bernoulli_": seeded(lambda x: x.bernoulli_()),
    "random_": seeded(lambda x: x.random_(0, 9)),
    "+=": iadd,
    "**=": ipow,
    "x[0] = 1": set_item(0, 1),
    "x[:, 1] = tensor": set_item((slice(None), 1), torch.arange(4.0)),
    "x[...] = 1": set_item(..., 1),
    "x[mask] = 1": set_item(torch.eye(4, 6, dtype=torch.bool), 1),
    "x[[0, 2]] = 1": set_item([0, 2], 1),
    "x[::2, 1::2] = 1": set_item((slice(None, None, 2), slice(1, None, 2)), 1),
    "nn.init": seeded(lambda x: nn.init.xavier_uniform_(x)),
    "relu inplace": lambda x: F.threshold(x, 3, 0, inplace=True),
    "dropout inplace": seeded(lambda x: F.dropout(x, 0.5, training=True, inplace=True)),
    "_foreach_add_": lambda x: torch._foreach_add_([x], 1),
    "_foreach_zero_": lambda x: torch._foreach_zero_([x]),
    "_foreach_copy_": lambda x: torch._foreach_copy_([x], [value()]),
    "_foreach_lerp_": lambda x: torch._foreach_lerp_([x], [value()], 0.5),
    "no_grad": lambda x: torch.no_grad()(lambda: x.add_(1))(),
    "inference_mode": lambda x: torch.inference_mode()(lambda: x.add_(1))(),
}

OUT: dict[str, Write] = {
    "add": lambda x: torch.add(value(), 1, out=x),
    "mul by itself": lambda x: torch.mul(x, x, out=x),
    "matmul": lambda x: torch.matmul(torch.ones(4, 3), torch.ones(3, 6), out=x),
    "cat": lambda x: torch.cat([value()[:2], value()[2:]], out=x),
    "stack": lambda x: torch.stack(list(value()), out=x),
    "sort": lambda x: torch.sort(-value(), out=(x, torch.empty(SHAPE, dtype=torch.long))),
    "index_select": lambda x: torch.index_select(value(), 0, torch.arange(4), out=x),
    "zeros": lambda x: torch.zeros(SHAPE, out=x),
    "arange": lambda x: torch.arange(24.0, out=x.view(-1)),
    "randn": seeded(lambda x: torch.randn(SHAPE, out=x)),
    "gather": lambda x: torch.gather(value(), 0, torch.zeros(SHAPE, dtype=torch.long), out=x),
    "sum": lambda x: torch.sum(torch.ones(3, *SHAPE), 0, out=x),
    "where": lambda x: torch.where(value() > 0, value(), value() + 1, out=x),
}

THROUGH_VIEWS: dict[str, Write] = {
    "detach()": lambda x: x.detach().add_(1),
    ".data": lambda x: x.data.add_(1),
    "view": lambda x: x.view(-1).add_(1),
    "transpose": lambda x: x.t().add_(1),
    "slice": lambda x: x[1:3].zero_(),
    "last element": lambda x: x[3, 5].fill_(99),
    "select": lambda x: x.select(1, 2).add_(1),
    "diagonal": lambda x: x.diagonal().fill_(8),
    "as_strided": lambda x: x.as_strided((2,), (5,), 3).add_(1),
    "view(dtype)": lambda x: x.view(torch.int32).add_(1),
    "unbind": lambda x: x.unbind(1)[3].add_(1),
    "chunk": lambda x: x.chunk(2)[1].mul_(2),
    "split": lambda x: x.split([1, 3])[0].mul_(-1),
    "unfold": lambda x: x.unfold(1, 2, 2).add_(1),
    "unsqueeze and expand back": lambda x: x.expand(1, *SHAPE).add_(1),
    "alias": lambda x: torch.ops.aten.alias(x).add_(1),
    "view of a view": lambda x: x.view(2, 12)[1].view(3, 4).t()[2].zero_(),
    "another tensor over the storage": foreign_view,
    "nn.Parameter": lambda x: torch.no_grad()(lambda: nn.Parameter(x).add_(1))(),
    "subclass": lambda x: x.as_subclass(nn.Buffer).add_(1),
}

RAW: dict[str, Write] = {
    "data_ptr()": by_pointer,
    "storage data_ptr()": by_storage_pointer,
    "numpy()": by_array,
    "np.asarray": by_asarray,
    "ufunc out=": by_array_ufunc,
    "to_dlpack": by_capsule,
    "from_dlpack": by_dlpack,
    "np.from_dlpack": by_numpy_dlpack,
    "storage[0] =": storage_set_item,
    "storage.fill_": lambda x: x.untyped_storage().fill_(3),
    "storage.copy_": storage_copy,
    "storage.byteswap": lambda x: x.untyped_storage().byteswap(torch.float32),
    "torch.ops.aten": lambda x: torch.ops.aten.add_.Scalar(x, 1),
}

WRITES = {
    f"{group}: {name}": write
    for group, writes in {
        "in place": IN_PLACE,
        "out=": OUT,
        "view": THROUGH_VIEWS,
        "raw": RAW,
    }.items()
    for name, write in writes.items()
}
# As parameters of a test.
WAYS = needs.parameters(WRITES, {"raw: np.from_dlpack": needs.numpy_writes})


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, foreach=False),
    "SGD momentum foreach": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=True),
    "SGD fused": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.1, foreach=False),
    "Adam foreach": lambda p: torch.optim.Adam(p, lr=0.1, foreach=True),
    "Adam fused": lambda p: torch.optim.Adam(p, lr=0.1, fused=True),
    "AdamW fused": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    "Adagrad fused": lambda p: torch.optim.Adagrad(p, lr=0.1, fused=True),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.1),
    "LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=2),
}


def in_place_then_read(x: torch.Tensor) -> torch.Tensor:
    x.mul_(2)
    x[0].zero_()
    return x + 1
