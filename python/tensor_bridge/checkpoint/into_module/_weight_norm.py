"""Kernels that a layer computes at run time: weight and spectral normalization."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensor_bridge.checkpoint.into_module._roles import MisfitError

if TYPE_CHECKING:
    from tensor_bridge.checkpoint.into_module._roles import Weights

_DIRECTIONS = ("v", "V", "kernel")
# https://github.com/tensorflow/addons/blob/v0.23.0/tensorflow_addons/layers/wrappers.py divides by
# the root of at least this, as tf.nn.l2_normalize does.
_SMALLEST = 1e-12


def folded(weights: Weights, axes: tuple[int, ...]) -> Weights:
    """The weights, with the kernel of weight normalization computed: g * v / ||v||.

    Args:
      weights: By role. Without a "g" they are returned unchanged.
      axes: The axes of the kernel to which ``g`` may belong; its size decides.

    Raises:
      MisfitError: The size of ``g`` does not tell its axis, or the kernel is divided by a value
        that is not in the file.
    """
    named = {_plain(name): x for name, x in weights.items()}
    if "u" in named:
        raise MisfitError(
            "spectral normalization in the code of some models divides the kernel when it runs, in "
            "TensorFlow Addons the kernel is stored divided; if it is, rules=[('/u$', None)] drop u"
        )
    direction = next((name for name in _DIRECTIONS if name in named), None)
    if "g" not in named or direction is None:
        return weights
    v, g = named[direction], named["g"].reshape(-1)
    initialized = named.get("initialized")
    rest = {n: x for n, x in named.items() if n not in ("g", "initialized", direction)}
    if initialized is not None and not initialized.any():
        return {"kernel": v, **rest}  # Its first call sets g to the norm.
    fitting = [axis for axis in axes if v.ndim >= 2 and v.shape[axis] == g.numel()]
    if len(fitting) != 1:
        said = "either of two axes" if fitting else "no axis"
        raise MisfitError(
            f"expected a g of weight normalization for one axis of the kernel, got one of "
            f"{g.numel()} for {tuple(v.shape)}, which is the size of {said}"
        )
    others = tuple(i for i in range(v.ndim) if i != fitting[0] % v.ndim)
    norm = v.square().sum(others, keepdim=True).clamp_min(_SMALLEST).sqrt()
    shape = [1] * v.ndim
    shape[fitting[0]] = -1
    return {"kernel": v / norm * g.reshape(shape), **rest}


def _plain(name: str) -> str:
    # TensorFlow Addons wraps a layer; the layer's other weights keep their names.
    return name.removeprefix("layer/").lstrip("_")
