"""The kinds of files that the package writes: code that writes one with a value, and reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file

import tensor_bridge
from tensor_bridge import checkpoint

ELEMENTS = 1000
NAMES = {"w0", "w1", "w2"}
IMPORTS = "import torch\nfrom tensor_bridge import checkpoint\n"


def state(value: float) -> dict[str, torch.Tensor]:
    return {name: torch.full((ELEMENTS,), value) for name in sorted(NAMES)}


def value_of(tensors: dict[str, torch.Tensor]) -> float:
    """The single value of all elements."""
    assert set(tensors) == NAMES
    every = torch.cat(list(tensors.values()))
    assert every.shape == (len(NAMES) * ELEMENTS,)
    assert len(every.unique()) == 1
    return every[0].item()


def _of_safetensors(folder: Path) -> float | None:
    path = folder / "out.safetensors"
    return value_of(load_file(path)) if path.exists() else None


def _of_torch(folder: Path) -> float | None:
    path = folder / "out.pt"
    return value_of(torch.load(path)) if path.exists() else None


def _of_shards(folder: Path) -> float | None:
    index = folder / "out.safetensors.index.json"
    if not index.exists():
        return None
    where = json.loads(index.read_text())["weight_map"]
    parts = {file: load_file(folder / file) for file in set(where.values())}
    for file, part in parts.items():
        assert set(part) == {name for name in where if where[name] == file}
    return value_of({name: parts[file][name] for name, file in where.items()})


def _of_bundle(folder: Path) -> float | None:
    try:
        return value_of(dict(checkpoint.load(folder / "out")))
    except tensor_bridge.CheckpointNotFoundError:
        return None


class Kind(NamedTuple):
    """A kind of output: the reader of its value (None if missing), and how to write it."""

    read: Callable[[Path], float | None]
    target: str
    files: tuple[str, ...]
    more: str = ""

    def code(self, source: str, folder: Path, *, overwrite: bool) -> str:
        """Python code that writes the content of the checkpoint."""
        end = f"{str(folder / self.target)!r}, overwrite={overwrite}{self.more})\n"
        if self.target == "out":
            return f"{IMPORTS}checkpoint.save(dict(checkpoint.load({source!r})), {end}"
        return f"{IMPORTS}checkpoint.convert({source!r}, {end}"

    def write(self, source: str, folder: Path, *, overwrite: bool) -> None:
        exec(self.code(source, folder, overwrite=overwrite), {})


KINDS = {
    "safetensors": Kind(_of_safetensors, "out.safetensors", ("out.safetensors",)),
    "torch": Kind(_of_torch, "out.pt", ("out.pt",)),
    "shards": Kind(
        _of_shards,
        "out.safetensors",
        (
            *(f"out-{i:05d}-of-00003.safetensors" for i in (1, 2, 3)),
            "out.safetensors.index.json",
        ),
        f", max_shard_bytes={4 * ELEMENTS}",
    ),
    "bundle": Kind(_of_bundle, "out", ("out.data-00000-of-00001", "out.index")),
}
