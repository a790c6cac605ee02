"""The recurrent cells of TensorFlow 1 in torch's layers, compared with TensorFlow."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
import torch
from tensorflow.python.keras.layers.legacy_rnn import rnn_cell_impl as cells
from torch import nn

import tensor_bridge
from tensor_bridge import MismatchError, checkpoint

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{text}:UserWarning")
    for text in (
        ".*tf.nn.rnn_cell",
        ".*add_variable",
        ".*dynamic_rnn",
        ".*legacy",
        "LSTM with projections",
    )
]
v1 = tf.compat.v1
# TensorFlow's cells, and the torch layers that compute the same.
KINDS = {"BasicLSTMCell": nn.LSTM, "LSTMCell": nn.LSTM, "BasicRNNCell": nn.RNN}


def trained(
    prefix: Path,
    make: Callable[[Any], Any],
    shape: tuple[int, ...],
    called: Callable[[str], str] = lambda name: name,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Makes a graph, gives its variables random values and saves them.

    Returns:
      The input, batch first, and the graph's output.
    """
    with tf.Graph().as_default(), v1.Session() as session:
        x = tf.random.stateless_normal(shape, (1, 2))
        y = make(x)
        variables = {called(variable.op.name): variable for variable in v1.global_variables()}
        for i, variable in enumerate(variables.values()):
            values = tf.random.stateless_uniform(variable.shape, (i, 3), -0.9, 0.9)
            session.run(v1.assign(variable, values))
        v1.train.Saver(variables).save(session, str(prefix), write_meta_graph=False)
        given, found = session.run([x, y])
    return torch.tensor(given), torch.tensor(found)


def bidirectional(forward: Any, backward: Any, x: Any) -> Any:
    outputs, _ = v1.nn.bidirectional_dynamic_rnn(forward, backward, x, dtype=tf.float32)
    return tf.concat(outputs, 2)


def stacked(make: Callable[[], Any], count: int, x: Any) -> Any:
    """tf.contrib.rnn.stack_bidirectional_dynamic_rnn: both directions go into the next layer."""
    with v1.variable_scope("stack_bidirectional_rnn"):
        for i in range(count):
            with v1.variable_scope(f"cell_{i}"):
                x = bidirectional(make(), make(), x)
    return x


def same(module: Any, prefix: Path, x: torch.Tensor, y: torch.Tensor, **options: Any) -> None:
    report = checkpoint.load_into(nn.ModuleDict({"rnn": module}), prefix, **options)
    assert report.complete
    with torch.no_grad():
        torch.testing.assert_close(module(x)[0], y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(10))
def test_cells_in_one_or_both_directions_and_several_layers(tmp_path: Path, seed: int) -> None:
    drawn_cells(tmp_path, seed)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(10, 200))
def test_more_cells_in_one_or_both_directions(tmp_path: Path, seed: int) -> None:
    drawn_cells(tmp_path, seed)


def drawn_cells(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    name = draw.choice(sorted(KINDS))
    # With as many inputs as units, shapes do not distinguish the two parts of a kernel.
    units, layers, both = draw.choice([1, 3, 4]), draw.choice([1, 2, 3]), draw.random() < 0.5
    size = draw.choice([units, units + 1])
    forget = draw.choice([0.0, 1.0, -0.5])
    projection = draw.choice([None, 2]) if name == "LSTMCell" and units > 2 else None
    options: dict[str, Any] = {} if KINDS[name] is nn.RNN else {"forget_bias": forget}
    if projection:
        options["num_proj"] = projection

    def cell() -> Any:
        return getattr(cells, name)(units, **options)

    def make(x: Any) -> Any:
        if both:
            return stacked(cell, layers, x) if layers > 1 else bidirectional(cell(), cell(), x)
        one = cells.MultiRNNCell([cell() for _ in range(layers)]) if layers > 1 else cell()
        return v1.nn.dynamic_rnn(one, x, dtype=tf.float32)[0]

    x, y = trained(tmp_path / "model.ckpt", make, (2, 5, size))
    torch_options = {"proj_size": projection} if projection else {}
    module = KINDS[name](size, units, layers, batch_first=True, bidirectional=both, **torch_options)
    rules = [("^(bidirectional_rnn|stack_bidirectional_rnn)/", r"rnn/\1/")] if both else []
    same(module, tmp_path / "model.ckpt", x, y, rules=rules, made_with={"forget_bias": forget})


def one_cell(x: Any) -> Any:
    return v1.nn.dynamic_rnn(cells.BasicLSTMCell(3), x, dtype=tf.float32)[0]


@pytest.mark.parametrize(
    "names",
    [
        {"basic_lstm_cell/kernel": "basic_lstm_cell/weights", "/bias": "/biases"},  # 1.0
        # Before 1.0.
        {"rnn/basic_lstm_cell/kernel": "RNN/BasicLSTMCell/Linear/Matrix"}
        | {"rnn/basic_lstm_cell/bias": "RNN/BasicLSTMCell/Linear/Bias"},
        {"rnn/basic_lstm_cell/kernel": "RNN/MultiRNNCell/Cell0/LSTMCell/W_0"}
        | {"rnn/basic_lstm_cell/bias": "RNN/MultiRNNCell/Cell0/LSTMCell/B"},
        # Sonnet 1 has the same cell.
        {"basic_lstm_cell/kernel": "w_gates", "basic_lstm_cell/bias": "b_gates"},
    ],
    ids=["1.0", "0.12", "0.12 LSTMCell", "Sonnet 1"],
)
def test_the_names_that_the_cell_had_elsewhere(tmp_path: Path, names: dict[str, str]) -> None:
    def called(name: str) -> str:
        for new, old in names.items():
            name = name.replace(new, old)
        return name

    x, y = trained(tmp_path / "model.ckpt", one_cell, (2, 5, 3), called)
    module = nn.LSTM(3, 3, batch_first=True)
    rules = [("^RNN/", "rnn/RNN/")]
    same(module, tmp_path / "model.ckpt", x, y, rules=rules, made_with={"forget_bias": 1.0})


def test_the_forget_bias_has_to_be_said(tmp_path: Path) -> None:
    trained(tmp_path / "model.ckpt", one_cell, (2, 5, 4))
    module = nn.ModuleDict({"rnn": nn.LSTM(4, 3)})
    with pytest.raises(MismatchError, match=r"say made_with=\{'forget_bias': 1\.0\}"):
        checkpoint.load_into(module, tmp_path / "model.ckpt", strict=False)


def test_what_cudnn_saves_has_no_forget_bias(tmp_path: Path) -> None:
    def make(x: Any) -> Any:
        made = [cells.LSTMCell(3, forget_bias=0.0, name="cudnn_compatible_lstm_cell") for _ in "ab"]
        return v1.nn.dynamic_rnn(cells.MultiRNNCell(made), x, dtype=tf.float32)[0]

    x, y = trained(tmp_path / "model.ckpt", make, (2, 5, 3))
    same(nn.LSTM(3, 3, 2, batch_first=True), tmp_path / "model.ckpt", x, y)


def gru_of_cudnn(x: Any, units: int = 3) -> Any:
    """tf.contrib.cudnn_rnn.CudnnCompatibleGRUCell, by its documentation."""
    size = x.shape[2]
    with v1.variable_scope("rnn/cudnn_compatible_gru_cell"):
        gates = v1.get_variable("gates/kernel", (size + units, 2 * units))
        gates_bias = v1.get_variable("gates/bias", (2 * units,))
        inputs = v1.get_variable("candidate/input_projection/kernel", (size, units))
        inputs_bias = v1.get_variable("candidate/input_projection/bias", (units,))
        hidden = v1.get_variable("candidate/hidden_projection/kernel", (units, units))
        hidden_bias = v1.get_variable("candidate/hidden_projection/bias", (units,))
    h, states = tf.zeros((x.shape[0], units)), []
    for step in tf.unstack(x, axis=1):
        r, u = tf.split(tf.sigmoid(tf.concat([step, h], 1) @ gates + gates_bias), 2, 1)
        new = tf.tanh(step @ inputs + inputs_bias + r * (h @ hidden + hidden_bias))
        h = (1 - u) * new + u * h
        states.append(h)
    return tf.stack(states, 1)


@pytest.mark.parametrize("size", [3, 4])
def test_the_gru_of_cudnn(tmp_path: Path, size: int) -> None:
    x, y = trained(tmp_path / "model.ckpt", gru_of_cudnn, (2, 5, size))
    same(nn.GRU(size, 3, batch_first=True), tmp_path / "model.ckpt", x, y)


def peepholes(x: Any) -> Any:
    return v1.nn.dynamic_rnn(cells.LSTMCell(3, use_peepholes=True), x, dtype=tf.float32)[0]


def projected(x: Any) -> Any:
    return v1.nn.dynamic_rnn(cells.LSTMCell(3, num_proj=3), x, dtype=tf.float32)[0]


def gru(x: Any) -> Any:
    return v1.nn.dynamic_rnn(cells.GRUCell(3), x, dtype=tf.float32)[0]


def each_direction_stacked(x: Any) -> Any:
    made = [cells.MultiRNNCell([cells.BasicLSTMCell(3) for _ in "ab"]) for _ in "ab"]
    return bidirectional(*made, x)


def attention(x: Any) -> Any:
    with v1.variable_scope("rnn/attention_wrapper"):
        return v1.nn.dynamic_rnn(cells.BasicLSTMCell(3), x, dtype=tf.float32)[0]


@pytest.mark.parametrize(
    ("make", "module", "message"),
    [
        (peepholes, nn.LSTM(3, 3), "torch has no LSTM with peepholes, got w_f_diag, w_i_diag, w_o"),
        (projected, nn.LSTM(3, 3), r"the layer has a projection, the module none \(proj_size\)"),
        (gru, nn.GRU(3, 3), "the reset gate before its recurrent kernel.*no GRU with reset_after"),
        (one_cell, nn.GRU(3, 3), "expected the weights of a GRU, got bias, kernel"),
        (one_cell, nn.LSTM(3, 4), r"gates of 4 units.*got \(2, 12\) and \(4, 12\)"),
        (one_cell, nn.LSTMCell(7, 7), "a recurrent_kernel, or a kernel of inputs . 7 rows"),
        (one_cell, nn.LSTM(3, 3, bias=False), "the layer has a bias, the module has none"),
        (each_direction_stacked, nn.LSTM(3, 3, 2, bidirectional=True), "each direction stacks by"),
        (attention, nn.LSTM(3, 3), "of one recurrent layer, got 'attention_wrapper/rnn/basic_lstm"),
    ],
    ids=lambda value: getattr(value, "__name__", None) or type(value).__name__,
)
def test_what_torch_computes_otherwise_is_refused(
    tmp_path: Path, make: Any, module: nn.Module, message: str
) -> None:
    trained(tmp_path / "model.ckpt", make, (2, 5, 3))
    with pytest.raises(MismatchError, match=message):
        checkpoint.load_into(
            nn.ModuleDict({"rnn": module}),
            tmp_path / "model.ckpt",
            rules=[("^bidirectional_rnn", "rnn/bidirectional_rnn")],
            made_with={"forget_bias": 1.0},
        )


def test_two_cells_for_one_layer_are_refused() -> None:
    weights = {
        f"{cell}/{role}": torch.rand(shape)
        for cell in ("lstm_cell", "lstm_cell_1")
        for role, shape in (("kernel", (3, 12)), ("recurrent_kernel", (3, 12)))
    }
    source = {f"rnn/stacked_rnn_cells/{name}": x for name, x in weights.items()}
    module = nn.ModuleDict({"rnn": nn.LSTM(3, 3, 2, bias=False)})
    with pytest.raises(MismatchError, match="two cells for one layer; rules that call them l0, l1"):
        checkpoint.load_into(module, source)
    rules = [("lstm_cell_1/", "l1/"), ("lstm_cell/", "l0/")]
    assert checkpoint.load_into(module, source, rules=rules).complete
    assert torch.equal(module["rnn"].weight_ih_l1, weights["lstm_cell_1/kernel"].t())


def slim_separable(x: Any) -> Any:
    """tf.contrib.layers.separable_conv2d with batch_norm, rebuilt with their names."""
    with v1.variable_scope("part"):
        depthwise = v1.get_variable("depthwise_weights", (3, 3, 3, 2))
        pointwise = v1.get_variable("pointwise_weights", (1, 1, 6, 6))
        biases = v1.get_variable("biases", (6,))
    y = tf.nn.separable_conv2d(x, depthwise, pointwise, [1, 1, 1, 1], "VALID") + biases
    with v1.variable_scope("norm"):
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        gamma, beta, mean, variance = (v1.get_variable(name, (6,)) for name in names)
        v1.get_variable("norm/moving_mean/biased", (6,))
        v1.get_variable("renorm_mean", (6,))
    return tf.nn.batch_normalization(y, mean, tf.abs(variance), beta, gamma, 1e-3)


def test_the_names_of_slim(tmp_path: Path) -> None:
    x, y = trained(tmp_path / "model.ckpt", slim_separable, (2, 5, 6, 3))
    part = nn.Sequential(nn.Conv2d(3, 6, 3, groups=3, bias=False), nn.Conv2d(6, 6, 1))
    module = nn.ModuleDict({"part": part, "norm": nn.BatchNorm2d(6, eps=1e-3)})
    rules = [("norm/norm/moving_mean", "norm/moving_mean")]
    report = checkpoint.load_into(module, tmp_path / "model.ckpt", rules=rules)
    assert report.complete
    assert sorted(report.ignored) == ["norm/norm/moving_mean/biased", "norm/renorm_mean"]
    module["norm"].running_var.abs_()  # random values may be negative
    with torch.no_grad():
        found = module["norm"].eval()(part(x.movedim(-1, 1))).movedim(1, -1)
    torch.testing.assert_close(found, y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("made_with", "message"),
    [
        (3, r"expected made_with to be a dict such as \{'forget_bias': 1.0\}, got 3"),
        ({"forget": 1.0}, "expected made_with to have forget_bias, .*, got 'forget'"),
        ({"forget_bias": True}, "expected forget_bias to be a number, got True"),
        ({"forget_bias": "1"}, "expected forget_bias to be a number, got '1'"),
        ({"reset_after": "yes"}, "expected reset_after to be True or False, got 'yes'"),
    ],
)
def test_options_that_are_none_are_told(made_with: Any, message: str) -> None:
    with pytest.raises(tensor_bridge.InvalidOptionError, match=message):
        checkpoint.load_into(nn.Linear(1, 1), {}, made_with=made_with)


def test_a_gru_without_a_bias_does_not_say_what_it_computes() -> None:
    module = nn.ModuleDict({"gru": nn.GRU(3, 3, bias=False)})
    weights = {"gru/kernel": torch.rand(3, 9), "gru/recurrent_kernel": torch.rand(3, 9)}
    with pytest.raises(MismatchError, match=r"say made_with=\{'reset_after': True\}"):
        checkpoint.load_into(module, weights)
    with pytest.raises(MismatchError, match="torch has no GRU with reset_after=False"):
        checkpoint.load_into(module, weights, made_with={"reset_after": False})
    assert checkpoint.load_into(module, weights, made_with={"reset_after": True}).complete
