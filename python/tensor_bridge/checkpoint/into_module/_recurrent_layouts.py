"""How the weights of LSTM, GRU and RNN are laid out in torch, layers and directions included.

Not for: the forms that a single cell has in different libraries (_cells.py).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from tensor_bridge.checkpoint.into_module._cells import Cell, Kind, cell_of
from tensor_bridge.checkpoint.into_module._made_with import MadeWith
from tensor_bridge.checkpoint.into_module._roles import MisfitError

if TYPE_CHECKING:
    from tensor_bridge.checkpoint.into_module._roles import Weights

# Scopes and objects between a recurrent layer and its weights, without the numbers that TensorFlow
# and Keras add to make a name unique.
_CELLS = {
    "basic_lstm_cell",
    "basic_rnn_cell",
    "cell",
    "cudnn_compatible_gru_cell",
    "cudnn_compatible_lstm_cell",
    "gru_cell",
    "lstm_block_cell",
    "lstm_cell",
    "lstm_fused_cell",
    "simple_rnn_cell",
}
_SCOPES = _CELLS | {
    "bidirectional_rnn",
    "cells",
    "deep_rnn",
    "layers",
    "linear",
    "multi_rnn_cell",
    "rnn",
    "stack_bidirectional_rnn",
    "stacked_rnn_cells",
}
_OLD = {  # TensorFlow before 1.0
    "RNN": "rnn",
    "MultiRNNCell": "multi_rnn_cell",
    "BasicLSTMCell": "basic_lstm_cell",
    "LSTMCell": "lstm_cell",
    "GRUCell": "gru_cell",
    "BasicRNNCell": "basic_rnn_cell",
    "BiRNN": "bidirectional_rnn",
    "FW": "fw",
    "BW": "bw",
    "Linear": "linear",
    "Gates": "gates",
    "Candidate": "candidate",
}
# The beginning of roles that have two parts.
_PARTS = {
    "candidate",
    "gates",
    "hidden_projection",
    "hidden_to_hidden",
    "in_to_hidden",
    "input_projection",
    "input_to_hidden",
    "projection",
}


class _Place(NamedTuple):
    """Where in a recurrent module a weight goes.

    Attributes:
      layer: The layer's number.
      reverse: Whether it belongs to the backward direction.
      cell: The cell's name; "" if it has none.
      scope: Everything before the role in the name.
      role: The rest of the name.
    """

    layer: int
    reverse: bool
    cell: str
    scope: str
    role: str

    @property
    def suffix(self) -> str:
        """The suffix of torch's tensor names for this place."""
        return f"_l{self.layer}{'_reverse' if self.reverse else ''}"


# The ways to number layers: torch's, names of scopes, and indices of a list of cells.
_OF_TORCH = re.compile(r"l(\d{1,6})")
_OF_SCOPE = re.compile(r"(?:cell[_-]|Cell)(\d{1,6})")
_OF_LIST = re.compile(r"(\d{1,6})")
_LISTS = {"cells", "layers"}
_DIRECTION = re.compile(r"(?:(forward|fw)|backward|bw)(?:_.+)?")


def _place(name: str) -> _Place:
    *words, last = name.split("/")
    end = next((i for i, word in enumerate(words) if _word(word) in _PARTS), len(words))
    scope, role = words[:end], "/".join([*map(_word, words[end:]), last])
    layer, reverse, cell, above = 0, None, "", ""
    for part in scope:
        word = _word(part)
        plain = re.sub(r"_\d+$", "", word)
        stacked = _OF_SCOPE.fullmatch(word) or (above in _LISTS and _OF_LIST.fullmatch(word))
        if stacked:
            layer = int(stacked[1])
            if layer and reverse is not None:
                raise MisfitError(
                    f"{name!r} is of layers that each direction stacks by itself; torch joins the "
                    "directions after each layer"
                )
        elif torch_layer := _OF_TORCH.fullmatch(word):
            layer = int(torch_layer[1])
        elif direction := _DIRECTION.fullmatch(word):
            reverse = direction[1] is None
        elif plain not in _SCOPES:
            raise MisfitError(f"expected weights of one recurrent layer, got {name!r}")
        elif plain in _CELLS and plain != "cell":
            cell = plain
        above = word
    return _Place(layer, bool(reverse), cell, "/".join(scope), role)


def _word(part: str) -> str:
    return _OLD.get(part, part).lstrip("_")


def _tensors(module: Any, cell: Cell, suffix: str) -> Weights:
    """A cell's tensors under torch's names."""
    import torch

    out = {
        f"weight_ih{suffix}": cell.kernel.t(),
        f"weight_hh{suffix}": cell.recurrent_kernel.t(),
    }
    if cell.projection is not None:
        out[f"weight_hr{suffix}"] = cell.projection.t()
    bias = cell.bias
    if module.bias:
        if bias is None:
            bias = torch.zeros(2, cell.kernel.shape[1], dtype=cell.kernel.dtype, device="cpu")
        out[f"bias_ih{suffix}"], out[f"bias_hh{suffix}"] = bias.unbind()
    elif bias is not None and torch.count_nonzero(bias):
        raise MisfitError("the layer has a bias, the module has none (bias=False)")
    return out


def recurrent(module: Any, weights: Weights, made_with: MadeWith) -> Weights:
    from torch import nn

    lonely = isinstance(module, nn.RNNCellBase)
    cells: dict[str, tuple[_Place, Weights]] = {}
    for name, x in weights.items():
        place = _place(name)
        if lonely and (place.layer or place.reverse):
            raise MisfitError(f"expected weights of one cell, got {name!r}")
        first, roles = cells.setdefault("" if lonely else place.suffix, (place, {}))
        if first.scope != place.scope:
            raise MisfitError(
                f"{first.scope!r} and {place.scope!r} are two cells for one layer; rules that call "
                "them l0, l1 and so on say which layer is which"
            )
        roles[place.role] = x
    kind = _kind(module)
    out: Weights = {}
    for suffix, (place, roles) in cells.items():
        out.update(_tensors(module, cell_of(kind, roles, place.cell, made_with), suffix))
    return out


def _kind(module: Any) -> Kind:
    from torch import nn

    state = getattr(module, "proj_size", 0) or module.hidden_size
    if isinstance(module, (nn.LSTM, nn.LSTMCell)):
        return Kind("LSTM", 4, module.hidden_size, state)
    if isinstance(module, (nn.GRU, nn.GRUCell)):
        return Kind("GRU", 3, module.hidden_size, state)
    return Kind("RNN", 1, module.hidden_size, state)
