"""Texts of HDF5 attributes, read without HDF5 and compared with h5py."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tensor_bridge import CheckpointError
from tensor_bridge.checkpoint.read._hdf5 import Hdf5File
from tensor_bridge.checkpoint.read._mapped import MappedFile

SHAPES: tuple[tuple[int, ...], ...] = ((), (0,), (1,), (7,), (2, 3))


def opened(path: Path) -> Hdf5File:
    file = MappedFile(str(path))
    return Hdf5File(file, 0, file.size)


def drawn_text(dice: random.Random) -> str:
    letters = dice.choice(("a", "äß", "日本", "\x1b \n", "GCOL\x01"))
    return "".join(dice.choices(letters, k=dice.choice((0, 1, 5, 40, 3000))))


def write_drawn(item: Any, dice: random.Random, committed: Any) -> None:
    """Writes up to 8 attributes, some of them twice, for gaps and continued headers."""
    for _ in range(dice.randrange(14)):
        shape, name = dice.choice(SHAPES), f"t{dice.randrange(8)}"
        kind = dice.choice((h5py.string_dtype(), h5py.string_dtype("ascii"), committed, "S4"))
        if dice.random() < 0.1:
            item.attrs[name] = h5py.Empty(h5py.string_dtype())
            continue
        texts = np.empty(shape, object if kind != "S4" else kind)
        for place in np.ndindex(shape):
            plain = kind == "S4" or kind == h5py.string_dtype("ascii")
            texts[place] = "abcd" if plain else drawn_text(dice)
        item.attrs.create(name, texts, dtype=kind)


def by_h5py(value: Any) -> list[str] | None:
    if isinstance(value, h5py.Empty):
        return None
    texts = value.ravel().tolist() if isinstance(value, np.ndarray) else [value]
    return [text.decode() if isinstance(text, bytes) else text for text in texts]


@pytest.mark.parametrize("track_order", [False, True])
@pytest.mark.parametrize("libver", ["earliest", "v108", "latest"])
def test_they_are_those_that_h5py_gives(tmp_path: Path, libver: str, track_order: bool) -> None:
    path, count = tmp_path / "drawn.h5", 0
    for seed in range(12):
        dice = random.Random(f"{libver} {track_order} {seed}")
        with h5py.File(path, "w", libver=libver, track_order=track_order) as file:
            file["type"] = h5py.string_dtype()
            for place in ("a", "a/b", "c"):
                write_drawn(file.create_group(place, track_order=track_order), dice, file["type"])
            write_drawn(file.create_dataset("a/x", data=[1.0]), dice, file["type"])
            write_drawn(file, dice, file["type"])
        ours = opened(path)
        with h5py.File(path) as file:
            for place in ("", "a", "a/b", "c", "a/x"):
                for name, value in file[place or "/"].attrs.items():
                    assert ours.texts(place, name) == by_h5py(value), (seed, place, name)
                    count += 1
    assert count > 100


def test_texts_that_are_elsewhere_are_refused_and_told(tmp_path: Path) -> None:
    """Later versions of the format store more than 8 attributes outside the header."""
    path = tmp_path / "many.h5"
    with h5py.File(path, "w", libver="latest") as file:
        for number in range(12):
            file.attrs[f"v{number}"] = "text"
            file.attrs[f"f{number}"] = np.bytes_(b"text")
    ours = opened(path)
    assert ours.texts("", "f3") == ["text"]
    with pytest.raises(CheckpointError, match="libver='earliest'"):
        ours.texts("", "v3")
