"""Operators that write to lists of tensors (_foreach_*_, _fused_*_), whose CUDA kernels take
addresses that no hook sees: TensorFlow's values stay, and torch's results are right."""

from __future__ import annotations

import copy
import inspect
import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import needs
import pytest
import tensorflow as tf
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import tensor_bridge
from tensor_bridge.testing import shares_memory, tf_data_address, torch_data_address

pytestmark = needs.torch_since(13, "memory on a GPU is copied")

Step = Callable[[list[torch.Tensor], list[torch.Tensor]], None]
"""Writes to parameters, to gradients, or to both."""

# Optimizers with a closure, for sparse gradients, and for matrices only. STEPS has them.
OTHER = {"LBFGS", "SparseAdam", "Muon"}
SHAPES = ((3, 4), (5,), ())


def optimizers() -> Iterator[Any]:
    """Every optimizer of torch in each of its variants on a GPU."""
    for name, cls in vars(torch.optim).items():
        if not (inspect.isclass(cls) and issubclass(cls, torch.optim.Optimizer)):
            continue
        if cls is torch.optim.Optimizer or name in OTHER:
            continue
        known = inspect.signature(cls).parameters
        ways = [dict[str, Any](foreach=True), dict[str, Any](foreach=False)]
        ways += [{"fused": True}] if "fused" in known else []
        for way, capturable in itertools.product(ways, (False, True)):
            if capturable and "capturable" not in known:
                continue
            keywords = way | ({"capturable": True} if capturable else {})
            label = "-".join(f"{k}={v}" for k, v in keywords.items())
            yield pytest.param(cls, keywords, id=f"{name}-{label}")


def values() -> list[tf.Tensor]:
    made = [tf.random.stateless_uniform(shape, [1, i]) + 1.0 for i, shape in enumerate(SHAPES)]
    assert all("GPU" in t.backing_device for t in made)
    return made


def snapshot(tensors: list[tf.Tensor]) -> list[torch.Tensor]:
    """The values, read without a copy that TensorFlow would keep and return again."""
    return [tensor_bridge.to_torch(t, copy=True).cpu() for t in tensors]


def assert_unchanged(tensors: list[tf.Tensor], before: list[torch.Tensor]) -> None:
    torch.cuda.synchronize()
    for now, then in zip(snapshot(tensors), before, strict=True):
        assert torch.equal(now, then)


def check(step: Step) -> None:
    """Compares `step` on tensors over TensorFlow's memory with `step` on torch's own tensors."""
    parameters, gradients = values(), [g / 3.0 for g in values()]
    tensors = parameters + gradients
    before = snapshot(tensors)
    own = [tensor_bridge.to_torch(t, copy=True) for t in tensors]
    shared = [tensor_bridge.to_torch(t) for t in tensors]
    for t, x in zip(tensors, shared, strict=True):
        assert shares_memory(t, x)
    for each in (own, shared):
        step(each[: len(parameters)], each[len(parameters) :])
    assert_unchanged(tensors, before)
    assert [x.tolist() for x in shared] == [x.tolist() for x in own]
    assert [x.tolist() for x in shared] != [x.tolist() for x in before]


def stepped(cls: type[torch.optim.Optimizer], keywords: dict[str, Any]) -> Step:
    def step(parameters: list[torch.Tensor], gradients: list[torch.Tensor]) -> None:
        held = [torch.nn.Parameter(x) for x in parameters]
        optimizer = cls(held, **keywords)
        for _ in range(2):
            for p, g in zip(held, gradients, strict=True):
                p.grad = g
            optimizer.step()

    return step


@pytest.mark.parametrize(("cls", "keywords"), list(optimizers()))
def test_no_optimizer_writes_what_tensorflow_has(
    cls: type[torch.optim.Optimizer], keywords: dict[str, Any]
) -> None:
    check(stepped(cls, keywords))


@pytest.mark.parametrize(("cls", "keywords"), list(optimizers()))
def test_every_optimizer_raises_where_writes_raise(
    cls: type[torch.optim.Optimizer], keywords: dict[str, Any]
) -> None:
    (t,) = tensors = values()[:1]
    before = snapshot(tensors)
    p = torch.nn.Parameter(tensor_bridge.to_torch(t, on_write="raise"))
    p.grad = torch.ones_like(p)
    with pytest.raises(BufferError, match='on_write="raise"'):
        cls([p], **keywords).step()
    assert shares_memory(t, p)
    assert_unchanged(tensors, before)


def clip_norm(_: list[torch.Tensor], gradients: list[torch.Tensor]) -> None:
    parameters = [torch.nn.Parameter(torch.zeros_like(g)) for g in gradients]
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = g
    torch.nn.utils.clip_grad_norm_(parameters, 0.1)


def clip_value(_: list[torch.Tensor], gradients: list[torch.Tensor]) -> None:
    parameters = [torch.nn.Parameter(torch.zeros_like(g)) for g in gradients]
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = g
    torch.nn.utils.clip_grad_value_(parameters, 0.1)


def average(parameters: list[torch.Tensor], gradients: list[torch.Tensor]) -> None:
    model = torch.nn.ParameterList([torch.zeros_like(x) for x in parameters])
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    averaged.update_parameters(model)
    for p, x in zip(averaged.module, parameters, strict=True):
        p.data = x
    for p, g in zip(model, gradients, strict=True):
        p.data = g
    averaged.update_parameters(model)


def unscale(_: list[torch.Tensor], gradients: list[torch.Tensor]) -> None:
    scaler = torch.amp.GradScaler("cuda", init_scale=4.0)
    scaler.scale(torch.zeros((), device="cuda"))
    parameters = [torch.nn.Parameter(torch.zeros_like(g)) for g in gradients]
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = g
    scaler.unscale_(torch.optim.SGD(parameters))


def accumulate(parameters: list[torch.Tensor], gradients: list[torch.Tensor]) -> None:
    held = [torch.nn.Parameter(x) for x in parameters]
    for p, g in zip(held, gradients, strict=True):
        p.grad = g
    for _ in range(2):
        sum((p * p).sum() for p in held).backward()


def foreach(parameters: list[torch.Tensor], gradients: list[torch.Tensor]) -> None:
    torch._foreach_mul_(parameters, 0.5)
    torch._foreach_addcdiv_(parameters, gradients, gradients, 2.0)
    torch._foreach_lerp_(gradients, parameters, 0.25)
    torch._foreach_zero_(gradients[1:])


def foreach_of_views(parameters: list[torch.Tensor], gradients: list[torch.Tensor]) -> None:
    torch._foreach_sqrt_([parameters[0][1:], parameters[1][2:4], gradients[0].detach()])


def foreach_of_storages(parameters: list[torch.Tensor], _: list[torch.Tensor]) -> None:
    others = [torch.empty(0, device="cuda").set_(x.untyped_storage()) for x in parameters]
    torch._foreach_add_(others, 1.0)


def foreach_in_inference_mode(parameters: list[torch.Tensor], _: list[torch.Tensor]) -> None:
    with torch.inference_mode():
        torch._foreach_neg_(parameters)


def lbfgs(line_search: str | None) -> Step:
    def step(parameters: list[torch.Tensor], gradients: list[torch.Tensor]) -> None:
        held = [torch.nn.Parameter(x) for x in parameters]
        optimizer = torch.optim.LBFGS(held, lr=0.1, max_iter=3, line_search_fn=line_search)

        def closure() -> torch.Tensor:
            optimizer.zero_grad(set_to_none=False)
            loss = sum(((p - 3.0) ** 2).sum() for p in held)
            loss.backward()
            return loss

        for p, g in zip(held, gradients, strict=True):
            p.grad = g
        optimizer.step(closure)

    return named(f"lbfgs-{line_search}", step)


def sparse_adam(parameters: list[torch.Tensor], gradients: list[torch.Tensor]) -> None:
    held = [torch.nn.Parameter(x) for x in parameters[:2]]
    optimizer = torch.optim.SparseAdam(held)
    for p, g in zip(held, gradients, strict=False):
        indices = torch.tensor([[0, 2]], device="cuda")
        p.grad = torch.sparse_coo_tensor(indices, g[1:3], p.shape, check_invariants=False)
    optimizer.step()
    optimizer.step()


def muon(parameters: list[torch.Tensor], gradients: list[torch.Tensor]) -> None:
    (p,) = held = [torch.nn.Parameter(x) for x in parameters if x.ndim == 2]
    p.grad = gradients[0]
    optimizer = torch.optim.Muon(held)
    optimizer.step()
    optimizer.step()


def write_all(parameters: list[torch.Tensor], gradients: list[torch.Tensor]) -> None:
    torch._foreach_lerp_(gradients, parameters, 0.25)
    torch._foreach_mul_(parameters, 0.5)
    for x, g in zip(parameters, gradients, strict=True):
        x.add_(g, alpha=2.0)
    torch.mul(parameters[0], 3.0, out=gradients[0])


def compiled(backend: str, function: Step) -> Step:
    def step(parameters: list[torch.Tensor], gradients: list[torch.Tensor]) -> None:
        torch._dynamo.reset()
        torch.compile(function, backend=backend)(parameters, gradients)

    return named(f"compiled-{backend}-{function.__name__}", step)


def compiled_optimizer(backend: str, cls: type[torch.optim.Optimizer]) -> Step:
    def step(parameters: list[torch.Tensor], gradients: list[torch.Tensor]) -> None:
        torch._dynamo.reset()
        held = [torch.nn.Parameter(x) for x in parameters]
        for p, g in zip(held, gradients, strict=True):
            p.grad = g
        torch.compile(cls(held, foreach=True).step, backend=backend)()

    return named(f"compiled-{backend}-{cls.__name__}", step)


def vmapped(parameters: list[torch.Tensor], gradients: list[torch.Tensor]) -> None:
    def each(x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        g.mul_(0.5)
        return x.add_(g).clamp_(max=1.5)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # clamp_() has no batching rule, so torch writes each part
        for x, g in zip(parameters[:2], gradients, strict=False):
            torch.func.vmap(each)(x, g)


def functionalized(parameters: list[torch.Tensor], gradients: list[torch.Tensor]) -> None:
    def all_of(*tensors: torch.Tensor) -> None:
        write_all(list(tensors[: len(SHAPES)]), list(tensors[len(SHAPES) :]))

    torch.func.functionalize(all_of)(*parameters, *gradients)


def autocast(parameters: list[torch.Tensor], gradients: list[torch.Tensor]) -> None:
    with torch.autocast("cuda", dtype=torch.float16):
        write_all(parameters, gradients)
        parameters[0].addcdiv_(parameters[0], gradients[0])


def autocast_training(parameters: list[torch.Tensor], gradients: list[torch.Tensor]) -> None:
    held = [torch.nn.Parameter(x) for x in parameters]
    scaler = torch.amp.GradScaler("cuda", init_scale=4.0)
    optimizer = torch.optim.AdamW(held, fused=True)
    for p, g in zip(held, gradients, strict=True):
        p.grad = g
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = sum((p * p).sum() for p in held)
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(held, 0.1)
    scaler.step(optimizer)
    scaler.update()


def named(name: str, step: Step) -> Step:
    step.__name__ = name
    return step


BACKENDS = ("eager", "aot_eager")  # inductor's kernels need triton
STEPS = (
    *(clip_norm, clip_value, average, unscale, accumulate, foreach, foreach_of_views),
    *(foreach_of_storages, foreach_in_inference_mode),
    *(lbfgs(None), lbfgs("strong_wolfe"), sparse_adam),
    *([muon] if hasattr(torch.optim, "Muon") else []),
    *(compiled(backend, write_all) for backend in BACKENDS),
    *(compiled_optimizer(backend, torch.optim.AdamW) for backend in BACKENDS),
    *(vmapped, functionalized, autocast, autocast_training),
)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_what_writes_lists_in_training_writes_nothing_of_tensorflow(step: Step) -> None:
    check(step)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_what_writes_in_training_raises_where_writes_raise(step: Step) -> None:
    tensors = values() + [g / 3.0 for g in values()]
    before = snapshot(tensors)
    shared = [tensor_bridge.to_torch(t, on_write="raise") for t in tensors]
    with pytest.raises(BufferError, match='on_write="raise"'):
        step(shared[: len(SHAPES)], shared[len(SHAPES) :])
    for t, x in zip(tensors, shared, strict=True):
        assert shares_memory(t, x)
    assert_unchanged(tensors, before)


def test_only_what_is_written_moves() -> None:
    written, read = values()[0], values()[0]
    x, y = tensor_bridge.to_torch(written), tensor_bridge.to_torch(read)
    torch._foreach_add_([x], [y])
    assert not shares_memory(written, x)
    assert shares_memory(read, y)


def test_what_tensorflow_has_let_go_of_is_moved_too() -> None:
    """TensorFlow's kernels that read it may still be queued."""
    x = tensor_bridge.to_torch(values()[0])
    address = torch_data_address(x)
    torch._foreach_mul_([x], 2.0)
    torch.cuda.synchronize()
    assert torch_data_address(x) != address


def test_aliases_are_written_through() -> None:
    t = values()[0]
    before = tensor_bridge.to_torch(t, copy=True)
    x = tensor_bridge.to_torch(t, on_write="alias")
    torch._foreach_mul_([x], 2.0)
    torch.cuda.synchronize()
    assert torch_data_address(x) == tf_data_address(t)
    assert torch.equal(tensor_bridge.to_torch(t).cpu(), (before * 2).cpu())


def test_a_graph_of_autograd_still_sees_a_written_tensor() -> None:
    t = values()[0]
    x = torch.nn.Parameter(tensor_bridge.to_torch(t))
    y = (x * x).sum()
    with torch.no_grad():
        torch._foreach_mul_([x], 2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_copies_of_optimizers_go_on() -> None:
    t = values()[0]
    before = snapshot([t])
    p = torch.nn.Parameter(tensor_bridge.to_torch(t))
    p.grad = torch.ones_like(p)
    optimizer = torch.optim.Adam([p])
    optimizer.step()
    again = copy.deepcopy(optimizer)
    again.step()
    optimizer.step()
    assert_unchanged([t], before)
