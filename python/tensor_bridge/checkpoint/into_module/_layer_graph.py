"""The layers of a Keras model as a graph: the inputs of each layer, and the output shapes.

Not for: what a layer computes (_computation.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from math import prod
from typing import Any

from tensor_bridge.checkpoint.into_module._keras_options import (
    channels_first,
    count,
    kind_of,
    option,
    pairs,
    part,
    sizes,
)
from tensor_bridge.checkpoint.into_module._pads import Axis
from tensor_bridge.checkpoint.read._layer import Layer

# Sizes of an output without those of the batch; None for a size, or a shape, that is not known.
Shape = tuple[int | None, ...]

# Layers that change neither shape nor order.
ELEMENTWISE = {
    "Activation", "ActivityRegularization", "AlphaDropout", "BatchNormalization", "Dropout", "ELU",
    "GaussianDropout", "GaussianNoise", "GroupNormalization", "Identity", "LayerNormalization",
    "LeakyReLU", "Masking", "PReLU", "RMSNormalization", "ReLU", "Rescaling", "Softmax",
    "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "ThresholdedReLU",
    "UnitNormalization",
}  # fmt: skip
# Layers that change the sizes of a picture but not its content, with its number of axes.
_RESIZING = {
    f"{kind}{n}D": n for kind in ("Cropping", "UpSampling", "ZeroPadding") for n in (1, 2, 3)
}
MERGING = {"Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract"}
_CONVOLUTIONS = {f"{kind}Conv{n}D": n for kind in ("", "Depthwise", "Separable") for n in (1, 2, 3)}
_TRANSPOSED = {f"Conv{n}DTranspose": n for n in (1, 2, 3)}
_POOLING = {f"{kind}Pooling{n}D": n for kind in ("Max", "Average") for n in (1, 2, 3)}
_WINDOWS = {**_CONVOLUTIONS, **_TRANSPOSED, **_POOLING}


class LayerGraph:
    """The layers of `Checkpoint.layers`, with answers about neighbours.

    Models within the model are expanded: their output is that of their last layers, and their
    first layers take their input.

    Attributes:
      layers: By their paths, "inner/dense".
      inputs: The layers that feed each one.
    """

    def __init__(self, layers: Mapping[str, Layer]) -> None:
        self.layers = layers
        self._last = {n: _last_layers(n, layers) for n in layers if _is_model(layers[n])}
        outer = {n: _outer_inputs(n, layers) for n in layers}
        self.inputs = {
            name: self._resolved(layer.inputs or outer[name]) for name, layer in layers.items()
        }

    def _resolved(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Layers instead of models; each model once, in case a file nests one in itself."""
        found: dict[str, None] = {}
        waiting, seen = list(reversed(names)), set[str]()
        while waiting:
            name = waiting.pop()
            if name not in self._last:
                found[name] = None
            elif name not in seen:
                seen.add(name)
                waiting += reversed(self._last[name])
        return tuple(found)

    def kind(self, name: str) -> str:
        """The class of a layer; "" for a name that is not a layer."""
        return kind_of(self.layers[name].class_name) if name in self.layers else ""

    @cached_property
    def _consumers(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, inputs in self.inputs.items():
            for source in inputs:
                found.setdefault(source, []).append(name)
        return found

    def consumers(self, name: str) -> list[str]:
        """The layers that take the output of a layer."""
        return self._consumers.get(name, [])

    def applied(self, name: str) -> tuple[str, Mapping[str, Any]]:
        """Class and configuration of a layer, or of the one that TimeDistributed applies."""
        layer = self.layers[name]
        inner = part(layer.config, "layer") if self.kind(name) == "TimeDistributed" else None
        return inner or (self.kind(name), layer.config)

    def is_window(self, name: str) -> bool:
        """Whether a layer slides over a picture or a sequence: convolutions and pooling."""
        return self.applied(name)[0] in _WINDOWS

    def before(self, name: str, passes: Callable[[str], bool]) -> Iterator[str]:
        """The layers before a layer, and before each of them that ``passes`` accepts, and so on."""
        yield from self._walk(name, passes, self.inputs.__getitem__)

    def behind(self, name: str, passes: Callable[[str], bool]) -> Iterator[str]:
        """The layers after a layer, and after those of them that ``passes`` accepts, and so on."""
        yield from self._walk(name, passes, self.consumers)

    def _walk(self, name: str, passes: Callable[[str], bool], neighbours: Any) -> Iterator[str]:
        seen = {name}
        waiting = list(neighbours(name))
        while waiting:
            name = waiting.pop()
            if name in seen or name not in self.layers:
                continue
            seen.add(name)
            yield name
            if passes(name):
                waiting += neighbours(name)

    def shape(self, name: str) -> Shape | None:
        """The shape of a layer's output."""
        return self._shapes.get(name)

    def input_shape(self, name: str) -> Shape | None:
        """The shape of a layer's input; None if it is called with several."""
        inputs = self.inputs[name]
        if not inputs:
            return _declared(self.layers[name].config)
        shapes = {self.shape(source) for source in inputs}
        return shapes.pop() if len(shapes) == 1 else None

    @cached_property
    def _shapes(self) -> dict[str, Shape | None]:
        """All shapes, each after those of the layers in front; a loop has none."""
        shapes: dict[str, Shape | None] = {}
        # A layer that is called on its own output precedes itself.
        waiting = {n: {i for i in x if i in self.layers} - {n} for n, x in self.inputs.items()}
        ready = [name for name, inputs in waiting.items() if not inputs]
        while ready:
            name = ready.pop()
            config = self.layers[name].config
            given = [shapes.get(i) for i in self.inputs[name] if i != name] or [_declared(config)]
            shape = _output(self.kind(name), config, given)
            again = name in self.inputs[name] and shape != given[0]
            shapes[name] = None if again else shape
            for behind in self.consumers(name):
                if name in waiting[behind]:
                    waiting[behind].discard(name)
                    if not waiting[behind]:
                        ready.append(behind)
        return shapes


def _is_model(layer: Layer) -> bool:
    return isinstance(layer.config.get("layers"), list)


def _names_in(value: Any) -> list[str]:
    """The names in input_layers or output_layers: ["a", 0, 0], a list or a dict of such."""
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [name for part in parts for name in _names_in(part)]


def _last_layers(model: str, layers: Mapping[str, Layer]) -> list[str]:
    """The layers of a model within the model whose outputs are its own."""
    config = layers[model].config
    names = _names_in(config.get("output_layers"))
    if not names:
        last = config["layers"][-1] if config["layers"] else None
        inner = last.get("config") if isinstance(last, dict) else None
        names = [inner["name"]] if isinstance(inner, dict) and "name" in inner else []
    # For a model three levels down Keras 2 stores only the first and the last name.
    paths = [(f"{model}/{name}", f"{model.partition('/')[0]}/{name}") for name in names]
    found = (next((p for p in pair if p in layers), None) for pair in paths)
    return [path for path in found if path is not None]


def _outer_inputs(name: str, layers: Mapping[str, Layer]) -> tuple[str, ...]:
    """The input of a model within the model, for a layer in it that takes this input."""
    model, _, own = name.rpartition("/")
    if model not in layers or not _is_model(layers[model]) or layers[name].inputs:
        return ()
    given = layers[model].inputs or _outer_inputs(model, layers)
    first = _names_in(layers[model].config.get("input_layers"))
    # Each of several inputs has its own layer, unless the model is called more than once.
    if own in first and len(first) == len(given):
        return (given[first.index(own)],)
    return given


def _declared(config: Mapping[str, Any]) -> Shape | None:
    """The input shape that an input layer or a first layer declares."""
    value = config.get("batch_shape") or config.get("batch_input_shape")
    if not isinstance(value, (list, tuple)):
        return None
    return tuple(v if isinstance(v, int) else None for v in value[1:])


def _output(kind: str, config: Mapping[str, Any], inputs: list[Shape | None]) -> Shape | None:
    given = inputs[0] if len(set(inputs)) == 1 else None
    if kind == "Concatenate":
        return _joined(config, inputs)
    if kind == "InputLayer":
        declared = _declared(config)
        return given if declared is None or (None in declared and given is not None) else declared
    if kind in _WINDOWS:
        return _windows(kind, config, given or (None,) * (_WINDOWS[kind] + 1))
    if given is None:
        return None
    if kind in ELEMENTWISE or kind in MERGING or kind == "MultiHeadAttention":
        return given
    if kind in _RESIZING:
        return _resized(kind, config, given)
    if kind == "Flatten":
        return (_product(given),)
    if kind == "Reshape":
        return _reshaped(config, given)
    if kind == "Dense" and given:
        return (*given[:-1], count(config, "units"))
    if kind == "Embedding":
        return (*given, count(config, "output_dim"))
    if kind == "EinsumDense":
        return _filled(config.get("output_shape"), given)
    if kind in ("Bidirectional", "TimeDistributed"):
        return _wrapped(kind, config, given)
    if kind in ("LSTM", "GRU", "SimpleRNN", "CuDNNLSTM", "CuDNNGRU") and len(given) == 2:
        units = count(config, "units")
        return (given[0], units) if config.get("return_sequences") else (units,)
    return None


def _filled(shape: Any, given: Shape) -> Shape | None:
    """The output shape that an EinsumDense names, with sizes of its input for None."""
    if not isinstance(shape, (list, tuple)) or len(shape) != len(given):
        return None
    return tuple(n if isinstance(n, int) else size for n, size in zip(shape, given, strict=True))


def _wrapped(kind: str, config: Mapping[str, Any], given: Shape) -> Shape | None:
    inner = part(config, "layer")
    if inner is None or not given:
        return None
    if kind == "TimeDistributed":
        shape = _output(inner[0], inner[1], [given[1:]])
        return None if shape is None else (given[0], *shape)
    shape = _output(inner[0], inner[1], [given])
    if not shape or config.get("merge_mode", "concat") != "concat":
        return shape
    return (*shape[:-1], None if shape[-1] is None else 2 * shape[-1])


def _resized(kind: str, config: Mapping[str, Any], given: Shape) -> Shape | None:
    """The shape of a padded, cropped or enlarged picture."""
    ndim = _RESIZING[kind]
    name, sign = ("padding", 1) if kind.startswith("Zero") else ("cropping", -1)
    if len(given) != ndim + 1:
        return None
    first = channels_first(config)
    channels, spatial = (given[0], given[1:]) if first else (given[-1], given[:-1])
    if kind.startswith("Up"):
        factors = sizes(config, "size", ndim)
        changes = None if factors is None else [(n, 0) for n in factors]
    else:
        ends = pairs(config, name, ndim)
        changes = None if ends is None else [(1, sign * sum(both)) for both in ends]
    if changes is None:
        return None
    out = [
        None if size is None else size * factor + more
        for size, (factor, more) in zip(spatial, changes, strict=True)
    ]
    return (channels, *out) if first else (*out, channels)


def _product(shape: Shape) -> int | None:
    known = [size for size in shape if size is not None]
    return prod(known) if len(known) == len(shape) else None


def _joined(config: Mapping[str, Any], inputs: list[Shape | None]) -> Shape | None:
    shapes = [shape for shape in inputs if shape is not None]
    axis = config.get("axis", -1)
    if len(shapes) != len(inputs) or not isinstance(axis, int):
        return None
    axis = axis - 1 if axis > 0 else axis + len(shapes[0])
    if not all(len(s) == len(shapes[0]) and 0 <= axis < len(s) for s in shapes):
        return None
    joined = [s[axis] for s in shapes]
    total = sum(n for n in joined if n is not None)
    return (*shapes[0][:axis], None if None in joined else total, *shapes[0][axis + 1 :])


def _reshaped(config: Mapping[str, Any], given: Shape) -> Shape | None:
    target = config.get("target_shape")
    if not isinstance(target, (list, tuple)) or not all(isinstance(n, int) for n in target):
        return None
    total, known = _product(given), prod(n for n in target if n != -1)
    rest = total // known if total is not None and known else None
    return tuple(rest if n == -1 else n for n in target)


def _windows(kind: str, config: Mapping[str, Any], given: Shape) -> Shape | None:
    """The output shape of convolutions and pooling: sizes of pictures, and channels."""
    ndim = _WINDOWS[kind]
    if len(given) != ndim + 1:
        return None
    first = channels_first(config)
    channels = given[0] if first else given[-1]
    spatial = given[1:] if first else given[:-1]
    pooling = kind in _POOLING
    kernels = sizes(config, "pool_size" if pooling else "kernel_size", ndim)
    ones = (1,) * ndim
    strides = sizes(config, "strides", ndim) or (kernels if pooling else ones)
    dilations = sizes(config, "dilation_rate", ndim) or ones
    if kernels is None or strides is None or not all(strides):
        return None
    padding = option(config, "padding", "valid")
    out: list[int | None] = []
    for size, axis in zip(spatial, map(Axis, kernels, strides, dilations), strict=True):
        pads = axis.keras(padding)
        if size is None or pads is None:
            out.append(None)
        elif kind in _TRANSPOSED:
            extra = sizes(config, "output_padding", ndim)
            behind = None if extra is None else extra[len(out)]
            out.append(axis.transposed(padding, behind, size)[1])
        else:
            out.append(axis.outputs(size, pads(size)))
    if kind.startswith("Depthwise"):
        multiplier = count(config, "depth_multiplier") or 1
        channels = channels * multiplier if channels is not None else None
    elif not pooling:
        channels = count(config, "filters")
    return (channels, *out) if first else (*out, channels)
