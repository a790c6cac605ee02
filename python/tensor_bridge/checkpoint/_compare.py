"""Where two checkpoints differ, name by name and value by value."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tensor_bridge.checkpoint.read._checkpoint import Checkpoint
from tensor_bridge.composite import StringTensor

# Elements compared at a time: as float64 they take far less memory than a tensor.
_PART = 1 << 22


def pairs(one: Checkpoint, two: Checkpoint) -> dict[str, str]:
    """Names of the first checkpoint to those of the same tensors in the second.

    Keras numbers the variables of a layer in some files and names them in others, in the same
    order. Under one layer's name, "dense/0" and "dense/1" are "dense/kernel" and "dense/bias" if
    all of one side are numbers, none of the other, and the shapes agree in that order.
    """
    found = {name: name for name in one if name in two}
    left, right = (_by_layer(c, found) for c in (one, two))
    for layer in left.keys() & right.keys():
        names, others = left[layer], right[layer]
        numbered = [all(n.rpartition("/")[2].isdigit() for n in side) for side in (names, others)]
        shapes = [one.entries[n].shape for n in names] == [two.entries[n].shape for n in others]
        if shapes and numbered in ([True, False], [False, True]):
            found.update(zip(names, others, strict=True))
    return {name: found[name] for name in one if name in found}


def _by_layer(checkpoint: Checkpoint, without: dict[str, str]) -> dict[str, list[str]]:
    """The names, grouped by all but their last part, in the order of the file."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, entry in checkpoint.entries.items():
        if name not in without and entry.named and "/" in name:
            found[name.rpartition("/")[0]].append(name)
    return found


def _scales(x: Any) -> Any:
    """The parameters that turn the integers of a quantized tensor into real numbers."""
    import torch

    if x.qscheme() == torch.per_tensor_affine:
        return x.q_scale(), x.q_zero_point()
    scales, zero_points = x.q_per_channel_scales(), x.q_per_channel_zero_points()
    return scales.tolist(), zero_points.tolist(), x.q_per_channel_axis()


def _difference(one: Any, two: Any) -> str | None:
    """How two tensors differ, in words; None if they do not. NaN is equal to itself."""
    import torch

    if isinstance(one, StringTensor) or isinstance(two, StringTensor):
        same = type(one) is type(two) and one.tolist() == two.tolist()
        return None if same else "strings differ"
    if one.dtype != two.dtype:
        return f"{one.dtype} and {two.dtype}"
    if one.shape != two.shape:
        return f"shapes {tuple(one.shape)} and {tuple(two.shape)}"
    if one.is_quantized:
        if _scales(one) != _scales(two):
            return "scales or zero points differ"
        one, two = one.int_repr(), two.int_repr()
    # By bytes: NaN is equal to itself.
    flat = [x.reshape(-1).view(torch.uint8) for x in (one, two)]
    if torch.equal(*flat):
        return None
    wide = torch.complex128 if one.is_complex() else torch.float64
    count, most = 0, 0.0
    for parts in zip(*(x.reshape(-1).split(_PART) for x in (one, two)), strict=True):
        a, b = (x.to(wide) for x in parts)
        count += int((a != b).sum())
        most = max(most, float((a - b).abs().nan_to_num(nan=0.0).max()))
    return f"{count} of {one.numel()} values differ, by at most {most:g}"


def differences(
    one: Checkpoint,
    two: Checkpoint,
    same: Mapping[str, str],
    progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[str, str]]:
    """Name and difference of each pair of tensors that differ."""
    total, done = sum(one.entries[name].nbytes for name in same), 0
    for name, other in same.items():
        text = _difference(one[name], two[other])
        if text is not None:
            yield name, text
        done += one.entries[name].nbytes
        if progress is not None:
            progress(done, total)
