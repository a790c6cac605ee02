"""`load_into` with kinds of modules: lazy, tied, wrapped, parametrized, on meta.

Also its errors for arguments of a wrong kind.
"""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from tensor_bridge import InvalidOptionError, MismatchError, UnsupportedTypeError, checkpoint
from tensor_bridge.checkpoint import Entry


def refused(module: nn.Module, source: Any, message: str, **options: Any) -> Any:
    """The report of a refusal, which must leave the module unchanged."""
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(MismatchError, match=message) as caught:
        checkpoint.load_into(module, source, **options)
    after = module.state_dict()
    assert list(after) == list(before)
    for name, x in before.items():
        if isinstance(x, nn.parameter.UninitializedTensorMixin):
            assert isinstance(after[name], nn.parameter.UninitializedTensorMixin)
        elif not x.is_meta:
            assert torch.equal(after[name], x)
    return caught.value.report  # type: ignore[attr-defined]


def dense(inputs: int = 3, outputs: int = 2, name: str = "dense") -> dict[str, torch.Tensor]:
    return {f"{name}/kernel": torch.rand(inputs, outputs), f"{name}/bias": torch.rand(outputs)}


# --- arguments of a wrong kind --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (None, "expected module to be a torch.nn.Module, got None"),
        (nn.Linear(3, 2).state_dict(), "got OrderedDict; give the module itself, not its state_d"),
        (nn.Linear, r"got type; make one first: Linear\(...\)"),
        ("model.pt", "got str"),
    ],
)
def test_what_is_no_module_is_told(module: Any, message: str) -> None:
    with pytest.raises(UnsupportedTypeError, match=message):
        checkpoint.load_into(module, dense())


class Savable:
    def save_weights(self) -> None: ...


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "a mapping from names to torch tensors, got None"),
        (3, "got int"),
        (["a.h5"], "got list"),
        (b"a.h5", "got bytes"),
        (nn.Linear(3, 2), "got torch.nn.modules.linear.Linear; from one torch module into another"),
        (Savable(), r"save the model first: model.save_weights\('model.weights.h5'\)"),
        (
            {"a": [1.0]},
            "expected torch tensors in source, got list for 'a'; tensor_bridge.to_torch",
        ),
        ({"a": None}, "got None for 'a'"),
        ({1: torch.rand(1)}, r"expected names of tensors in source, got 1 \(int\)"),
    ],
)
def test_what_is_no_source_is_told(source: Any, message: str) -> None:
    with pytest.raises(UnsupportedTypeError, match=message):
        checkpoint.load_into(nn.Linear(3, 2), source)


@pytest.mark.parametrize(
    "flattened",
    [3, {"a": 3}, {"a": ()}, {"a": (3, "4")}, {"a": (0, 2)}, [("a", (1, 2))], {1: (2, 3)}],
)
def test_flattened_of_a_wrong_kind_is_told(flattened: Any) -> None:
    with pytest.raises(InvalidOptionError, match="expected flattened to be paths of modules and"):
        checkpoint.load_into(nn.Linear(3, 2), dense(), flattened=flattened)


def test_a_flattened_module_that_is_none_is_told() -> None:
    module = nn.ModuleDict({"dense": nn.Linear(3, 2)})
    message = "flattened: 'denes' is no module; did you mean 'dense'"
    refused(module, dense(), message, flattened={"denes": (3, 1)})
    message = r"flattened: \(2, 2\) are not the 3 inputs of the kernel"
    refused(module, dense(), message, flattened={"dense": (2, 2)})


def test_a_flattened_picture_is_turned_in_every_layout() -> None:
    rows = torch.tensor(
        [[float(10 * place + channel)] for place in (0, 1) for channel in (0, 1, 2)]
    )
    expected = torch.tensor([[0.0, 10, 1, 11, 2, 12]])
    for layout, x in (("as_is", rows.t()), ("transposed", rows)):
        module = nn.Linear(6, 1, bias=False)
        rules = [("^w$", "weight", layout)]
        checkpoint.load_into(module, {"w": x}, rules=rules, flattened={"": (3, 2)})
        assert torch.equal(module.weight, expected)


# --- the text of the report -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"dense/bias": torch.rand(3)},
            "nothing was loaded: 1 problem. 2 tensors would have been ",
        ),
        ({"dense/bias": None}, "nothing was loaded: 1 missing. 1 tensor would have been loaded\n"),
        ({"a": torch.rand(1)}, "nothing was loaded: 1 unused. 2 tensors would have been loaded\n"),
        (
            {"dense/kernel": torch.rand(3, 3), "dense/bias": torch.rand(3), "x": torch.rand(1)},
            "nothing was loaded: 2 problems, 1 unused. 2 tensors would have been loaded\n",
        ),
        ({"dense/b": torch.rand(1)}, "nothing was loaded: 1 problem. 0 tensors would have been "),
        (
            {"dense/bias": None, "no": torch.rand(1)},
            "nothing was loaded: 1 missing. 1 tensor would have been loaded, 1 name ignored\n",
        ),
    ],
)
def test_the_first_line_of_a_refusal_says_what_happened(change: Any, message: str) -> None:
    module = nn.ModuleDict({"dense": nn.Linear(3, 2)})
    weights = {name: x for name, x in {**dense(), **change}.items() if x is not None}
    report = refused(module, weights, message, rules=[("^no$", None)])
    assert not report.written
    assert str(report).startswith(message)


def test_a_report_of_what_was_loaded_says_so() -> None:
    module = nn.ModuleDict({"dense": nn.Linear(3, 2)})
    report = checkpoint.load_into(module, dense())
    assert report.written
    assert str(report).startswith("2 loaded, 0 missing, 0 unused, 0 ignored, 0 problems\n")
    assert report.proposal == []


def test_each_tensor_is_told_with_its_own_sources() -> None:
    module = nn.ModuleDict({"rnn": nn.LSTM(3, 4, bidirectional=True), "norm": nn.BatchNorm1d(2)})
    weights = {
        f"rnn/{side}_lstm/lstm_cell/{role}": torch.rand(shape)
        for side in ("forward", "backward")
        for role, shape in (("kernel", (3, 16)), ("recurrent_kernel", (4, 16)), ("bias", (16,)))
    }
    weights |= {f"norm/{role}": torch.rand(2) for role in ("beta", "moving_mean")}
    weights["norm/moving_variance"] = torch.rand(2)
    report = checkpoint.load_into(module, weights)
    sources = {item.target: item.sources for item in report.loaded}
    for suffix, side in (("", "forward"), ("_reverse", "backward")):
        cell = f"rnn/{side}_lstm/lstm_cell"
        assert sources[f"rnn.weight_ih_l0{suffix}"] == (f"{cell}/kernel",)
        assert sources[f"rnn.weight_hh_l0{suffix}"] == (f"{cell}/recurrent_kernel",)
        assert sources[f"rnn.bias_ih_l0{suffix}"] == (f"{cell}/bias",)
    assert sources["norm.running_mean"] == ("norm/moving_mean",)
    assert sources["norm.weight"] == ()
    assert max(len(line) for line in str(report).splitlines()) < 100
    assert "(2,) <- nothing, as the layer leaves it out" in str(report)


def test_the_report_of_a_big_model_does_not_take_long() -> None:
    import time

    module = nn.ModuleList(nn.Linear(2, 2) for _ in range(1500))
    weights = {}
    for i in range(1500):
        weights |= dense(2, 2, f"some/long/name/of/a/layer_{i * 7 % 1500}")
    start = time.process_time()
    refused(module, weights, "3000 missing, 3000 unused")
    assert time.process_time() - start < 10


# --- lazy modules ---------------------------------------------------------------------------------


def of_conv(*spatial: int, transposed: bool = False) -> dict[str, torch.Tensor]:
    kernel = torch.rand(*spatial, *((4, 3) if transposed else (3, 4)))
    return {"m/kernel": kernel, "m/bias": torch.rand(4)}


def of_norm(size: int) -> dict[str, torch.Tensor]:
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    return {f"m/{name}": torch.rand(size) for name in names}


LAZY: dict[str, tuple[Any, Any, dict[str, torch.Tensor]]] = {
    "linear": (lambda: nn.LazyLinear(2), lambda: nn.Linear(3, 2), dense(name="m")),
    "linear_no_bias": (
        lambda: nn.LazyLinear(2, bias=False),
        lambda: nn.Linear(3, 2, bias=False),
        {"m/kernel": torch.rand(3, 2)},
    ),
    "conv1d": (lambda: nn.LazyConv1d(4, 5), lambda: nn.Conv1d(3, 4, 5), of_conv(5)),
    "conv2d": (lambda: nn.LazyConv2d(4, 3), lambda: nn.Conv2d(3, 4, 3), of_conv(3, 3)),
    "conv3d": (lambda: nn.LazyConv3d(4, 2), lambda: nn.Conv3d(3, 4, 2), of_conv(2, 2, 2)),
    "grouped": (
        lambda: nn.LazyConv2d(4, 3, groups=2),
        lambda: nn.Conv2d(6, 4, 3, groups=2),
        of_conv(3, 3),
    ),
    "depthwise": (
        lambda: nn.LazyConv2d(6, 2, groups=3),
        lambda: nn.Conv2d(3, 6, 2, groups=3),
        {"m/depthwise_kernel": torch.rand(2, 2, 3, 2), "m/bias": torch.rand(6)},
    ),
    "transposed1d": (
        lambda: nn.LazyConvTranspose1d(4, 5),
        lambda: nn.ConvTranspose1d(3, 4, 5),
        of_conv(5, transposed=True),
    ),
    "transposed2d": (
        lambda: nn.LazyConvTranspose2d(4, (3, 2)),
        lambda: nn.ConvTranspose2d(3, 4, (3, 2)),
        of_conv(3, 2, transposed=True),
    ),
    "batch_norm1d": (lambda: nn.LazyBatchNorm1d(), lambda: nn.BatchNorm1d(5), of_norm(5)),
    "batch_norm2d": (lambda: nn.LazyBatchNorm2d(), lambda: nn.BatchNorm2d(5), of_norm(5)),
    "instance_norm": (
        lambda: nn.LazyInstanceNorm2d(affine=True, track_running_stats=False),
        lambda: nn.InstanceNorm2d(5, affine=True),
        {"m/gamma": torch.rand(5), "m/beta": torch.rand(5)},
    ),
}


@pytest.mark.parametrize("name", LAZY)
def test_a_lazy_module_becomes_what_the_weights_are_of(name: str) -> None:
    lazy, sized, weights = LAZY[name]
    module, expected = nn.ModuleDict({"m": lazy()}), nn.ModuleDict({"m": sized()})
    random_numbers = torch.random.get_rng_state()
    assert checkpoint.load_into(module, weights).complete
    assert torch.equal(torch.random.get_rng_state(), random_numbers)
    checkpoint.load_into(expected, weights)
    assert type(module["m"]) is type(expected["m"])
    assert str(module) == str(expected)
    for key, x in expected.state_dict().items():
        assert torch.equal(module.state_dict()[key], x)
    shape = expected["m"].weight.shape
    assert not module["m"]._forward_pre_hooks
    assert module["m"].weight.shape == shape


def test_a_lazy_module_is_sized_by_a_rule_with_a_layout() -> None:
    for layout, shape in (("as_is", (2, 3)), ("transposed", (3, 2))):
        module = nn.LazyLinear(2)
        rules = [("^w$", "weight", layout), ("^b$", "bias", "as_is")]
        weights = {"w": torch.rand(shape), "b": torch.rand(2)}
        assert checkpoint.load_into(module, weights, rules=rules).complete
        assert (type(module), module.in_features) == (nn.Linear, 3)


class LazyOwn(nn.modules.lazy.LazyModuleMixin, nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.UninitializedParameter()


@pytest.mark.parametrize(
    ("module", "weights", "message"),
    [
        (
            nn.LazyLinear(2),
            {"kernel": torch.rand(3, 3), "bias": torch.rand(3)},
            "a kernel for Lazy",
        ),
        (
            nn.LazyLinear(3),
            {"kernel": torch.rand(3, 3), "bias": torch.rand(2)},
            r"shape \(3,\), got",
        ),
        (nn.LazyConv2d(4, 3), {"kernel": torch.rand(2, 2, 3, 4)}, "a kernel for LazyConv2d"),
        (LazyOwn(), {"scale": torch.rand(2)}, "LazyOwn is lazy, and its sizes cannot be told from"),
        (
            nn.Sequential(nn.LazyConv2d(8, 3, groups=4, bias=False), nn.LazyConv2d(5, 1)),
            {
                "depthwise_kernel": torch.rand(3, 3, 4, 2),
                "pointwise_kernel": torch.rand(1, 1, 8, 5),
            },
            "its part '0' is lazy; call the module once before",
        ),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "",
)
def test_a_lazy_module_that_cannot_be_sized_is_told(
    module: nn.Module, weights: dict[str, torch.Tensor], message: str
) -> None:
    refused(module, weights, message)


def test_a_lazy_module_stays_lazy_when_something_else_does_not_fit() -> None:
    module = nn.ModuleDict({"dense": nn.LazyLinear(2), "other": nn.Linear(3, 3)})
    refused(module, dense(), "2 missing")
    assert type(module["dense"]) is nn.LazyLinear
    assert module["dense"](torch.rand(1, 7)).shape == (1, 2)


# --- tensors that share memory --------------------------------------------------------------------


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.out = nn.Linear(4, 5, bias=False)
        self.out.weight = self.embed.weight


@pytest.mark.parametrize("assign", [False, True])
def test_tied_tensors_take_two_equal_sources(assign: bool) -> None:
    with torch.device("meta" if assign else "cpu"):
        module = Tied()
    table = torch.rand(5, 4)
    table[0, 0] = torch.nan
    weights = {"embed/embeddings": table, "out/kernel": table.t().clone()}
    assert checkpoint.load_into(module, weights, assign=assign).complete
    assert torch.equal(module.out.weight.nan_to_num(), table.nan_to_num())
    assert module.out.weight is module.embed.weight


def test_tied_tensors_stay_tied_when_one_source_is_assigned() -> None:
    with torch.device("meta"):
        module = Tied()
    table = torch.rand(5, 4)
    assert checkpoint.load_into(module, {"embed/embeddings": table}, assign=True).complete
    assert module.out.weight is module.embed.weight
    assert module.out.weight.data_ptr() == table.data_ptr()


@pytest.mark.parametrize("assign", [False, True])
def test_tied_tensors_refuse_two_sources_that_differ(assign: bool) -> None:
    with torch.device("meta" if assign else "cpu"):
        module = Tied()
    table = torch.zeros(5, 4)
    other = table.t().clone()
    other[1, 2], other[3, 3] = 0.25, -0.5
    weights = {"embed/embeddings": table, "out/kernel": other}
    message = (
        "embed.weight and out.weight share memory in the module, but their values differ: "
        "embed/embeddings and out/kernel, in 2 of 20 values by up to 0.5"
    )
    report = refused(module, weights, message, assign=assign, strict=False)
    assert report.problems == [message]


class Sliced(nn.Module):
    """A parameter, and a buffer that is a transposed part of it."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = nn.Parameter(torch.zeros(4, 3))
        self.register_buffer("part", self.whole.detach()[1:3].t())


def test_views_of_one_memory_are_compared_where_they_overlap() -> None:
    whole = torch.rand(4, 3)
    module = Sliced()
    assert checkpoint.load_into(module, {"whole": whole, "part": whole[1:3].t()}).complete
    assert torch.equal(module.whole, whole)
    other = whole[1:3].t().clone()
    other[0, 0] += 1
    refused(Sliced(), {"whole": whole, "part": other}, "whole and part share memory .* in 1 of 12 ")


def test_pieces_of_one_memory_that_do_not_overlap_are_independent() -> None:
    module = nn.ParameterDict()
    memory = torch.zeros(6)
    module["a"], module["b"] = nn.Parameter(memory[:3]), nn.Parameter(memory[3:])
    weights = {"a": torch.rand(3), "b": torch.rand(3)}
    assert checkpoint.load_into(module, weights).complete
    assert torch.equal(memory, torch.cat([weights["a"], weights["b"]]))


def test_a_module_that_is_used_twice_has_two_names() -> None:
    part = nn.Linear(3, 2)
    module = nn.ModuleDict({"a": part, "b": part})
    weights = dense(name="a")
    assert checkpoint.load_into(module, weights).complete
    assert checkpoint.load_into(module, {f"b{n[1:]}": x for n, x in weights.items()}).complete
    refused(module, {**weights, **dense(name="b")}, "a.weight and b.weight share memory")


# --- wrapped, parametrized, without memory --------------------------------------------------------


def compiled_module(module: nn.Module) -> nn.Module:
    return torch.compile(module, backend="eager")  # type: ignore[no-any-return]


@pytest.mark.parametrize("wrap", [nn.DataParallel, compiled_module])
def test_what_is_wrapped_around_a_module_is_no_part_of_its_names(wrap: Any) -> None:
    inner = nn.ModuleDict({"dense": nn.Linear(3, 2), "deep": nn.ModuleDict({"x": nn.Linear(3, 2)})})
    inner["deep"]["x"] = wrap(inner["deep"]["x"])
    module = wrap(inner)
    weights = {**dense(), **dense(name="deep/x")}
    report = checkpoint.load_into(module, weights, flattened={"deep.x": (3, 1)})
    assert report.complete
    assert {item.target for item in report.loaded} == set(module.state_dict())
    assert torch.equal(inner["dense"].bias, weights["dense/bias"])
    rules = [("^w$", "deep/x/weight", "as_is")]
    checkpoint.load_into(module, {"w": torch.ones(2, 3)}, rules=rules, strict=False)
    assert inner.get_submodule("deep.x").state_dict().popitem()[1].shape == (2,)
    assert all(x.eq(1).all() for n, x in module.state_dict().items() if n.endswith("x.weight"))


def test_a_parametrized_tensor_is_stored_by_its_originals() -> None:
    module = nn.ModuleDict({"dense": parametrizations.weight_norm(nn.Linear(3, 2))})
    weights = dense()
    report = checkpoint.load_into(module, weights)
    assert report.complete
    torch.testing.assert_close(module["dense"].weight, weights["dense/kernel"].t())
    originals = {f"dense.parametrizations.weight.original{i}" for i in (0, 1)}
    assert {item.target for item in report.loaded} == {"dense.bias", *originals}
    rules = [("^w$", "dense.weight", "as_is")]
    checkpoint.load_into(module, {"w": torch.ones(2, 3)}, rules=rules, strict=False)
    torch.testing.assert_close(module["dense"].weight, torch.ones(2, 3))


class Doubled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


class Halved(Doubled):
    def right_inverse(self, x: torch.Tensor) -> torch.Tensor:
        return x / 2


def test_a_parametrization_without_an_inverse_is_told() -> None:
    module = nn.ModuleDict({"dense": nn.Linear(3, 2)})
    parametrize.register_parametrization(module["dense"], "weight", Halved())
    weights = dense()
    assert checkpoint.load_into(module, weights).complete
    assert torch.equal(module["dense"].weight, weights["dense/kernel"].t())
    parametrize.register_parametrization(module["dense"], "bias", Doubled())
    message = (
        "dense <- dense/kernel, dense/bias: 'bias' is parametrized by Doubled, which cannot be"
    )
    refused(module, weights, message)
    refused(module, dense(4, 2), r"expected 'weight' of \(2, 3\), got \(2, 4\)")


def test_a_module_without_memory_is_told() -> None:
    with torch.device("meta"):
        module = nn.ModuleDict({"dense": nn.Linear(3, 2)})
    refused(module, dense(), "dense.weight and others: on the device meta .* give assign=True")
    assert checkpoint.load_into(module, dense(), assign=True).complete


def test_numbers_of_another_kind_take_no_places() -> None:
    module = nn.ModuleDict({"dense": nn.Linear(3, 2)})
    weights = {name: x.to(torch.int32) for name, x in dense().items()}
    for options in ({}, {"cast": True}, {"cast": True, "assign": True}):
        refused(module, weights, "expected torch.float32, got the integers of torch.i", **options)
    counter = nn.Module()
    counter.register_buffer("steps", torch.zeros(2, dtype=torch.int64))
    message = "torch.float32 cannot take the place of torch.int64; without assign it is converted"
    refused(counter, {"steps": torch.ones(2)}, message, assign=True, cast=True)


@pytest.mark.parametrize("assign", [False, True])
def test_memory_need_not_lie_in_order(assign: bool) -> None:
    module = nn.Linear(3, 2)
    module.weight = nn.Parameter(torch.zeros(3, 2).t())
    kernel, bias = torch.rand(2, 3).t(), torch.rand(6)[::3]
    checkpoint.load_into(module, {"kernel": kernel, "bias": bias}, assign=assign)
    assert torch.equal(module.weight, kernel.t())
    assert torch.equal(module.bias, bias)
    assert not assign or module.bias.is_contiguous()


# --- all or nothing -------------------------------------------------------------------------------


class Picky(nn.Module):
    """Refuses in the middle, after its first part was loaded."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.dense = nn.Linear(3, 2)
        self.lazy = nn.LazyLinear(2)
        self.last = nn.Linear(3, 2)
        if how == "before":
            self.last.register_load_state_dict_pre_hook(self._refuse)
        else:
            self.register_load_state_dict_post_hook(self._refuse)

    def _refuse(self, *_args: Any) -> None:
        assert not self.dense.bias.is_meta
        raise KeyError("not this one")


@pytest.mark.parametrize("how", ["before", "after"])
@pytest.mark.parametrize("assign", [False, True])
def test_a_module_whose_own_code_refuses_is_as_it_was(how: str, assign: bool) -> None:
    module = Picky(how)
    members = dict(module.dense._parameters)
    weights = {**dense(), **dense(name="last"), **dense(name="lazy")}
    message = "nothing was loaded: the module's own code refuses what it is given: 'not this one'"
    report = refused(module, weights, message, assign=assign)
    assert not report.written
    assert all(module.dense._parameters[name] is x for name, x in members.items())
    assert type(module.lazy) is nn.LazyLinear
    assert module.lazy(torch.rand(1, 7)).shape == (1, 2)
    assert type(module.lazy) is nn.Linear


def test_nothing_is_copied_for_a_module_without_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = nn.ModuleDict({"dense": nn.Linear(3, 2), "norm": nn.LayerNorm(3)})
    monkeypatch.setattr(torch.Tensor, "clone", None)
    checkpoint.load_into(module, dense(), strict=False)


def test_what_is_no_weight_is_left_alone() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = nn.Linear(3, 2)
            self.register_buffer("ids", torch.arange(3), persistent=False)

        def get_extra_state(self) -> dict[str, int]:
            return {"a": 1}

        def set_extra_state(self, state: Any) -> None:
            raise AssertionError(state)

    module = Own()
    assert checkpoint.load_into(module, dense()).complete
    report = checkpoint.load_into(module, {**dense(), "ids": torch.arange(3)}, strict=False)
    assert report.unused == ["ids"]


def test_nothing_big_is_imported() -> None:
    code = """
import sys, torch, tensor_bridge
module = torch.nn.Linear(3, 2)
tensor_bridge.checkpoint.load_into(module, {"kernel": torch.rand(3, 2), "bias": torch.rand(2)})
big = {"transformers", "tensorflow", "keras", "numpy", "h5py", "torch._dynamo"}
print(sorted(big & set(sys.modules) - loaded))
"""
    code = code.replace("module =", "loaded = set(sys.modules); module =", 1)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- names that the file does not have ------------------------------------------------------------


class Stored(Entry):
    def read(self, raw: bool) -> torch.Tensor:
        return torch.full(self.shape, float(self.offset))


class Source:
    """Two layers for which the file only has the class Dense, and a third with a name."""

    format = "hdf5"

    def __init__(self) -> None:
        self.entries = [
            Stored(name, "variable", name, "float32", shape, 0, "f", i, named="known" in name)
            for i, (name, shape) in enumerate(
                [
                    (f"{layer}/{role}", shape)
                    for layer in ("dense", "known")
                    for role, shape in (("kernel", (3, 2)), ("bias", (2,)))
                ]
            )
        ]

    def problems(self) -> Iterator[Exception]:
        return iter(())


def test_a_name_that_fits_by_chance_places_nothing() -> None:
    module = nn.ModuleDict({"dense": nn.Linear(3, 2), "known": nn.Linear(3, 2)})
    source = checkpoint.Checkpoint(Source(), "f", False)
    message = "2 names of these only count layers by their class, as the file does not say"
    report = refused(module, source, message)
    assert report.unused == report.unnamed == ["dense/kernel", "dense/bias"]
    report = checkpoint.load_into(module, source, rules=[("^dense/", "dense/")], strict=False)
    assert not report.unnamed
    assert module["dense"].bias.eq(1).all()


# --- variables with equal names -------------------------------------------------------------------


def test_a_name_that_several_variables_have_is_an_error_only_where_it_is_wanted(
    tmp_path: Path,
) -> None:
    model = tf.Module()
    model.kernel = tf.Variable([[1.0], [2.0]], name="dense/kernel")
    model.a, model.b = tf.Variable(3.0, name="count"), tf.Variable(4.0, name="count")
    prefix = tf.train.Checkpoint(model=model).write(str(tmp_path / "model"))
    module = nn.ModuleDict({"dense": nn.Linear(2, 1, bias=False)})
    report = checkpoint.load_into(module, prefix, names="variable", strict=False)
    assert report.unused == ["count"]
    assert module["dense"].weight.tolist() == [[1.0, 2.0]]
    module.register_parameter("count", nn.Parameter(torch.zeros(())))
    message = "count: several variables were called so: model/a and model/b; use names='path'"
    refused(module, prefix, message, names="variable")
    refused(module, prefix, message, names="variable", rules=[("^count", "count", "as_is")])
    rules = [("^count", None)]
    assert not checkpoint.load_into(
        module, prefix, names="variable", rules=rules, strict=False
    ).problems
