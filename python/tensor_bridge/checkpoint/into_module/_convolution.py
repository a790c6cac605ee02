"""What torch's convolutions compute differently from Keras' layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tensor_bridge.checkpoint.into_module._keras_options import channels_first, option, pairs, sizes
from tensor_bridge.checkpoint.into_module._pads import Axis, Pads
from tensor_bridge.checkpoint.into_module._pair import Pair, torch_class


def convolution(pair: Pair, kind: str, config: Mapping[str, Any]) -> Iterator[str]:
    """Plain, grouped and depthwise convolutions; a Linear for a kernel of size 1."""
    module: Any = pair.module
    if torch_class(module) == "Linear":
        taps, strides = config.get("kernel_size", 1), option(config, "strides", 1)
        if any(n not in (1, [1], (1,), [1, 1], (1, 1)) for n in (taps, strides)):
            yield f"the layer is of the kind {kind}, the module is a {pair.torch_name}"
        return
    plain = kind.startswith("Conv")  # Keras 2 stores groups=1 for depthwise convolutions
    yield from _compared(pair, config, module, config.get("groups", 1) if plain else None)


def separable(pair: Pair, _kind: str, config: Mapping[str, Any]) -> Iterator[str]:
    """A depthwise convolution followed by one with a kernel of size 1."""
    depthwise, pointwise = pair.module.children()
    if torch_class(depthwise) is not None:
        yield from _compared(pair, config, depthwise, None)
    last: Any = pointwise
    if torch_class(pointwise) is None:
        return
    for name, neutral in (("kernel_size", 1), ("stride", 1), ("groups", 1)):
        value = getattr(last, name)
        if set(value if isinstance(value, tuple) else (value,)) != {neutral}:
            yield f"the layer's second convolution has {name} {neutral}, the module's has {value}"
    if last.padding not in ("valid", "same") and any(last.padding):
        yield f"the layer's second convolution has no padding, the module's has {last.padding}"


def _compared(
    pair: Pair, config: Mapping[str, Any], module: Any, groups: int | None
) -> Iterator[str]:
    texts = list(_windows(pair, config, module))
    yield from texts
    if groups is not None and groups != module.groups:
        yield pair.differs("groups", groups, module.groups)
    if module.padding_mode != "zeros":
        yield f"the layer pads with zeros, {pair.torch_name} has {module.padding_mode!r}"
    elif not texts:
        yield from _padding(pair, config, module)


def _windows(pair: Pair, config: Mapping[str, Any], module: Any) -> Iterator[str]:
    ndim = len(module.kernel_size)
    for name, attribute in (("strides", "stride"), ("dilation_rate", "dilation")):
        value = sizes(config, name, ndim) or (1,) * ndim
        other = getattr(module, attribute)
        if value != other:
            yield pair.differs(name, _short(value), f"{attribute}={_short(other)}")


def _padding(pair: Pair, config: Mapping[str, Any], module: Any) -> Iterator[str]:
    """Compares the padding, including the zeros that a preceding layer or module adds."""
    word = option(config, "padding", "valid")
    ndim = len(module.kernel_size)
    spatial = _spatial(pair, config, ndim)
    for i, size in enumerate(spatial):
        axis = Axis(module.kernel_size[i], module.stride[i], module.dilation[i])
        own = axis.keras(word)
        if own is None:
            yield pair.differs("padding", word, f"padding={module.padding}")
            return
        found = _around(_torch_pads(module, i, axis), _torch_zeros(pair, i, ndim))
        differing = axis.differing_size(own, found, size)
        zeros = _keras_zeros(pair, i, ndim)
        if differing is not None and zeros is not None:
            # The code around the module, or the module itself, may add the zeros.
            before = None if size is None else size - sum(zeros)
            differing = axis.differing_size(_around(own, zeros), found, before)
            own = own if differing is None else _around(own, zeros)
        if differing is not None:
            yield (
                f"the layer's padding is {word}: {own(differing)} zeros around an input of "
                f"{differing}, {pair.torch_name} has {found(differing)}"
            )
            return


def _around(pads: Pads, zeros: tuple[int, int]) -> Pads:
    """Pads around an input that has zeros around it already."""

    def both(size: int) -> tuple[int, int]:
        before, behind = pads(size + sum(zeros))
        return before + zeros[0], behind + zeros[1]

    return both


def _spatial(pair: Pair, config: Mapping[str, Any], ndim: int) -> tuple[int | None, ...]:
    """The sizes of a layer's input, as far as they are known."""
    shape = pair.graph.input_shape(pair.name)
    if shape is None or len(shape) != ndim + 1:
        return (None,) * ndim
    return shape[1:] if channels_first(config) else shape[:-1]


def _torch_pads(module: Any, i: int, axis: Axis) -> Pads:
    if isinstance(module.padding, str):
        return axis.keras(module.padding) or (lambda size: (0, 0))
    count = module.padding[i]
    return lambda size: (count, count)


def _torch_zeros(pair: Pair, i: int, ndim: int) -> tuple[int, int]:
    """The zeros that the preceding module in an nn.Sequential puts around axis ``i``."""
    before, _ = pair.neighbours()
    pads: Any = before[-1] if before else None
    name = (torch_class(pads) or "") if pads is not None else ""
    constant = name.startswith("ConstantPad") and pads.value == 0
    if not (name.startswith("ZeroPad") or constant) or len(pads.padding) != 2 * ndim:
        return 0, 0
    at = 2 * (ndim - 1 - i)  # the last axis comes first
    return pads.padding[at], pads.padding[at + 1]


def _keras_zeros(pair: Pair, i: int, ndim: int) -> tuple[int, int] | None:
    """The zeros that a preceding ZeroPadding layer puts around axis ``i``."""
    inputs = pair.graph.inputs[pair.name]
    if len(inputs) != 1 or pair.graph.kind(inputs[0]) != f"ZeroPadding{ndim}D":
        return None
    zeros = pairs(pair.graph.layers[inputs[0]].config, "padding", ndim)
    return None if zeros is None else zeros[i]


def transposed(pair: Pair, _kind: str, config: Mapping[str, Any]) -> Iterator[str]:
    """Torch crops both ends equally and pads the end; Keras may crop the end more."""
    module: Any = pair.module
    texts = list(_windows(pair, config, module))
    if texts:
        yield from texts
        return
    ndim = len(module.kernel_size)
    word = option(config, "padding", "valid")
    extra = sizes(config, "output_padding", ndim)
    for i in range(ndim):
        axis = Axis(module.kernel_size[i], module.stride[i], module.dilation[i])
        # The output grows by the stride with each input, so any size shows a difference.
        n = axis.reach
        cut, left = axis.transposed(word, None if extra is None else extra[i], n)
        own = (
            module.padding[i],
            ((n - 1) * axis.stride - 2 * module.padding[i] + axis.reach + module.output_padding[i]),
        )
        if (cut, left) != own:
            yield (
                f"the layer's padding is {word}: {left} outputs of {n} inputs, the first {cut} cut "
                f"off; {pair.torch_name} has {own[1]}, the first {own[0]} cut off"
            )
            return


def _short(values: tuple[int, ...]) -> Any:
    return values[0] if len(set(values)) == 1 else values
