"""Keras' layers in torch's modules: the same output for the same input; mismatches are reported."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import needs
import pytest
import tensorflow as tf
import torch
from torch import nn

import tensor_bridge
from tensor_bridge import MismatchError, checkpoint

# Keras itself uses arrays in ways that NumPy deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:keras")

L = keras.layers


def first(x: torch.Tensor) -> torch.Tensor:
    """The values with channels first, as in torch."""
    return x.movedim(-1, 1)


def last(x: torch.Tensor) -> torch.Tensor:
    return x.movedim(1, -1)


class Case(NamedTuple):
    layer: Callable[[], Any]
    shape: tuple[int, ...]
    module: Callable[[], nn.Module]
    run: Callable[[nn.Module, torch.Tensor], torch.Tensor] = lambda m, x: m(x)
    integers: int = 0


def picture(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return last(module(first(x)))


def sequence(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return module(x)[0]


def rnn(kind: Any, **options: Any) -> Callable[[], nn.Module]:
    return lambda: kind(5, 6, batch_first=True, **options)


CASES = {
    "dense": Case(lambda: L.Dense(4), (6,), lambda: nn.Linear(6, 4)),
    "dense_no_bias": Case(
        lambda: L.Dense(4, use_bias=False), (6,), lambda: nn.Linear(6, 4, bias=False)
    ),
    "einsum_dense": Case(
        lambda: L.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de"),
        (5, 4),
        lambda: nn.Linear(4, 6),
        lambda m, x: m(x).unflatten(-1, (2, 3)),
    ),
    "conv1d": Case(lambda: L.Conv1D(4, 3), (9, 5), lambda: nn.Conv1d(5, 4, 3), picture),
    "conv2d": Case(
        lambda: L.Conv2D(4, (3, 2), strides=2),
        (9, 8, 5),
        lambda: nn.Conv2d(5, 4, (3, 2), stride=2),
        picture,
    ),
    "conv2d_groups": Case(
        lambda: L.Conv2D(6, 3, groups=2), (7, 8, 4), lambda: nn.Conv2d(4, 6, 3, groups=2), picture
    ),
    "conv3d": Case(
        lambda: L.Conv3D(4, (1, 2, 3)), (4, 5, 6, 2), lambda: nn.Conv3d(2, 4, (1, 2, 3)), picture
    ),
    "depthwise1d": Case(
        lambda: L.DepthwiseConv1D(3, depth_multiplier=2),
        (9, 4),
        lambda: nn.Conv1d(4, 8, 3, groups=4),
        picture,
    ),
    "depthwise2d": Case(
        lambda: L.DepthwiseConv2D((3, 2), depth_multiplier=2),
        (7, 8, 4),
        lambda: nn.Conv2d(4, 8, (3, 2), groups=4),
        picture,
    ),
    "separable2d": Case(
        lambda: L.SeparableConv2D(5, 3, depth_multiplier=2),
        (7, 8, 4),
        lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=4, bias=False), nn.Conv2d(8, 5, 1)),
        picture,
    ),
    "transpose1d": Case(
        lambda: L.Conv1DTranspose(4, 3, strides=2),
        (6, 5),
        lambda: nn.ConvTranspose1d(5, 4, 3, stride=2),
        picture,
    ),
    "transpose2d": Case(
        lambda: L.Conv2DTranspose(4, (3, 2), strides=2),
        (6, 5, 3),
        lambda: nn.ConvTranspose2d(3, 4, (3, 2), stride=2),
        picture,
    ),
    "transpose3d": Case(
        lambda: L.Conv3DTranspose(2, 2), (3, 4, 5, 3), lambda: nn.ConvTranspose3d(3, 2, 2), picture
    ),
    "batch_norm": Case(
        lambda: L.BatchNormalization(epsilon=1e-5),
        (6, 7, 3),
        lambda: nn.BatchNorm2d(3, momentum=0.01),
        picture,
    ),
    "batch_norm_plain": Case(
        lambda: L.BatchNormalization(epsilon=1e-5, center=False, scale=False),
        (6, 3),
        lambda: nn.BatchNorm1d(3, affine=False, momentum=0.01),
        picture,
    ),
    "layer_norm": Case(lambda: L.LayerNormalization(epsilon=1e-5), (4, 6), lambda: nn.LayerNorm(6)),
    "group_norm": Case(
        lambda: L.GroupNormalization(2, epsilon=1e-5), (5, 4), lambda: nn.GroupNorm(2, 4), picture
    ),
    "embedding": Case(lambda: L.Embedding(7, 3), (5,), lambda: nn.Embedding(7, 3), integers=7),
    "prelu": Case(lambda: L.PReLU(shared_axes=[1, 2]), (4, 5, 3), lambda: nn.PReLU(3), picture),
    "lstm": Case(lambda: L.LSTM(6, return_sequences=True), (4, 5), rnn(nn.LSTM), sequence),
    "gru": Case(lambda: L.GRU(6, return_sequences=True), (4, 5), rnn(nn.GRU), sequence),
    "simple_rnn": Case(
        lambda: L.SimpleRNN(6, return_sequences=True), (4, 5), rnn(nn.RNN), sequence
    ),
    "lstm_no_bias": Case(
        lambda: L.LSTM(6, return_sequences=True, use_bias=False),
        (4, 5),
        rnn(nn.LSTM, bias=False),
        sequence,
    ),
    "bidirectional_lstm": Case(
        lambda: L.Bidirectional(L.LSTM(6, return_sequences=True)),
        (4, 5),
        rnn(nn.LSTM, bidirectional=True),
        sequence,
    ),
    "bidirectional_gru": Case(
        lambda: L.Bidirectional(L.GRU(6, return_sequences=True)),
        (4, 5),
        rnn(nn.GRU, bidirectional=True),
        sequence,
    ),
    "time_distributed": Case(
        lambda: L.TimeDistributed(L.Dense(3)), (4, 5), lambda: nn.Linear(5, 3)
    ),
}


def random_weights(model: keras.Model) -> None:
    keras.utils.set_random_seed(3)
    for variable in model.weights:
        variable.assign(keras.random.uniform(variable.shape, 0.1, 0.9))


def same_output(model: keras.Model, module: nn.Module, case: Case, tolerance: float = 1e-5) -> None:
    data = (
        tf.random.uniform((2, *case.shape), 0, case.integers, tf.int32, seed=4)
        if case.integers
        else tf.random.normal((2, *case.shape), seed=4)
    )
    expected = tensor_bridge.to_torch(model(data, training=False))
    with torch.no_grad():
        found = case.run(module.eval(), tensor_bridge.to_torch(data))
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@needs.keras_3
@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore")
def test_a_layer_gives_the_same_output(tmp_path: Path, name: str, suffix: str) -> None:
    case = CASES[name]
    layer = case.layer()
    layer.name = "part"
    model = keras.Sequential([keras.Input(case.shape, dtype="int32" if case.integers else None)])
    model.add(layer)
    random_weights(model)
    path = tmp_path / f"zoo{suffix}"
    model.save_weights(path) if "weights" in suffix else model.save(path)
    module = nn.ModuleDict({"part": case.module()})
    report = checkpoint.load_into(module, path)
    assert report.complete
    assert {item.target for item in report.loaded} == {
        name for name in module.state_dict() if not name.endswith("num_batches_tracked")
    }
    same_output(model, module["part"], case)


@needs.keras_3
@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
@pytest.mark.parametrize("kdim", [8, 5])
def test_attention_gives_the_same_output(tmp_path: Path, suffix: str, kdim: int) -> None:
    query, value = keras.Input((4, 8)), keras.Input((6, kdim))
    model = keras.Model([query, value], L.MultiHeadAttention(2, 4, name="attend")(query, value))
    random_weights(model)
    path = tmp_path / f"attention{suffix}"
    model.save_weights(path) if "weights" in suffix else model.save(path)
    module = nn.ModuleDict(
        {"attend": nn.MultiheadAttention(8, 2, batch_first=True, kdim=kdim, vdim=kdim)}
    )
    assert checkpoint.load_into(module, path).complete
    q, v = tf.random.normal((2, 4, 8), seed=1), tf.random.normal((2, 6, kdim), seed=2)
    expected = tensor_bridge.to_torch(model([q, v]))
    x, y = tensor_bridge.to_torch(q), tensor_bridge.to_torch(v)
    with torch.no_grad():
        found = module["attend"](x, y, y)[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@needs.keras_3
def test_checkpoints_of_tensorflow_by_the_names_of_their_variables(tmp_path: Path) -> None:
    model = keras.Sequential(
        [keras.Input((9, 8, 3)), L.Conv2D(4, 3, name="conv"), L.BatchNormalization(name="norm")]
    )
    random_weights(model)
    prefix = tf.train.Checkpoint(model=model).write(str(tmp_path / "ck"))
    module = nn.Sequential()
    module.add_module("conv", nn.Conv2d(3, 4, 3))
    module.add_module("norm", nn.BatchNorm2d(4, eps=1e-3))
    loaded = checkpoint.load(prefix)
    numbers = sorted({n.split("_operations/")[1][0] for n in loaded if "_operations" in n})
    rules = [
        (rf"^.*_operations/{n}/", f"{to}/") for n, to in zip(numbers, ["conv", "norm"], strict=True)
    ]
    report = checkpoint.load_into(module, loaded, rules=[*rules, ("^model/.*", None)])
    assert not report.missing
    case = Case(L.Dense, (9, 8, 3), nn.Module, picture)
    same_output(model, module, case)


def cudnn_weights(kind: str, units: int, size: int) -> tuple[list[Any], list[Any]]:
    """Random weights in cuDNN's form, and the same converted by tf_keras."""
    import numpy as np
    import tf_keras
    from tf_keras.src.saving.legacy import hdf5_format

    rng = np.random.default_rng(0)
    gates = {"LSTM": 4, "GRU": 3}[kind]
    shapes = [(size, gates * units), (units, gates * units), (2 * gates * units,)]
    weights = [rng.random(shape, dtype=np.float32) for shape in shapes]
    options = {"reset_after": True} if kind == "GRU" else {}
    layer = getattr(tf_keras.layers, kind)(units, **options)
    layer.build((None, None, size))
    return weights, hdf5_format.preprocess_weights_for_loading(layer, [w.copy() for w in weights])


@needs.module("tf_keras")
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_the_form_of_cudnn_gives_the_same_output(kind: str) -> None:
    weights, converted = cudnn_weights(kind, 6, 5)
    layer = getattr(L, kind)(6, return_sequences=True)
    model = keras.Sequential([keras.Input((4, 5)), layer])
    layer.set_weights(converted)
    roles = ("kernel", "recurrent_kernel", "bias")
    source = {f"rnn/{r}": torch.tensor(w) for r, w in zip(roles, weights, strict=True)}
    module = nn.ModuleDict({"rnn": getattr(nn, kind)(5, 6, batch_first=True)})
    checkpoint.load_into(module, source)
    same_output(model, module["rnn"], Case(L.Dense, (4, 5), nn.Module, sequence))


@needs.keras_3
def test_a_flattened_picture_is_turned(tmp_path: Path) -> None:
    model = keras.Sequential(
        [keras.Input((6, 5, 3)), L.Conv2D(4, 2, name="conv"), L.Flatten(), L.Dense(7, name="out")]
    )
    random_weights(model)
    model.save_weights(tmp_path / "m.weights.h5")
    module = nn.Sequential()
    for name, part in (
        ("conv", nn.Conv2d(3, 4, 2)),
        ("f", nn.Flatten()),
        ("out", nn.Linear(80, 7)),
    ):
        module.add_module(name, part)
    checkpoint.load_into(module, tmp_path / "m.weights.h5", flattened={"out": (4, 5, 4)})
    same_output(model, module, Case(L.Dense, (6, 5, 3), nn.Module, lambda m, x: m(first(x))), 1e-4)


# --- mismatches -----------------------------------------------------------------------------------


def small() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    module = nn.ModuleDict({"conv": nn.Conv2d(3, 4, 3), "head": nn.Linear(4, 2)})
    weights = {
        "conv/kernel": torch.rand(3, 3, 3, 4),
        "conv/bias": torch.rand(4),
        "head/kernel": torch.rand(4, 2),
        "head/bias": torch.rand(2),
    }
    return module, weights


def assert_refused(module: nn.Module, source: Any, *parts: str, **options: Any) -> Any:
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(MismatchError) as caught:
        checkpoint.load_into(module, source, **options)
    for part in parts:
        assert part in str(caught.value)
    after = module.state_dict()
    assert all(torch.equal(after[n], x) for n, x in before.items())
    return caught.value.report


def test_every_mismatch_is_told_at_once_and_nothing_is_loaded() -> None:
    module, weights = small()
    weights["conv/kernel"] = torch.rand(5, 5, 3, 4)
    weights["head/bias"] = torch.rand(3)
    report = assert_refused(
        module,
        weights,
        "conv.weight: expected the shape (4, 3, 3, 3), got (4, 3, 5, 5)",
        "head.bias: expected the shape (2,), got (3,)",
    )
    assert len(report.problems) == 2
    assert_refused(module, weights, "conv.weight", strict=False)


def test_names_that_nearly_fit_are_suggested() -> None:
    module, weights = small()
    renamed = {name.replace("conv/", "conv_1/"): x for name, x in weights.items()}
    report = assert_refused(
        module, renamed, "missing: conv.weight (near: conv_1/kernel", "unused: conv_1/kernel"
    )
    assert report.missing == ["conv.weight", "conv.bias"]
    assert report.unused == ["conv_1/kernel", "conv_1/bias"]
    assert checkpoint.load_into(module, renamed, rules=[("^conv_1/", "conv/")]).complete


def test_not_strict_loads_what_there_is() -> None:
    module, weights = small()
    del weights["head/bias"]
    weights["more/kernel"] = torch.rand(1)
    bias = module["head"].bias.clone()
    report = checkpoint.load_into(module, weights, strict=False)
    assert (report.missing, report.unused) == (["head.bias"], ["more/kernel"])
    assert torch.equal(module["head"].bias, bias)
    assert torch.equal(module["head"].weight, weights["head/kernel"].t())
    assert "3 loaded, 1 missing, 1 unused" in str(report)


def test_rules_drop_and_are_checked() -> None:
    module, weights = small()
    weights["extra/x"] = torch.rand(1)
    assert checkpoint.load_into(module, weights, rules=[("^extra", None)]).ignored == ["extra/x"]
    for rule in ("(", r"\1"), ("(a)", r"\2"), ("a",):
        with pytest.raises(tensor_bridge.InvalidOptionError):
            checkpoint.load_into(module, weights, rules=[rule, ("conv", "a")])
    with pytest.raises(tensor_bridge.InvalidOptionError, match="'path' or 'variable'"):
        checkpoint.load_into(module, weights, names="other")


def test_two_sources_for_one_tensor_are_refused() -> None:
    module, weights = small()
    weights["copy/conv/kernel"] = weights["conv/kernel"]
    assert_refused(module, weights, "both conv/kernel and copy/conv/kernel", rules=[("copy/", "")])


def test_values_are_not_rounded_unless_asked_for() -> None:
    module, weights = small()
    module.half()
    assert_refused(module, weights, "torch.float32 does not fit into torch.float16")
    checkpoint.load_into(module, weights, cast=True)
    assert torch.equal(module["head"].bias, weights["head/bias"].half())
    bigger = nn.ModuleDict(small()[0]).double()
    assert checkpoint.load_into(bigger, weights).complete


@pytest.mark.parametrize(
    ("module", "weights", "message"),
    [
        (nn.GRU(5, 6), {"kernel": (5, 18), "recurrent_kernel": (6, 18), "bias": (18,)}, "reset_af"),
        (nn.LSTM(5, 6), {"kernel": (5, 18), "recurrent_kernel": (6, 18)}, "4 gates of 6 units"),
        (nn.Linear(3, 2, bias=False), {"kernel": (3, 2), "bias": (2,)}, "bias=False"),
        (nn.Linear(3, 2), {"kernel": (3, 2), "gamma": (2,)}, "'gamma'"),
        (nn.Conv2d(3, 2, 1), {"kernel": (1, 3, 2)}, "4 dimensions"),
        (nn.BatchNorm1d(3), {"0": (3,), "1": (3,), "2": (3,)}, "without names"),
        (nn.Embedding(3, 2), {"0": (3, 2), "1": (3, 2)}, "got more"),
        (nn.PReLU(3), {"alpha": (4, 5, 3)}, "shares alpha"),
        (nn.MultiheadAttention(8, 2), {"query/kernel": (8, 2, 4)}, "attention_output|too"),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "",
)
def test_what_a_module_cannot_be_is_told(
    module: nn.Module, weights: dict[str, tuple[int, ...]], message: str
) -> None:
    source = {f"m/{name}": torch.rand(shape) for name, shape in weights.items()}
    report = assert_refused(nn.ModuleDict({"m": module}), source, strict=False)
    import re

    assert re.search(message, "\n".join(report.problems))


def test_modules_without_memory_take_the_tensors_themselves(tmp_path: Path) -> None:
    _, weights = small()
    with torch.device("meta"):
        module, _ = small()
    checkpoint.load_into(module, weights, assign=True)
    assert torch.equal(module["conv"].bias, weights["conv/bias"])
    assert module["conv"].bias.data_ptr() == weights["conv/bias"].data_ptr()
    assert module["head"].weight.is_contiguous()


def test_tied_and_own_tensors() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(3, 2))
            self.embed = nn.Embedding(5, 4)
            self.out = nn.Linear(4, 5, bias=False)
            self.out.weight = self.embed.weight

    module = Own()
    weights = {"scale": torch.rand(3, 2), "embed/embeddings": torch.rand(5, 4)}
    assert checkpoint.load_into(module, weights).complete
    assert torch.equal(module.scale, weights["scale"])
    assert torch.equal(module.out.weight, weights["embed/embeddings"])


# --- rules with a layout --------------------------------------------------------------------------


def as_bert_has_it() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    module = nn.ModuleDict({"classifier": nn.Linear(6, 2), "square": nn.Linear(3, 3, bias=False)})
    weights = {
        "output_weights": torch.rand(2, 6),
        "output_bias": torch.rand(2),
        "square": torch.rand(3, 3),
    }
    return module, weights


@pytest.mark.parametrize("mark", ["/", "."])
@pytest.mark.parametrize("layout", ["as_is", "transposed"])
def test_a_rule_says_how_a_tensor_is_laid_out(mark: str, layout: str) -> None:
    module, weights = as_bert_has_it()
    if layout == "transposed":
        weights["output_weights"] = weights["output_weights"].t()
    report = checkpoint.load_into(
        module,
        weights,
        rules=[
            checkpoint.Rule("^output_weights$", f"classifier{mark}weight", layout),
            ("^output_bias$", f"classifier{mark}bias", "as_is"),
            ("^square$", f"square{mark}weight", layout),
        ],
    )
    assert report.complete

    def laid_out(x: torch.Tensor) -> torch.Tensor:
        return x if layout == "as_is" else x.t()

    state = module.state_dict()
    assert torch.equal(state["classifier.weight"], laid_out(weights["output_weights"]))
    assert torch.equal(state["classifier.bias"], weights["output_bias"])
    assert torch.equal(state["square.weight"], laid_out(weights["square"]))


def test_the_bias_beside_a_weight_with_a_layout_needs_none() -> None:
    module, weights = as_bert_has_it()
    rules = [
        ("^output_weights", "classifier/weight", "as_is"),
        ("^output_bias", "classifier/bias"),
        ("^square", "square/weight", "as_is"),
    ]
    assert checkpoint.load_into(module, weights, rules=rules).complete
    assert torch.equal(module["classifier"].bias, weights["output_bias"])


def test_tensors_of_a_recurrent_module_are_placed_as_they_are() -> None:
    module = nn.ModuleDict({"rnn": nn.LSTM(3, 4)})
    weights = {f"old.{name}": torch.rand_like(x) for name, x in module["rnn"].named_parameters()}
    assert checkpoint.load_into(module, weights, rules=[(r"^old\.", "rnn/", "as_is")]).complete
    assert all(torch.equal(module["rnn"].get_parameter(n[4:]), x) for n, x in weights.items())


def test_a_later_rule_changes_the_name_and_keeps_the_layout() -> None:
    module, weights = as_bert_has_it()
    rules = [("^output_(.*)s?$", r"top.\1", "as_is"), ("^top.weights$", "classifier.weight")]
    rules += [("^top", "classifier"), ("square", "square.weight", "transposed")]
    assert checkpoint.load_into(module, weights, rules=rules).complete


@pytest.mark.parametrize(
    ("name", "target", "layout", "message"),
    [
        (
            "w",
            "classifier/weights",
            "as_is",
            "got 'classifier/weights'; did you mean 'classifier.w",
        ),
        ("w", "classifier", "as_is", "needs a name of the module's state_dict, got 'classifier'"),
        ("w", "classifier/weight", "transposed", "classifier.weight: expected the shape (2, 6), "),
        ("b", "classifier/bias", "transposed", "expected two dimensions to be transposed, got"),
        ("s", "classifier/bias", "as_is", "classifier.bias <- s: 's' holds strings"),
        ("b64", "classifier/bias", "as_is", "torch.float64 does not fit into torch.float32"),
    ],
)
def test_what_a_rule_with_a_layout_cannot_place_is_told(
    name: str, target: str, layout: str, message: str
) -> None:
    module, _ = as_bert_has_it()
    weights = {
        "w": torch.rand(2, 6),
        "b": torch.rand(2),
        "s": tensor_bridge.StringTensor.from_list(["a", "b"]),
        "b64": torch.rand(2, dtype=torch.float64),
    }
    rules = [(f"^{name}$", target, layout)]
    assert_refused(module, {name: weights[name]}, message, rules=rules, strict=False)


def test_two_names_for_a_tensor_that_a_rule_places_are_refused() -> None:
    module, weights = as_bert_has_it()
    to_one = [("^(output_weights|other)$", "classifier/weight", "as_is")]
    weights["other"] = weights["output_weights"]
    message = "classifier.weight: both output_weights and other"
    assert_refused(module, weights, message, rules=to_one, strict=False)
    del weights["other"]
    weights["classifier/kernel"] = weights["output_weights"].t()
    message = "classifier.weight: both output_weights and classifier/kernel"
    assert_refused(module, weights, message, rules=to_one, strict=False)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"^a": "b"}, r"to be a list of .* got \{'\^a': 'b'\}; rules=list\(rules.items\(\)\)"),
        ("^a", r"expected rules to be a list of .*, got '\^a'"),
        (3, "expected rules to be a list of .*, got 3"),
        (None, "expected rules to be a list of .*, got None"),
        (("^a", "b"), r"expected a rule to be .*, got '\^a'; a single rule needs a list"),
        ([3], "expected a rule to be .*, got 3"),
        ([("a",)], r"got 1 values: \('a',\)"),
        ([("a", "b", "as_is", "c")], "got 4 values"),
        ([("a", "b", "as it is")], "'as_is', 'transposed' or None, got 'as it is'"),
        ([("a", "b", ["as_is"])], r"'as_is', 'transposed' or None, got \['as_is'\]"),
        ([("a", None, "as_is")], "a rule that drops names has no layout"),
        ([(b"a", "b")], r"expected a rule to be .*, got \(b'a', 'b'\)"),
        ([("a", 3)], r"expected a rule to be .*, got \('a', 3\)"),
        ([("(", "b")], r"the rule \('\(', 'b'\) is no regular expression: missing \)"),
        ([("(a)", r"\2")], "is no regular expression: invalid group reference 2"),
        ([("(a)", r"\g<b>")], "is no regular expression: unknown group name 'b'"),
    ],
)
def test_rules_that_are_none_are_told(rules: Any, message: str) -> None:
    module, weights = small()
    with pytest.raises(tensor_bridge.InvalidOptionError, match=message):
        checkpoint.load_into(module, weights, rules=rules)


@pytest.mark.parametrize("heads", [1, 4, 8])
def test_attention_with_other_heads_is_refused(heads: int) -> None:
    shapes = {"query": (8, 2, 4), "key": (8, 2, 4), "value": (8, 2, 4), "output": (2, 4, 8)}
    weights = {f"m/{part}/kernel": torch.rand(shape) for part, shape in shapes.items()}
    module = nn.ModuleDict({"m": nn.MultiheadAttention(8, heads, bias=False)})
    assert_refused(module, weights, f"expected {heads} heads of {8 // heads}, got a kernel of (8")


def test_what_a_layer_leaves_out_has_the_dtype_of_the_rest() -> None:
    shapes = {"query": (8, 2, 4), "key": (8, 2, 4), "value": (8, 2, 4), "output": (2, 4, 8)}
    weights = {f"m/{part}/kernel": torch.rand(s).half() for part, s in shapes.items()}
    weights["n/beta"] = torch.rand(3).half()
    weights["r/kernel"], weights["r/recurrent_kernel"] = (
        torch.rand(3, 8).half(),
        weights["m/query/kernel"].reshape(8, 8)[:2],
    )
    parts = {"m": nn.MultiheadAttention(8, 2), "n": nn.LayerNorm(3), "r": nn.LSTM(3, 2)}
    module = nn.ModuleDict(parts).half()
    assert checkpoint.load_into(module, weights).complete
    assert not module["r"].bias_ih_l0.any()


@needs.keras_3
def test_the_parts_of_an_encoder_layer(tmp_path: Path) -> None:
    data = keras.Input((5, 8))
    attend = L.MultiHeadAttention(2, 4, name="self_attn")(data, data)
    x = L.LayerNormalization(epsilon=1e-5, name="norm1")(data + attend)
    inner = L.Dense(8, name="linear2")(L.Dense(8, activation="relu", name="linear1")(x))
    model = keras.Model(data, L.LayerNormalization(epsilon=1e-5, name="norm2")(x + inner))
    random_weights(model)
    model.save(tmp_path / "m.keras")
    module = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)
    assert checkpoint.load_into(module, tmp_path / "m.keras").complete
    same_output(model, module, Case(L.Dense, (5, 8), nn.Module))


@needs.keras_3
@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5"])
@pytest.mark.parametrize("layer", ["Dense", "EinsumDense"])
def test_integers_of_a_quantized_layer_are_no_weights(
    tmp_path: Path, name: str, layer: str
) -> None:
    """A kernel and its scale are two variables, like a kernel and its bias."""
    made = (
        L.Dense(4, use_bias=False, name="part")
        if layer == "Dense"
        else L.EinsumDense("ab,bc->ac", 4, name="part")
    )
    model = keras.Sequential([keras.Input((4,)), made])
    made.quantize("int8")
    (model.save if name.endswith(".keras") else model.save_weights)(tmp_path / name)
    twin = nn.ModuleDict({"part": nn.Linear(4, 4)})
    before = twin["part"].weight.clone()
    for cast in (False, True):
        with pytest.raises(
            MismatchError,
            match=r"part.weight: expected torch.float32, got the integers of torch.int8; what a "
            "quantized layer keeps is a weight only with its scale",
        ):
            checkpoint.load_into(twin, tmp_path / name, cast=cast)
    assert twin["part"].weight.equal(before)
