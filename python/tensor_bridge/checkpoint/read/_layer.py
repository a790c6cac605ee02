"""A layer of Keras as a file describes it. Not for: where the description stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Layer:
    """A layer, from the configuration that Keras stored beside the weights.

    Attributes:
      class_name: Such as "Dense"; "Package>Name" of a registered class of somebody's own.
      config: What Keras' ``from_config`` of that class takes.
      inputs: Names of the layers whose outputs it takes; () if that is not known, or none does.
    """

    class_name: str
    config: Mapping[str, Any]
    inputs: tuple[str, ...] = ()
