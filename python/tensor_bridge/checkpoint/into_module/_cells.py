"""The weights of one recurrent cell, in the forms of the various libraries.

All forms become one: kernels of (in, gates * units), with the gates in torch's order. Not for:
names of layers and directions, and torch's tensors (_recurrent_layouts.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tensor_bridge.checkpoint.into_module._made_with import MadeWith
from tensor_bridge.checkpoint.into_module._roles import MisfitError, by_role, need

if TYPE_CHECKING:
    import torch

    from tensor_bridge.checkpoint.into_module._roles import Weights


@dataclass(frozen=True)
class Kind:
    """What kind of cell torch's module has.

    Attributes:
      name: "LSTM", "GRU" or "RNN".
      gates: How many gates there are.
      units: Size of a gate.
      state: Size of the recurrent state: the projection's size if there is one.
    """

    name: str
    gates: int
    units: int
    state: int


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
      kernel: (in, gates * units), gates in torch's order.
      recurrent_kernel: (state, gates * units).
      bias: (2, gates * units), of the input and of the state; None if there is none.
      projection: (units, state), or None.
    """

    kernel: torch.Tensor
    recurrent_kernel: torch.Tensor
    bias: torch.Tensor | None
    projection: torch.Tensor | None = None


_RESET_BEFORE = (
    "the layer multiplies the state by the reset gate before its recurrent kernel, torch's GRU "
    "after it; torch has no GRU with reset_after=False"
)
# The libraries' names for the three weights of Keras. Keras 1 may also have one for all gates.
_CALLED = {
    "w_i": "kernel",  # Sonnet 2
    "w_h": "recurrent_kernel",
    "input_to_hidden/w": "kernel",
    "in_to_hidden/w": "kernel",  # Sonnet 1
    "in_to_hidden/b": "bias",
    "hidden_to_hidden/w": "recurrent_kernel",
    "w_h_projection": "projection",
    "projection/kernel": "projection",
    "projection/weights": "projection",
    "w_gates": "kernel",
    "b_gates": "bias",
    "U": "recurrent_kernel",
    "Matrix": "kernel",  # TensorFlow before 1.0
    "Bias": "bias",
    "W_0": "kernel",
    "B": "bias",
}
_OF_KERAS_1 = re.compile(r"(?:.+_)?([WUb](?:_[ifcozrh])?)")
_GRU_OF_SONNET_1 = {f"{x}{gate}" for x in "wub" for gate in "zrh"}


def cell_of(kind: Kind, weights: Weights, cell: str, made_with: MadeWith) -> Cell:
    """The cell that the weights form, in any library's form.

    Args:
      kind: The kind of cell that torch's module needs.
      weights: By role.
      cell: The cell's name in the weights' names, such as "basic_lstm_cell"; "" if there is none.
      made_with: The options that the file does not hold.

    Raises:
      MisfitError: They are not the weights of a cell, or torch computes this cell differently.
    """
    named = {_plain(name): x for name, x in weights.items()}
    if len(named) != len(weights):
        raise MisfitError(f"expected the weights of one cell, got {', '.join(weights)}")
    _refuse_what_torch_lacks(kind, named)
    if "candidate/input_projection/kernel" in named:
        return _gru_of_cudnn(kind, named)
    if any(re.fullmatch(r"[WUb]_[ifcozrh]", name) for name in named):
        found = _of_keras_1(kind, named)
    else:
        found = _by_role(named)
    if "projection" in found and kind.state == kind.units:
        raise MisfitError("the layer has a projection, the module none (proj_size)")
    if "recurrent_kernel" not in found:
        return _of_tensorflow_1(kind, found, cell, made_with)
    return _of_keras(kind, found, made_with)


def _plain(name: str) -> str:
    plain = "/".join(part.lstrip("_") for part in name.split("/"))
    keras_1 = _OF_KERAS_1.fullmatch(plain)
    return keras_1[1] if keras_1 and plain != "W_0" else plain


def _refuse_what_torch_lacks(kind: Kind, named: Weights) -> None:
    diagonals = sorted(name for name in named if name.endswith("_diag"))
    if diagonals:
        raise MisfitError(f"torch has no LSTM with peepholes, got {', '.join(diagonals)}")
    if kind.name == "GRU" and (
        "candidate/kernel" in named
        or "candidate/weights" in named
        or "w_i" in named  # Sonnet's
        or _GRU_OF_SONNET_1 & set(named)
        or any(re.fullmatch(r"[WUb](_[zrh])?", name) for name in named)  # Keras 1
    ):
        raise MisfitError(_RESET_BEFORE)
    for name, x in named.items():
        if x.ndim > 2:
            raise MisfitError(
                f"torch has no convolutional recurrent layer, got {name!r} of {tuple(x.shape)}"
            )


def _by_role(named: Weights) -> Weights:
    """kernel, recurrent_kernel, bias and projection, by the names of all libraries."""
    import torch

    biases = [named.get(f"{of}/b") for of in ("in_to_hidden", "hidden_to_hidden")]
    if biases[0] is not None and biases[1] is not None and biases[0].shape == biases[1].shape:
        # Sonnet 1 has two, as torch has.
        named = {n: x for n, x in named.items() if n != "hidden_to_hidden/b"}
        named["in_to_hidden/b"] = torch.stack((biases[0], biases[1]))
    found: Weights = {}
    for name, x in named.items():
        role = _CALLED.get(name, name)
        if role in found:
            raise MisfitError(f"expected one {role!r}, got two: {', '.join(named)}")
        found[role] = x
    roles = ("kernel", "recurrent_kernel", "bias")
    return by_role(found, (*roles, "projection") if "projection" in found else roles)


def _checked(kind: Kind, kernel: torch.Tensor, recurrent: torch.Tensor) -> None:
    columns = kind.gates * kind.units
    if kernel.ndim != 2 or tuple(recurrent.shape) != (kind.state, columns):
        raise MisfitError(
            f"expected kernels for {kind.gates} gates of {kind.units} units, (inputs, {columns}) "
            f"and {(kind.state, columns)}, got {tuple(kernel.shape)} and {tuple(recurrent.shape)}"
        )
    if kernel.shape[1] != columns:
        raise MisfitError(
            f"expected a kernel for {kind.gates} gates of {kind.units} units, got "
            f"{tuple(kernel.shape)}"
        )


def _reordered(x: torch.Tensor, units: int, order: tuple[int, ...]) -> torch.Tensor:
    """The last axis with its gates in another order."""
    import torch

    parts = x.split(units, -1)
    return torch.cat([parts[i] for i in order], -1)


def _of_keras(kind: Kind, found: Weights, made_with: MadeWith) -> Cell:
    """kernel, recurrent_kernel and bias; also Sonnet's LSTM, whose b has the forget bias in it."""
    import torch

    kernel, recurrent = found["kernel"], found["recurrent_kernel"]
    _checked(kind, kernel, recurrent)
    units, columns = kind.units, kind.gates * kind.units
    bias = found.get("bias")
    if bias is not None and bias.ndim == 1 and bias.numel() == 2 * columns:
        # CuDNNLSTM and CuDNNGRU keep each gate as cuDNN has it in memory: (units, in).
        size = kernel.shape[0]
        kernel = torch.cat([x.reshape(units, size).t() for x in kernel.split(units, 1)], 1)
        recurrent = torch.cat([x.t() for x in recurrent.split(units, 1)], 1)
        bias = bias.view(2, -1)
    elif bias is not None and bias.ndim == 1:
        if kind.name == "GRU":
            raise MisfitError(_RESET_BEFORE)
        bias = torch.stack((bias, torch.zeros_like(bias)))
    elif bias is None and kind.name == "GRU":
        if made_with.reset_after is False:
            raise MisfitError(_RESET_BEFORE)
        if made_with.reset_after is None:
            raise MisfitError(
                "without a bias the weights of a GRU do not tell whether reset_after was True, "
                "which torch computes, or False; if it was, say made_with={'reset_after': True}"
            )
    if bias is not None and tuple(bias.shape) != (2, columns):
        raise MisfitError(
            f"expected a bias for {kind.gates} gates of {units} units, got {tuple(bias.shape)}"
        )
    if kind.name == "GRU":
        # Keras: update, reset, new; torch: reset, update, new.
        kernel, recurrent = (_reordered(x, units, (1, 0, 2)) for x in (kernel, recurrent))
        bias = None if bias is None else _reordered(bias, units, (1, 0, 2))
    return Cell(kernel, recurrent, bias, found.get("projection"))


def _of_keras_1(kind: Kind, named: Weights) -> Weights:
    """Keras 1 has the three weights of each gate apart: W_i, U_i, b_i and so on."""
    import torch

    gates = {"LSTM": "ifco"}.get(kind.name, "")
    expected = [f"{x}_{gate}" for x in "WUb" for gate in gates]
    if sorted(named) != sorted(expected):
        raise MisfitError(f"expected {', '.join(expected) or 'W, U, b'}, got {', '.join(named)}")
    return {
        role: torch.cat([named[f"{x}_{gate}"] for gate in gates], -1)
        for x, role in (("W", "kernel"), ("U", "recurrent_kernel"), ("b", "bias"))
    }


def _of_tensorflow_1(kind: Kind, found: Weights, cell: str, made_with: MadeWith) -> Cell:
    """One kernel for the input and the state, and for an LSTM the gates i, j, f, o.

    https://github.com/tensorflow/tensorflow/blob/v1.15.0/tensorflow/python/ops/rnn_cell_impl.py
    """
    import torch

    kernel = need(found, "kernel")
    if kind.name == "GRU":
        raise MisfitError(f"expected the weights of a GRU, got {', '.join(sorted(found))}")
    if kernel.ndim != 2 or kernel.shape[0] <= kind.state:
        raise MisfitError(
            f"expected a recurrent_kernel, or a kernel of inputs + {kind.state} rows, got "
            f"{tuple(kernel.shape)}"
        )
    inputs, recurrent = kernel[: -kind.state], kernel[-kind.state :]
    _checked(kind, inputs, recurrent)
    bias = found.get("bias")
    if bias is None:
        bias = torch.zeros(kind.gates * kind.units, dtype=kernel.dtype, device="cpu")
    if tuple(bias.shape) != (kind.gates * kind.units,):
        raise MisfitError(f"expected a bias of {kind.gates * kind.units}, got {tuple(bias.shape)}")
    if kind.name == "LSTM":
        order = (0, 2, 1, 3)
        inputs, recurrent, bias = (
            _reordered(x, kind.units, order) for x in (inputs, recurrent, bias)
        )
        forget = slice(kind.units, 2 * kind.units)
        bias[forget] += _forget_bias(cell, made_with)
    bias = torch.stack((bias, torch.zeros_like(bias)))
    return Cell(inputs, recurrent, bias, found.get("projection"))


def _forget_bias(cell: str, made_with: MadeWith) -> float:
    if cell == "cudnn_compatible_lstm_cell":
        return 0.0  # cuDNN's parameters are saved so, and the class has no other value.
    if made_with.forget_bias is None:
        raise MisfitError(
            "LSTM cells of TensorFlow 1 add a forget_bias when they run, 1.0 unless they were made "
            "with another one, and the file does not hold it; say made_with={'forget_bias': 1.0}"
        )
    return made_with.forget_bias


def _gru_of_cudnn(kind: Kind, named: Weights) -> Cell:
    """The GRU of cuDNN as TensorFlow 1 saves it: gates r and u, and the candidate's two kernels.

    https://github.com/tensorflow/tensorflow/blob/v1.15.0/tensorflow/contrib/cudnn_rnn/python/ops/
    cudnn_rnn_ops.py
    """
    import torch

    roles = [f"{part}/{x}" for x in ("kernel", "bias") for part in _PARTS_OF_GRU]
    if sorted(named) != sorted(roles) or kind.name != "GRU":
        raise MisfitError(f"expected {', '.join(roles)} for a GRU, got {', '.join(named)}")
    gates, inputs, hidden, gates_bias, input_bias, hidden_bias = (named[role] for role in roles)
    size, units = inputs.shape[0], kind.units
    if tuple(gates.shape) != (size + units, 2 * units):
        raise MisfitError(
            f"expected gates/kernel of {(size + units, 2 * units)}, got {tuple(gates.shape)}"
        )
    kernel = torch.cat((gates[:size], inputs), 1)
    recurrent = torch.cat((gates[size:], hidden), 1)
    _checked(kind, kernel, recurrent)
    zeros = torch.zeros_like(gates_bias)
    bias = torch.stack((torch.cat((gates_bias, input_bias)), torch.cat((zeros, hidden_bias))))
    if tuple(bias.shape) != (2, 3 * units):
        raise MisfitError(f"expected biases for 3 gates of {units}, got {tuple(bias.shape)}")
    return Cell(kernel, recurrent, bias)


_PARTS_OF_GRU = ("gates", "candidate/input_projection", "candidate/hidden_projection")
