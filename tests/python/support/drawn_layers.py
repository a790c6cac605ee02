"""Layers drawn at random: the Keras layer, the torch module that a user writes for it, and the
reason if torch's module cannot compute the layer.

Shapes are Keras', without the batch. Pictures (height, width, channels) have their channels first
in torch, sequences (steps, channels) and vectors lie as in Keras.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from random import Random
from typing import Any

import torch
from torch import nn
from torch.nn import functional

Shape = tuple[int, ...]
Run = Callable[[Any, torch.Tensor], torch.Tensor]

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "linear": lambda x: x,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "elu": functional.elu,
    "softplus": functional.softplus,
    "softsign": functional.softsign,
    "swish": functional.silu,
}


@dataclass
class Drawn:
    """One layer.

    Attributes:
      class_name: Its class in ``keras.layers``.
      options: Its constructor's arguments; an inner layer is a Drawn.
      shape: The shape of its output.
      module: Makes the torch module; None for a layer without weights.
      run: The code of the user's forward for it.
      cause: Why torch's module without further code cannot compute the layer.
      unseen: Whether only the configuration shows ``cause``, not the weights.
      name: Its name in the model; None lets Keras choose.
      flattens: For a Flatten, the sizes of the picture in torch, channels first.
      inputs: The number of its inputs.
    """

    class_name: str
    options: dict[str, Any]
    shape: Shape
    module: Callable[[], nn.Module] | None = None
    run: Run = lambda module, x: module(x)
    cause: str | None = None
    name: str | None = None
    flattens: Shape | None = None
    inputs: int = 1

    def make(self, keras: Any, name: str | None = None) -> Any:
        options = {
            key: value.make(keras) if isinstance(value, Drawn) else value
            for key, value in self.options.items()
        }
        positional = [options.pop("layer")] if "layer" in options else []
        named = {} if name is None else {"name": name}
        return getattr(keras.layers, self.class_name)(*positional, **options, **named)

    @property
    def roles(self) -> list[str]:
        """The names of a norm's weights, which some files only number."""
        if not self.class_name.endswith("Normalization"):
            return []
        if self.class_name == "RMSNormalization":
            return ["gamma"]
        options = (("scale", "gamma"), ("center", "beta"))
        return [role for option, role in options if self.options.get(option, True)]


def then(run: Run, activation: str) -> Run:
    applied = ACTIVATIONS[activation]
    return lambda module, x: applied(run(module, x))


def call(module: Any, x: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = module(x)
    return result


def on_sequence(module: Any, x: torch.Tensor) -> torch.Tensor:
    return call(module, x.transpose(1, 2)).transpose(1, 2)


def on_picture_channels_last(module: Any, x: torch.Tensor) -> torch.Tensor:
    return call(module, x.movedim(1, -1)).movedim(-1, 1)


class _Same:
    """Pads as TensorFlow does, in its own forward."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pads: list[int] = []
        for size, k, s, d in zip(
            x.shape[2:], self.kernel_size, self.stride, self.dilation, strict=True
        ):
            total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
            pads = [total // 2, total - total // 2, *pads]
        return super().forward(functional.pad(x, pads))


class SameConv1d(_Same, nn.Conv1d):
    pass


class SameConv2d(_Same, nn.Conv2d):
    pass


CONVS = {1: nn.Conv1d, 2: nn.Conv2d}
SAME_CONVS = {1: SameConv1d, 2: SameConv2d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d}


@dataclass
class Window:
    """Kernel, strides and padding of a convolution, drawn for a spatial shape."""

    kernel: Shape
    stride: int
    dilation: int
    padding: str
    outputs: Shape
    pads: list[tuple[int, int]]

    @property
    def symmetric(self) -> bool:
        return all(a == b for a, b in self.pads)

    @property
    def options(self) -> dict[str, Any]:
        return {
            "kernel_size": self.kernel,
            "strides": self.stride,
            "padding": self.padding,
        }


def draw_window(rng: Random, spatial: Shape, dilates: bool = True) -> Window | None:
    kernel = tuple(rng.choice((1, 2, 3, 3, 4)) for _ in spatial)
    if rng.random() < 0.6:
        kernel = (kernel[0],) * len(spatial)
    stride = rng.choice((1, 1, 2))
    dilation = rng.choice((1, 1, 2)) if stride == 1 and dilates else 1
    padding = rng.choice(("valid", "same"))
    outputs, pads = [], []
    for size, k in zip(spatial, kernel, strict=True):
        reach = (k - 1) * dilation + 1
        if padding == "valid":
            if size < reach:
                return None
            outputs.append((size - reach) // stride + 1)
            pads.append((0, 0))
        else:
            out = -(-size // stride)
            total = max((out - 1) * stride + reach - size, 0)
            outputs.append(out)
            pads.append((total // 2, total - total // 2))
    return Window(kernel, stride, dilation, padding, tuple(outputs), pads)


def convolution(rng: Random, window: Window, ins: int, outs: int, **options: Any) -> Any:
    """Makes the torch module and the code that runs it; the cause if that code must pad."""
    ndim = len(window.kernel)
    plain = {"stride": window.stride, "dilation": window.dilation, **options}
    kind = CONVS[ndim]
    if window.padding == "valid":
        return (lambda: kind(ins, outs, window.kernel, **plain)), call, None
    if window.stride == 1 and rng.random() < 0.5:
        return (lambda: kind(ins, outs, window.kernel, padding="same", **plain)), call, None
    if window.symmetric:
        padding = tuple(a for a, _ in window.pads)
        return (lambda: kind(ins, outs, window.kernel, padding=padding, **plain)), call, None
    if rng.random() < 0.95:
        return (lambda: SAME_CONVS[ndim](ins, outs, window.kernel, **plain)), call, None
    pads = [n for pair in reversed(window.pads) for n in pair]

    def padded(module: Any, x: torch.Tensor) -> torch.Tensor:
        return call(module, functional.pad(x, pads))

    return (lambda: kind(ins, outs, window.kernel, **plain)), padded, "padding"


def placed(run: Run, ndim: int) -> Run:
    """Transposes sequences; pictures already have channels first in torch."""
    if ndim == 2:
        return run
    return lambda module, x: run(module, x.transpose(1, 2)).transpose(1, 2)


def draw_conv(rng: Random, shape: Shape, generation: int) -> Drawn | None:
    *spatial, ins = shape
    ndim = len(spatial)
    window = draw_window(rng, tuple(spatial))
    if window is None:
        return None
    groups = rng.choice([g for g in (1, 1, 1, 2, 3) if ins % g == 0])
    outs = groups * rng.randint(1, 4)
    bias = rng.random() < 0.8
    activation = rng.choice(list(ACTIVATIONS))
    module, run, cause = convolution(rng, window, ins, outs, groups=groups, bias=bias)
    return Drawn(
        f"Conv{ndim}D",
        {
            "filters": outs,
            **window.options,
            "dilation_rate": window.dilation,
            "groups": groups,
            "use_bias": bias,
            "activation": activation,
        },
        (*window.outputs, outs),
        module,
        then(placed(run, ndim), activation),
        cause,
    )


def draw_causal(rng: Random, shape: Shape, generation: int) -> Drawn | None:
    if len(shape) != 2 or rng.random() < 0.9:
        return None
    kernel, dilation, outs = rng.randint(2, 3), rng.randint(1, 2), rng.randint(1, 4)
    reach = (kernel - 1) * dilation

    def run(module: Any, x: torch.Tensor) -> torch.Tensor:
        return call(module, functional.pad(x.transpose(1, 2), (reach, 0))).transpose(1, 2)

    return Drawn(
        "Conv1D",
        {
            "filters": outs,
            "kernel_size": kernel,
            "dilation_rate": dilation,
            "padding": "causal",
        },
        (shape[0], outs),
        lambda: nn.Conv1d(shape[1], outs, kernel, dilation=dilation),
        run,
        "causal padding",
    )


def draw_depthwise(rng: Random, shape: Shape, generation: int) -> Drawn | None:
    *spatial, ins = shape
    ndim = len(spatial)
    window = draw_window(rng, tuple(spatial), dilates=False)
    if window is None or ins == 1:
        return None
    window.kernel = (window.kernel[0],) * ndim
    if draw_matches(window, tuple(spatial)) is None:
        return None
    window = draw_matches(window, tuple(spatial))
    assert window is not None
    multiplier, bias = rng.randint(1, 2), rng.random() < 0.7
    separable = rng.random() < 0.5
    outs = rng.randint(1, 4) if separable else ins * multiplier
    run: Run
    if separable:
        module, run, cause = convolution(rng, window, ins, ins * multiplier, groups=ins, bias=False)
        kind = CONVS[ndim]

        def both() -> nn.Module:
            return nn.Sequential(module(), kind(ins * multiplier, outs, 1, bias=bias))

        if cause is not None:
            return None
        made: Callable[[], nn.Module] = both
    else:
        made, run, cause = convolution(rng, window, ins, ins * multiplier, groups=ins, bias=bias)
    options = {**window.options, "depth_multiplier": multiplier, "use_bias": bias}
    if separable:
        options["filters"] = outs
    return Drawn(
        f"{'Separable' if separable else 'Depthwise'}Conv{ndim}D",
        options,
        (*window.outputs, outs),
        made,
        placed(run, ndim),
        cause,
    )


def draw_matches(window: Window, spatial: Shape) -> Window | None:
    """The window again, after its kernel was changed."""
    outputs, pads = [], []
    for size, k in zip(spatial, window.kernel, strict=True):
        if window.padding == "valid":
            if size < k:
                return None
            outputs.append((size - k) // window.stride + 1)
            pads.append((0, 0))
        else:
            out = -(-size // window.stride)
            total = max((out - 1) * window.stride + k - size, 0)
            outputs.append(out)
            pads.append((total // 2, total - total // 2))
    return Window(window.kernel, window.stride, 1, window.padding, tuple(outputs), pads)


def draw_transposed(rng: Random, shape: Shape, generation: int) -> Drawn | None:
    *spatial, ins = shape
    ndim = len(spatial)
    if max(spatial) > 10:
        return None
    kernel, stride, outs = rng.randint(1, 4), rng.randint(1, 3), rng.randint(1, 4)
    padding = rng.choice(("valid", "same"))
    sizes, cut, extra = [], 0, 0
    for n in spatial:
        full = (n - 1) * stride + kernel
        size = n * stride + (max(kernel - stride, 0) if padding == "valid" else 0)
        total = max(full - size, 0)
        cut = total // 2 if padding == "same" else 0
        extra = size - (full - 2 * cut)
        sizes.append(size)
    cause, run = None, call
    if extra < 0:  # Keras crops more at the end than at the beginning
        if rng.random() < 0.9:
            return None
        cause = "cropping"

        def run(module: Any, x: torch.Tensor) -> torch.Tensor:
            y = call(module, x)
            for axis, size in enumerate(sizes):
                y = y.narrow(2 + axis, cut, size)
            return y

    padded = {} if cause else {"padding": cut, "output_padding": extra}
    return Drawn(
        f"Conv{ndim}DTranspose",
        {"filters": outs, "kernel_size": kernel, "strides": stride, "padding": padding},
        (*sizes, outs),
        lambda: TRANSPOSED[ndim](ins, outs, kernel, stride=stride, **padded),
        placed(run, ndim),
        cause,
    )


def draw_zeros(rng: Random, shape: Shape, generation: int) -> Drawn | None:
    if len(shape) != 3:
        return None
    pads = ((rng.randint(0, 1), rng.randint(0, 2)), (rng.randint(0, 1), rng.randint(0, 1)))
    (a, b), (c, d) = pads
    return Drawn(
        "ZeroPadding2D",
        {"padding": pads},
        (shape[0] + a + b, shape[1] + c + d, shape[2]),
        run=lambda _, x: functional.pad(x, (c, d, a, b)),
    )


def draw_pool(rng: Random, shape: Shape, generation: int) -> Drawn | None:
    *spatial, channels = shape
    ndim = len(spatial)
    if ndim not in (1, 2) or min(spatial) < 4:
        return None
    average = rng.random() < 0.4
    pools = {
        (1, False): functional.max_pool1d,
        (2, False): functional.max_pool2d,
        (1, True): functional.avg_pool1d,
        (2, True): functional.avg_pool2d,
    }
    pool = pools[ndim, average]
    return Drawn(
        f"{'Average' if average else 'Max'}Pooling{ndim}D",
        {"pool_size": 2},
        (*(n // 2 for n in spatial), channels),
        run=placed(lambda _, x: pool(x, 2), ndim),
    )


def draw_batch_norm(rng: Random, shape: Shape, generation: int) -> Drawn:
    center, scale = rng.random() < 0.7, rng.random() < 0.7
    epsilon, momentum = rng.choice((1e-3, 1e-5, 0.02)), rng.choice((0.99, 0.9))
    affine = center or scale or rng.random() < 0.5
    kind = {1: nn.BatchNorm1d, 2: nn.BatchNorm1d, 3: nn.BatchNorm2d}[len(shape)]
    return Drawn(
        "BatchNormalization",
        {"center": center, "scale": scale, "epsilon": epsilon, "momentum": momentum},
        shape,
        lambda: kind(shape[-1], eps=epsilon, momentum=1 - momentum, affine=affine),
        on_sequence if len(shape) == 2 else call,
    )


def draw_layer_norm(rng: Random, shape: Shape, generation: int) -> Drawn:
    epsilon = rng.choice((1e-3, 1e-5))
    center, scale = rng.random() < 0.8, rng.random() < 0.8
    return Drawn(
        "LayerNormalization",
        {"epsilon": epsilon, "center": center, "scale": scale},
        shape,
        lambda: nn.LayerNorm(shape[-1], eps=epsilon, elementwise_affine=center or scale),
        on_picture_channels_last if len(shape) == 3 else call,
    )


def draw_group_norm(rng: Random, shape: Shape, generation: int) -> Drawn | None:
    if len(shape) == 1:
        return None
    channels = shape[-1]
    groups = rng.choice([g for g in (1, 2, 3, channels) if channels % g == 0])
    epsilon = rng.choice((1e-3, 1e-5))
    return Drawn(
        "GroupNormalization",
        {"groups": groups, "epsilon": epsilon},
        shape,
        lambda: nn.GroupNorm(groups, channels, eps=epsilon),
        on_sequence if len(shape) == 2 else call,
    )


def draw_rms_norm(rng: Random, shape: Shape, generation: int) -> Drawn | None:
    if generation < 3 or len(shape) == 3:
        return None
    epsilon = rng.choice((1e-6, 1e-3))
    return Drawn(
        "RMSNormalization", {"epsilon": epsilon}, shape, lambda: nn.RMSNorm(shape[-1], eps=epsilon)
    )


def draw_prelu(rng: Random, shape: Shape, generation: int) -> Drawn:
    shared = list(range(1, len(shape)))
    return Drawn(
        "PReLU",
        {"shared_axes": shared} if shared else {},
        shape,
        lambda: nn.PReLU(shape[-1]),
        on_sequence if len(shape) == 2 else call,
    )


def draw_activation(rng: Random, shape: Shape, generation: int) -> Drawn:
    activation = rng.choice(list(ACTIVATIONS))
    return Drawn(
        "Activation", {"activation": activation}, shape, run=then(lambda _, x: x, activation)
    )


def draw_dropout(rng: Random, shape: Shape, generation: int) -> Drawn:
    return Drawn("Dropout", {"rate": 0.4}, shape, run=lambda _, x: x)


def draw_dense(rng: Random, shape: Shape, generation: int) -> Drawn:
    units, bias = rng.randint(1, 6), rng.random() < 0.8
    activation = rng.choice(list(ACTIVATIONS))
    return Drawn(
        "Dense",
        {"units": units, "use_bias": bias, "activation": activation},
        (*shape[:-1], units),
        lambda: nn.Linear(shape[-1], units, bias=bias),
        then(on_picture_channels_last if len(shape) == 3 else call, activation),
    )


def draw_distributed(rng: Random, shape: Shape, generation: int) -> Drawn | None:
    if len(shape) != 2:
        return None
    inner = draw_dense(rng, shape[1:], generation)
    return Drawn(
        "TimeDistributed", {"layer": inner}, (shape[0], *inner.shape), inner.module, inner.run
    )


def draw_einsum(rng: Random, shape: Shape, generation: int) -> Drawn | None:
    if len(shape) == 3:
        return None
    ins, outs = shape[-1], rng.randint(1, 5)
    if rng.random() < 0.04:
        return Drawn(
            "EinsumDense",
            {"equation": "ab,cb->ac" if len(shape) == 1 else "abc,dc->abd",
             "output_shape": (*shape[:-1], ins)},
            (*shape[:-1], ins),
            lambda: nn.Linear(ins, ins, bias=False),
            lambda module, x: functional.linear(x, module.weight.t()),
            "equation",
        )  # fmt: skip
    equation = "ab,bc->ac" if len(shape) == 1 else "abc,cd->abd"
    return Drawn(
        "EinsumDense",
        {
            "equation": equation,
            "output_shape": (*shape[:-1], outs),
            "bias_axes": equation[-1],
        },
        (*shape[:-1], outs),
        lambda: nn.Linear(ins, outs),
    )


RECURRENT = {"LSTM": nn.LSTM, "GRU": nn.GRU, "SimpleRNN": nn.RNN}


@dataclass
class _Odd:
    """Options of a recurrent layer that torch's module lacks."""

    options: dict[str, Any] = field(default_factory=dict)
    cause: str | None = None


def draw_odd(rng: Random, kind: str) -> _Odd:
    if rng.random() > 0.05:
        return _Odd()
    odd = [_Odd({"go_backwards": True}, "go_backwards")]
    if kind == "SimpleRNN":
        odd.append(_Odd({"activation": "sigmoid"}, "activation"))
    else:
        odd.append(_Odd({"recurrent_activation": "hard_sigmoid"}, "recurrent_activation"))
        odd.append(_Odd({"activation": "softsign"}, "activation"))
    if kind == "GRU":
        odd.append(_Odd({"reset_after": False}, "reset_after"))
    return rng.choice(odd)


def draw_recurrent(rng: Random, shape: Shape, generation: int) -> Drawn | None:
    if len(shape) != 2:
        return None
    kind = rng.choice(list(RECURRENT))
    units, bias, sequences = rng.randint(1, 5), rng.random() < 0.8, rng.random() < 0.6
    odd = draw_odd(rng, kind)
    options: dict[str, Any] = {"units": units, "use_bias": bias, "return_sequences": sequences}
    torch_options: dict[str, Any] = {"bias": bias, "batch_first": True}
    if kind == "SimpleRNN" and rng.random() < 0.3:
        options["activation"] = torch_options["nonlinearity"] = "relu"
    options |= odd.options
    both = rng.random() < 0.35 and odd.cause != "go_backwards"
    outs = units * (2 if both else 1)

    def run(module: Any, x: torch.Tensor) -> torch.Tensor:
        out, state = module(x)
        if sequences:
            return out
        state = state[0] if isinstance(state, tuple) else state
        return torch.cat(list(state), -1)

    drawn = Drawn(
        kind,
        options,
        (shape[0], outs) if sequences else (outs,),
        lambda: RECURRENT[kind](shape[1], units, bidirectional=both, **torch_options),
        run,
        odd.cause,
    )
    if both:
        inner = Drawn(kind, options, drawn.shape)
        drawn.class_name, drawn.options = "Bidirectional", {"layer": inner}
        if rng.random() < 0.03:
            drawn.options["merge_mode"], drawn.cause = "sum", "merge_mode"
            drawn.shape = (*drawn.shape[:-1], units)
            drawn.run = lambda module, x: torch.stack(run(module, x).chunk(2, -1)).sum(0)
    return drawn


def draw_attention(rng: Random, shape: Shape, generation: int) -> Drawn | None:
    if len(shape) != 2 or shape[1] < 2:
        return None
    size = shape[1]
    heads = rng.choice([n for n in range(1, size + 1) if size % n == 0])
    if heads == size == shape[0] and generation == 3:
        # Keras 3.15 confuses steps and heads of size 1 if their numbers are equal; Keras 2 computes
        # attention correctly.
        return None
    return Drawn(
        "MultiHeadAttention",
        {"num_heads": heads, "key_dim": size // heads},
        shape,
        lambda: nn.MultiheadAttention(size, heads, batch_first=True),
        lambda module, x: module(x, x, x, need_weights=False)[0],
        inputs=2,
    )


def draw_flatten(rng: Random, shape: Shape) -> Drawn:
    """Pictures are flattened channels first in torch, sequences as in Keras."""
    sizes = (shape[-1], *shape[:-1]) if len(shape) == 3 else None
    return Drawn(
        "Flatten",
        {},
        (prod(shape),),
        run=lambda _, x: x.flatten(1),
        flattens=sizes or (prod(shape),),
    )


def draw_average(rng: Random, shape: Shape) -> Drawn:
    ndim = len(shape) - 1
    axes = (2, 3) if ndim == 2 else (1,)
    return Drawn(f"GlobalAveragePooling{ndim}D", {}, shape[-1:], run=lambda _, x: x.mean(axes))


PICTURE = [
    draw_conv, draw_conv, draw_conv, draw_depthwise, draw_transposed, draw_zeros, draw_pool,
    draw_batch_norm, draw_batch_norm, draw_layer_norm, draw_group_norm, draw_prelu,
    draw_activation, draw_dropout, draw_dense,
]  # fmt: skip
SEQUENCE = [
    draw_conv, draw_causal, draw_depthwise, draw_transposed, draw_pool, draw_batch_norm,
    draw_layer_norm, draw_group_norm, draw_rms_norm, draw_prelu, draw_activation, draw_dropout,
    draw_dense, draw_distributed, draw_einsum, draw_recurrent, draw_recurrent, draw_recurrent,
    draw_attention,
]  # fmt: skip
VECTOR = [
    draw_dense, draw_dense, draw_dense, draw_batch_norm, draw_layer_norm, draw_rms_norm,
    draw_prelu, draw_activation, draw_dropout, draw_einsum,
]  # fmt: skip


def draw_layer(rng: Random, shape: Shape, generation: int, style: str) -> Drawn:
    """A layer for an input of that shape; ``generation`` is Keras' major version."""
    kinds = {1: VECTOR, 2: SEQUENCE, 3: PICTURE}[len(shape)]
    while True:
        drawn = rng.choice(kinds)(rng, shape, generation)
        if style == "sequential" and drawn is not None and drawn.inputs == 2:
            continue
        if drawn is not None and prod(drawn.shape) <= 1000:
            return drawn
