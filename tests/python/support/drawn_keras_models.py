"""Models of Keras drawn at random, each weight filled with a constant of its own."""

from __future__ import annotations

import contextlib
import random
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np

STEPS, SIZE = 3, 4
# Some of them are what Keras calls a layer without a name.
_NAMES = ["dense", "dense_1", "dense_2", "lstm", "lstm_1", "conv1d", "sequential", "functional_1"]
_NAMES += ["hidden", "head", "a", "output", "vars_1", "time_distributed", "zeta"]
_ATTRIBUTES = ["dense", "dense_1", "dense_2", "lstm", "lstm_1", "a", "m", "out", "zeta", "_dense"]


@dataclass
class Drawn:
    """A model and the possible names of each of its weights.

    Attributes:
      model: The model, built.
      kind: "sequential", "functional" or "subclassed".
      names: For the constant in each weight, the names that identify the weight.
    """

    model: Any
    kind: str
    names: dict[float, set[str]] = field(default_factory=dict)


class _Draw:
    def __init__(self, keras: Any, seed: int) -> None:
        self.keras, self.rng = keras, random.Random(seed)
        self.is_3 = keras.__version__.startswith("3")
        self.made: list[Any] = []
        # Names that the program gave; Keras gave the others.
        self.given: set[int] = set()

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def name(self, used: set[str]) -> str | None:
        name = self.rng.choice(_NAMES) if self.chance(0.6) else None
        if name in used:
            return None
        if name is not None:
            used.add(name)
        return name

    def layer(self, used: set[str], depth: int) -> Any:
        """A layer that keeps the shape (STEPS, SIZE)."""
        layers, rng = self.keras.layers, self.rng
        makers = [
            lambda **k: layers.Dense(SIZE, use_bias=self.chance(0.7), **k),
            lambda **k: layers.Dense(SIZE, **k),
            lambda **k: layers.Conv1D(SIZE, 1, **k),
            lambda **k: layers.BatchNormalization(
                scale=self.chance(0.5), center=self.chance(0.5), **k
            ),
            lambda **k: layers.LayerNormalization(
                scale=self.chance(0.5), center=self.chance(0.5), **k
            ),
            lambda **k: layers.LSTM(SIZE, return_sequences=True, **k),
            lambda **k: layers.GRU(SIZE, return_sequences=True, **k),
            lambda **k: layers.Bidirectional(layers.LSTM(SIZE // 2, return_sequences=True), **k),
            lambda **k: layers.TimeDistributed(layers.Dense(SIZE), **k),
            lambda **k: layers.PReLU(**k),
            lambda **k: layers.Activation("tanh", **k),
        ]
        if depth < 2:
            makers += [lambda **k: self.sequential(depth + 1, **k)] * 2
            makers += [lambda **k: self.functional(depth + 1, **k)] * 2
        name = self.name(used)
        made = rng.choice(makers)(name=name)
        if name is not None:
            self.given.add(id(made))
        return made

    def several(self, used: set[str], depth: int, at_most: int) -> list[Any]:
        """Layers that are made in another order than they are used."""
        made = [self.layer(used, depth) for _ in range(self.rng.randint(1, at_most))]
        self.rng.shuffle(made)
        # Keras may have given a name that the program gave too.
        return list({layer.name: layer for layer in made}.values())

    def sequential(self, depth: int = 0, name: str | None = None) -> Any:
        layers = self.several(set(), depth, 4)
        self.made += layers
        start = [self.keras.Input((STEPS, SIZE))] if self.chance(0.5) or depth else []
        return self.keras.Sequential([*start, *layers], name=name)

    def functional(self, depth: int = 0, name: str | None = None) -> Any:
        start = self.keras.Input((STEPS, SIZE))
        used: set[str] = set()
        layers = self.several(used, depth, 5)
        taken = {layer.name for layer in layers}
        for other in self.made:
            if self.chance(0.1) and other.name not in taken:
                layers.append(other)  # shared with another model
                taken.add(other.name)
        if self.chance(0.3):
            layers.append(layers[0])  # used twice in this one
        self.made += layers
        results = [start]
        for layer in layers:
            x = layer(self.rng.choice(results))
            if self.chance(0.2):
                other = self.rng.choice(results)
                add = self.is_3 and self.chance(0.5)
                x = x + other if add else self.keras.layers.Add()([x, other])
            results.append(x)
        outputs = results[-1]
        for x in results[1:-1]:
            outputs = self.keras.layers.Add()([outputs, x])
        return self.keras.Model(start, outputs, name=name)

    def subclassed(self) -> Any:
        draw = self

        class Somebodys(self.keras.Model):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                attributes = draw.rng.sample(_ATTRIBUTES, draw.rng.randint(1, 5))
                self.order = list(attributes)
                for attribute in draw.rng.sample(attributes, len(attributes)):
                    # No layer gets the name of another layer's attribute.
                    setattr(self, attribute, draw.layer(set(_ATTRIBUTES), 1))
                if draw.chance(0.4):
                    self.blocks = draw.several(set(), 1, 3)
                if draw.chance(0.3):
                    self.parts = {"dense_1": draw.layer(set(), 2), "dense": draw.layer(set(), 2)}

            def call(self, x: Any) -> Any:
                for attribute in self.order:
                    x = getattr(self, attribute)(x)
                for layer in getattr(self, "blocks", []):
                    x = layer(x)
                for part in getattr(self, "parts", {}).values():
                    x = part(x)
                return x

        return Somebodys()


def drawn(keras: Any, seed: int) -> Drawn:
    """A model, the same for the same seed."""
    draw = _Draw(keras, seed)
    kind = draw.rng.choice(["sequential", "functional", "functional", "subclassed"])
    keras.backend.clear_session()
    if draw.chance(0.5):  # names of this model do not begin with the first
        keras.layers.Dense(1), keras.layers.LSTM(1)
    model = getattr(draw, kind)()
    model(np.zeros((1, STEPS, SIZE), "float32"))
    names: dict[float, set[str]] = {}
    constants: dict[int, float] = {}
    floats = [variable for variable in model.variables if "float" in str(variable.dtype)]
    for number, variable in enumerate(floats):
        constants[id(variable)] = float(number + 1)
        variable.assign(np.full(variable.shape, number + 1, "float32"))
        names[float(number + 1)] = set()
    with warnings.catch_warnings():  # of properties that go away
        warnings.simplefilter("ignore")
        _walk(keras, draw, model, "", constants, names, set())
    return Drawn(model, kind, names)


def _own(layer: Any) -> list[Any]:
    if hasattr(layer, "_trainable_variables"):
        return [*layer._trainable_variables, *layer._non_trainable_variables]
    return [*layer._trainable_weights, *layer._non_trainable_weights]


def _walk(
    keras: Any,
    draw: _Draw,
    layer: Any,
    path: str,
    constants: dict[int, float],
    names: dict[float, set[str]],
    above: set[int],
) -> None:
    """Notes the names of a layer's weights, by the names of models' layers and by attributes."""
    if id(layer) in above:
        return
    above = above | {id(layer)}
    for number, variable in enumerate(_own(layer)):
        if id(variable) not in constants:
            continue  # the state of a random generator
        names[constants[id(variable)]].add(f"{path}/{number}".lstrip("/"))
    base = keras.layers.Layer
    is_model = type(layer).__name__ in ("Functional", "Sequential")
    if is_model:
        inside = [(part.name, part) for part in layer.layers]
    else:
        inside = []
        for attribute in dir(layer):
            with contextlib.suppress(Exception):  # properties that are not there yet
                value = None if attribute.startswith("__") else getattr(layer, attribute)
                inside += [(attribute, value)] if isinstance(value, base) else []
        if isinstance(layer, keras.Model):
            # A name that the program gave is one too.
            inside += [(p.name, p) for p in layer.layers if id(p) in draw.given]
    for name, part in inside:
        _walk(keras, draw, part, f"{path}/{name}".lstrip("/"), constants, names, above)
