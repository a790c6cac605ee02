"""The source of `load_into`: a checkpoint or a mapping, under the names that the caller wants."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tensor_bridge._refusals import class_name
from tensor_bridge.checkpoint.into_module._keras_roles import role_of
from tensor_bridge.checkpoint.read._checkpoint import Checkpoint, load
from tensor_bridge.checkpoint.read._layer import Layer
from tensor_bridge.errors import CheckpointError, InvalidOptionError, UnsupportedTypeError


class Given:
    """Tensors by the names that the caller uses, each read once.

    Attributes:
      source: The checkpoint or the mapping.
      several: For a name that several variables share, each one's name in the checkpoint.
    """

    def __init__(
        self,
        source: Mapping[str, Any],
        names: dict[str, str],
        several: Mapping[str, list[str]] | None = None,
    ) -> None:
        self.source = source
        self.several = several or {}
        self._names = names
        self._entries = source.entries if isinstance(source, Checkpoint) else {}
        self._read: dict[str, Any] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __getitem__(self, name: str) -> Any:
        if name not in self._read:
            x = self.source[self._names[name]]
            # Modules compute with the real numbers, not with the integers.
            self._read[name] = x.dequantize() if getattr(x, "is_quantized", False) else x
        return self._read[name]

    @property
    def mapped(self) -> bool:
        """Whether the tensors may be views of a file."""
        return isinstance(self.source, Checkpoint)

    @property
    def path(self) -> str:
        """The path of the checkpoint."""
        return self.source.path if isinstance(self.source, Checkpoint) else ""

    @property
    def layers(self) -> Mapping[str, Layer]:
        """The layers of Keras that a checkpoint describes."""
        return self.source.layers if isinstance(self.source, Checkpoint) else {}

    def layers_of(self, names: Iterable[str]) -> list[str]:
        """The layers of tensors: the longest prefixes of their stored names that are layers."""
        layers = self.layers
        found: dict[str, None] = {}
        for name in names if layers else ():
            parts = self._names[name].split("/")
            prefixes = ("/".join(parts[:n]) for n in range(len(parts) - 1, 0, -1))
            layer = next((prefix for prefix in prefixes if prefix in layers), None)
            if layer is not None:
                found[layer] = None
        return list(found)

    def named(self, name: str) -> bool:
        """Whether the name tells the layer, not only the place in the file."""
        entry = self._entries.get(self._names[name])
        return entry is None or entry.named

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, which a checkpoint knows without reading the values."""
        entry = self._entries.get(self._names[name])
        return tuple(self[name].shape) if entry is None else entry.shape

    def role(self, name: str) -> str | None:
        """The role, by its layer's configuration, of a variable that the checkpoint numbers."""
        stored = self._names[name]
        if not isinstance(self.source, Checkpoint) or not stored.rpartition("/")[2].isdecimal():
            return None
        try:
            return role_of(stored, self.source.layers)
        except CheckpointError:  # numbers are read without a configuration too
            return None

    def is_text(self, name: str) -> bool:
        """Whether it holds strings."""
        entry = self._entries.get(self._names[name])
        return _is_text(self[name]) if entry is None else entry.dtype == "string"


def given_by(source: Any, names: str) -> Given:
    """The source that a caller of `load_into` passes.

    Raises:
      UnsupportedTypeError: It is not a path, a checkpoint or a mapping from names to tensors.
      InvalidOptionError: ``names`` is unknown, or asks for what the source does not have.
      CheckpointError, CheckpointNotFoundError: As `load`.
    """
    if isinstance(source, (str, os.PathLike)):
        source = load(source)
    if not isinstance(source, Checkpoint):
        _look_at(source)
    if names == "path":
        return Given(source, {name: name for name in source})
    if names != "variable":
        raise InvalidOptionError(f"expected names to be 'path' or 'variable', got {names!r}")
    called = source.variable_names if isinstance(source, Checkpoint) else {}
    if not called:
        raise InvalidOptionError("the source does not know what its variables were called")
    found: dict[str, str] = {}
    several: dict[str, list[str]] = {}
    for path, variable in called.items():
        if variable in found:
            several.setdefault(variable, [found[variable]]).append(path)
        found.setdefault(variable, path)
    return Given(source, found, several)


def _look_at(source: Any) -> None:
    from torch import Tensor, nn

    if not isinstance(source, Mapping):
        advice = ""
        if isinstance(source, nn.Module):
            advice = "; from one torch module into another: module.load_state_dict(...)"
        elif hasattr(source, "save_weights"):
            advice = "; save the model first: model.save_weights('model.weights.h5')"
        raise UnsupportedTypeError(
            "expected source to be a path, a Checkpoint, or a mapping from names to torch tensors, "
            f"got {_kind(source)}{advice}"
        )
    for name, x in source.items():
        if not isinstance(name, str):
            raise UnsupportedTypeError(
                f"expected names of tensors in source, got {name!r} ({_kind(name)})"
            )
        if not isinstance(x, Tensor) and not _is_text(x):
            raise UnsupportedTypeError(
                f"expected torch tensors in source, got {_kind(x)} for {name!r}; "
                "tensor_bridge.to_torch makes one of a TensorFlow tensor"
            )


def _is_text(x: Any) -> bool:
    # Not at the top: it imports every kind of composite value.
    from tensor_bridge.composite import StringTensor

    return isinstance(x, StringTensor)


def _kind(value: Any) -> str:
    return "None" if value is None else class_name(value)
