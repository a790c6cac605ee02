"""Models drawn at random, made by Keras and, as a user writes them, of torch's modules.

A description is a list of layers (drawn_layers.py) and of three ways to join such lists; both sides
are made from it. `draw` gives the same model for the same seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any

import torch
from drawn_layers import Drawn, Shape, draw_average, draw_dense, draw_flatten, draw_layer
from torch import nn

STYLES = ("sequential", "functional", "subclassed")


@dataclass
class Branch:
    """Two lists of layers beside each other, joined by Add or Concatenate."""

    sides: tuple[list[Part], list[Part]]
    merge: str


@dataclass
class Twice:
    """One layer that is called twice, on its own output."""

    layer: Drawn


@dataclass
class Nested:
    """A model within the model."""

    name: str
    parts: list[Part]
    shape: Shape
    style: str


Part = Drawn | Branch | Twice | Nested


@dataclass
class Model:
    """What was drawn.

    Attributes:
      seed: The seed that gives the same model again.
      style: One of ``STYLES``.
      generation: Keras' major version.
      shape: The shape of the input; it holds integers below ``words`` if that is not 0.
    """

    seed: int
    style: str
    generation: int
    shape: Shape
    words: int
    parts: list[Part]

    def layers(self) -> list[tuple[str, Drawn]]:
        """All layers, with the path of the model that they are in."""
        return list(_walk(self.parts, ""))

    def causes(self) -> set[str]:
        """Why torch's modules without further code cannot compute the model."""
        return {layer.cause for _, layer in self.layers() if layer.cause is not None}


def _walk(parts: list[Part], where: str) -> Iterator[tuple[str, Drawn]]:
    for part in parts:
        if isinstance(part, Branch):
            for side in part.sides:
                yield from _walk(side, where)
        elif isinstance(part, Nested):
            yield from _walk(part.parts, f"{where}{part.name}/")
        else:
            yield where, part.layer if isinstance(part, Twice) else part


def draw(seed: int, generation: int) -> Model:
    """A model for a seed."""
    rng = Random(seed)
    style = rng.choice(STYLES)
    words = 0
    shape: Shape
    parts: list[Part] = []
    family = rng.choice(("picture", "sequence", "words", "vector"))
    if family == "picture":
        shape = (rng.randint(4, 9), rng.randint(4, 9), rng.randint(1, 4))
    elif family == "vector":
        shape = (rng.randint(2, 8),)
    elif family == "sequence":
        shape = (rng.randint(4, 9), rng.randint(2, 5))
    else:
        shape, words, width = (rng.randint(4, 8),), rng.randint(3, 20), rng.randint(1, 5)
        parts.append(
            Drawn(
                "Embedding",
                {"input_dim": words, "output_dim": width},
                (*shape, width),
                lambda: nn.Embedding(words, width),
            )
        )
    now = parts[0].shape if parts else shape  # type: ignore[union-attr]
    more, now = _draw_parts(rng, now, generation, style, rng.randint(1, 5), top=True)
    parts += more
    if len(now) > 1:
        layer = draw_flatten(rng, now) if rng.random() < 0.7 else draw_average(rng, now)
        parts.append(layer)
        now = layer.shape
        more, now = _draw_parts(rng, now, generation, style, rng.randint(0, 2), top=False)
        parts += more
    parts.append(draw_dense(rng, now, generation))
    model = Model(seed, style, generation, shape, words, parts)
    _name(rng, model)
    return model


def _draw_parts(
    rng: Random, shape: Shape, generation: int, style: str, count: int, top: bool
) -> tuple[list[Part], Shape]:
    parts: list[Part] = []
    for _ in range(count):
        kind = rng.random()
        if kind < 0.12 and style != "sequential":
            part, after = _draw_branch(rng, shape, generation, style)
        elif kind < 0.2 and top:
            inner_style = rng.choice(("sequential", "functional"))
            inner, after = _draw_parts(
                rng, shape, generation, inner_style, rng.randint(1, 3), top=False
            )
            part = Nested(f"inner_{len(parts)}", inner, shape, inner_style)
        else:
            part = draw_layer(rng, shape, generation, style)
            after = part.shape
            if after == shape and style != "sequential" and rng.random() < 0.2:
                part = Twice(part)
        parts.append(part)
        shape = after
    return parts, shape


def _draw_branch(
    rng: Random, shape: Shape, generation: int, style: str
) -> tuple[Branch | Drawn, Shape]:
    one, other = (
        draw_layer(rng, shape, generation, style),
        draw_layer(rng, shape, generation, style),
    )
    sides: tuple[list[Part], list[Part]] = ([one], [other] if rng.random() < 0.7 else [])
    shapes = one.shape, other.shape if sides[1] else shape
    if shapes[0] == shapes[1] and rng.random() < 0.6:
        return Branch(sides, "Add"), shapes[0]
    if shapes[0][:-1] != shapes[1][:-1] or len(shapes[0]) != len(shapes[1]):
        return one, one.shape
    return Branch(sides, "Concatenate"), (*shapes[0][:-1], shapes[0][-1] + shapes[1][-1])


def _name(rng: Random, model: Model) -> None:
    """Gives the drawer's own names, Keras' own, or names that Keras would give another layer."""
    by_model: dict[str, list[Drawn]] = {}
    for where, layer in model.layers():
        by_model.setdefault(where, []).append(layer)
    for layers in by_model.values():
        way = rng.choice(("own", "automatic", "colliding"))
        if way == "automatic":
            continue
        names = [f"part_{i}" for i in range(len(layers))]
        if way == "colliding":
            kinds = [_automatic(layer.class_name) for layer in layers]
            names = []
            for i, kind in enumerate(kinds):
                number = kinds[:i].count(kind)
                names.append(kind if number == 0 else f"{kind}_{number}")
        rng.shuffle(names)
        for layer, name in zip(layers, names, strict=True):
            layer.name = name


def _automatic(class_name: str) -> str:
    import re

    name = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", class_name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


class KerasSide:
    """A drawn model in Keras.

    Attributes:
      model: Built, with random weights.
      paths: Of each drawn layer, by its ``id``: where the file's names and the twin have it.
    """

    def __init__(self, keras: Any, drawn: Model) -> None:
        self.keras, self.drawn = keras, drawn
        self.paths: dict[int, str] = {}
        self._made: dict[int, Any] = {}
        self._merges: dict[int, Any] = {}
        rng = Random(drawn.seed + 1)
        # Made in another order than called.
        layers = drawn.layers()
        rng.shuffle(layers)
        for where, layer in layers:
            self._made[id(layer)] = made = layer.make(keras, layer.name)
            self.paths[id(layer)] = where + made.name
        options = {"dtype": "int32"} if drawn.words else {}
        if drawn.style == "subclassed":
            self.model = self._subclassed(rng)
            self.model(self.example)
        elif drawn.style == "sequential":
            self.model = keras.Sequential(
                [keras.Input(drawn.shape, **options), *map(self._one, drawn.parts)]
            )
        else:
            given = keras.Input(drawn.shape, **options)
            self.model = keras.Model(given, self.run(drawn.parts, given))
        self._randomise(rng)

    def layers(self) -> list[tuple[str, Any]]:
        """Keras' layers by their paths in the twin."""
        return [(self.paths[i], self._made[i]) for i in self.paths]

    def _one(self, part: Part) -> Any:
        if isinstance(part, Nested):
            return self._nested(part)
        assert isinstance(part, Drawn)
        return self._made[id(part)]

    def _nested(self, part: Nested) -> Any:
        if id(part) not in self._made:
            if part.style == "sequential":
                layers = [self.keras.Input(part.shape), *map(self._one, part.parts)]
                self._made[id(part)] = self.keras.Sequential(layers, name=part.name)
            else:
                given = self.keras.Input(part.shape)
                self._made[id(part)] = self.keras.Model(
                    given, self.run(part.parts, given), name=part.name
                )
        return self._made[id(part)]

    def run(self, parts: list[Part], x: Any) -> Any:
        for part in parts:
            if isinstance(part, Branch):
                sides = [self.run(side, x) for side in part.sides]
                if id(part) not in self._merges:
                    self._merges[id(part)] = getattr(self.keras.layers, part.merge)()
                x = self._merges[id(part)](sides)
            elif isinstance(part, Twice):
                x = self._call(part.layer, self._call(part.layer, x))
            elif isinstance(part, Nested):
                x = self._nested(part)(x)
            else:
                x = self._call(part, x)
        return x

    def _call(self, layer: Drawn, x: Any) -> Any:
        return self._made[id(layer)](*[x] * layer.inputs)

    def _subclassed(self, rng: Random) -> Any:
        """A model whose attributes have their own names, some like those that Keras gives."""
        side = self

        class Subclassed(self.keras.Model):  # type: ignore[misc]
            def call(self, x: Any, training: Any = None) -> Any:
                return side.run(side.drawn.parts, x)

            def get_config(self) -> dict[str, Any]:
                return {}

        model = Subclassed()
        for part in self.drawn.parts:
            if isinstance(part, Nested):
                setattr(model, part.name, self._nested(part))
        own = [layer for where, layer in self.drawn.layers() if not where]
        kinds = [_automatic(layer.class_name) for layer in own]
        names = [
            rng.choice((f"{kind}_{kinds[:i].count(kind) + 1}", f"attribute_{i}"))
            for i, kind in enumerate(kinds)
        ]
        for layer, name in zip(own, names, strict=True):
            setattr(model, name, self._made[id(layer)])
            self.paths[id(layer)] = name
        return model

    @cached_property
    def example(self) -> Any:
        """An input of two samples."""
        import tensorflow as tf

        shape = (2, *self.drawn.shape)
        if self.drawn.words:
            return tf.random.stateless_uniform(
                shape, (self.drawn.seed, 1), 0, self.drawn.words, tf.int32
            )
        return tf.random.stateless_normal(shape, (self.drawn.seed, 2), dtype=tf.float64)

    @cached_property
    def output(self) -> Any:
        """The model's output for the example."""
        import tensorflow as tf

        return tf.convert_to_tensor(self.model(self.example, training=False))

    def _randomise(self, rng: Random) -> None:
        import tensorflow as tf

        for i, variable in enumerate(self.model.weights):
            if "seed" in variable.name:
                continue
            shape, seed = tuple(variable.shape), (self.drawn.seed, 3 + i)
            if "variance" in variable.name:
                value = tf.random.stateless_uniform(shape, seed, 0.5, 1.5, tf.float64)
            else:
                value = 0.5 * tf.random.stateless_normal(shape, seed, dtype=tf.float64)
            variable.assign(tf.cast(value, variable.dtype))


class Twin(nn.Module):
    """A drawn model in torch, its modules named as the layers of Keras.

    Attributes:
      flattened: The argument ``flattened`` of `load_into`, by the paths of modules.
      keeps: Whether pictures are flattened as Keras does, channels last.
    """

    def __init__(self, drawn: Model, paths: dict[int, str]) -> None:
        super().__init__()
        self.drawn, self._paths = drawn, {k: p.replace("/", ".") for k, p in paths.items()}
        self.flattened: dict[str, Shape] = {}
        self.keeps = False
        for _, layer in drawn.layers():
            if layer.module is not None:
                self._place(self._paths[id(layer)], layer.module())
        self._find_flattened(drawn.parts, None)
        if self.keeps:
            self._keep_order()

    def _place(self, path: str, module: nn.Module) -> None:
        *outer, name = path.split(".")
        at: nn.Module = self
        for part in outer:
            if part not in dict(at.named_children()):
                at.add_module(part, nn.Module())
            at = at.get_submodule(part)
        at.add_module(name, module)

    def module_of(self, layer: Drawn) -> nn.Module | None:
        return None if layer.module is None else self.get_submodule(self._paths[id(layer)])

    def _find_flattened(self, parts: list[Part], sizes: Shape | None) -> Shape | None:
        """Finds the modules that take a Flatten's output, for `load_into`; users know them."""
        for part in parts:
            if isinstance(part, Branch):
                after = {self._find_flattened(side, sizes) for side in part.sides}
                # Keras' order joined with torch's: there is no single order for the next layer.
                self.keeps |= after != {None}
                sizes = None
            elif isinstance(part, Nested):
                sizes = self._find_flattened(part.parts, sizes)
            else:
                layer = part.layer if isinstance(part, Twice) else part
                if sizes is not None and layer.module is not None:
                    self.flattened[self._paths[id(layer)]] = sizes
                    if layer.class_name in ("Dense", "EinsumDense"):
                        sizes = None
                sizes = layer.flattens or sizes
        return sizes

    def _keep_order(self) -> None:
        """Tells `load_into` that layers after Flatten use Keras' order."""
        layers = [layer for _, layer in self.drawn.layers()]
        at = [layer.class_name for layer in layers].index("Flatten")
        for layer in layers[at:]:
            module = self.module_of(layer)
            if module is not None and module.state_dict():
                size = getattr(module, "in_features", None) or len(next(iter(module.buffers()), ()))
                size = size or next(module.parameters()).numel()
                self.flattened[self._paths[id(layer)]] = (size,)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(self.drawn.shape) == 3:
            x = x.movedim(-1, 1)
        return self._run(self.drawn.parts, x)

    def _run(self, parts: list[Part], x: torch.Tensor) -> torch.Tensor:
        for part in parts:
            if isinstance(part, Branch):
                one, other = (self._run(side, x) for side in part.sides)
                axis = 1 if one.ndim == 4 else -1
                x = one + other if part.merge == "Add" else torch.cat([one, other], axis)
            elif isinstance(part, Nested):
                x = self._run(part.parts, x)
            else:
                layer = part.layer if isinstance(part, Twice) else part
                if layer.class_name == "Flatten" and self.keeps and x.ndim == 4:
                    x = x.movedim(1, -1)
                for _ in range(2 if isinstance(part, Twice) else 1):
                    x = layer.run(self.module_of(layer), x)
        return x
