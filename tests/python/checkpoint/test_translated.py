"""Every error in code that reads a format becomes one class, with file and place."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from tensor_bridge import CheckpointError, CheckpointNotFoundError, FrameworkError, checkpoint
from tensor_bridge.checkpoint.read._damage import damaged, reading

ERRORS = [
    OSError(5, "from h5py"),
    KeyError("x"),
    ValueError("embedded null byte"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    RecursionError("too deep"),
    MemoryError(),
    OverflowError("too large"),
    RuntimeError("of torch"),
    IndexError("of struct"),
    TypeError("of h5py"),
    AttributeError("of None"),
    struct.error("short"),
    zlib.error("of zlib"),
    AssertionError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_every_error_becomes_one_with_its_place(error: Exception) -> None:
    with pytest.raises(CheckpointError) as caught, reading("f", "w", 8, expected="a table"):
        raise error
    assert (caught.value.file, caught.value.entry, caught.value.offset) == ("f", "w", 8)
    assert str(caught.value).startswith("f, entry 'w', byte 8: expected a table, got")
    assert type(error).__name__ in str(caught.value)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        damaged("other", "message", offset=1),
        CheckpointNotFoundError("x"),
        FrameworkError("h5py"),
        ModuleNotFoundError("torch"),
        KeyboardInterrupt(),
        GeneratorExit(),
    ],
    ids=lambda e: type(e).__name__,
)
def test_what_has_its_place_or_is_no_damage_passes(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, reading("f", "w"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ("begin", "offset", "expected"), [(0, 5, 5), (0, -1, -1), (8, 5, 13), (8, -1, 8), (-1, 5, -1)]
)
def test_places_are_counted_from_where_the_bytes_begin(
    begin: int, offset: int, expected: int
) -> None:
    error = CheckpointError("message")
    error.offset = offset
    with pytest.raises(CheckpointError) as caught, reading("f", begin=begin):
        raise error
    assert caught.value.offset == expected


def test_names_in_hdf5_may_be_any_bytes(tmp_path: Path) -> None:
    with h5py.File(path := tmp_path / "w.weights.h5", "w") as file:
        group = file.create_group("layers/dense/vars")
        inner = h5py.h5g.create(group.id, b"\xff\xfe")
        h5py.Group(inner).create_dataset("x", data=[1.0])
    loaded = checkpoint.load(path)
    [name] = loaded
    assert name.encode("utf-8", "surrogateescape").endswith(b"\xff\xfe/x")
    assert loaded[name].tolist() == [1]


@pytest.mark.parametrize("attribute", ["layer_names", "weight_names", "model_config", "backend"])
@pytest.mark.parametrize("value", [3.5, np.ones((2, 2)), h5py.Empty("f4"), b"\xff\xfe"], ids=str)
def test_attributes_in_hdf5_may_be_anything(attribute: str, value: object, tmp_path: Path) -> None:
    with h5py.File(path := tmp_path / "w.h5", "w") as file:
        file["dense/kernel:0"] = [1.0]
        file.attrs["layer_names"] = [b"dense"]
        place = file["dense"] if attribute == "weight_names" else file
        place.attrs[attribute] = value
    # A text that is not a configuration is an error; something else than a text is not.
    refused: list[CheckpointError] = []
    for call in (_values, lambda at: checkpoint.load(at).layers):
        try:
            assert call(path) in ([[1.0]], {})
        except CheckpointError as e:
            refused.append(e)
    assert all(error.file == str(path) for error in refused)
    assert len(refused) < 2


def _values(path: Path) -> list[object]:
    loaded = checkpoint.load(path)
    assert loaded.backend is not None
    return [x.tolist() for x in loaded.values()]


def test_shapes_whose_product_is_no_number_are_refused_where_they_are_read(tmp_path: Path) -> None:
    with h5py.File(path := tmp_path / "w.weights.h5", "w") as file:
        shape, wide = (0, 1 << 40, 1 << 40), (None, 1 << 40, 1 << 40)
        file.create_dataset("layers/dense/vars/0", shape, "f4", chunks=(1, 1, 1), maxshape=wide)
        file["layers/dense/vars/1"] = [1.0]
    loaded = checkpoint.load(path)
    entries = {entry.shape: entry for entry in loaded.all_entries}
    assert entries[(1,)].read(False).tolist() == [1]
    with pytest.raises(CheckpointError) as caught:
        entries[shape].read(False)
    assert caught.value.entry == "layers/dense/vars/0"
    assert caught.value.file == str(path)


def test_a_heap_that_leads_hdf5_nowhere_is_refused(tmp_path: Path) -> None:
    """HDF5 itself would never return from it, and could not be interrupted."""
    with h5py.File(path := tmp_path / "w.weights.h5", "w") as file:
        file["layers/dense/vars/0"] = [1.0]
        file["layers/dense/vars"].attrs["name"] = "dense"
    assert len(checkpoint.load(path)) == 1
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL\1")
    place = heap + 16
    while (index := int.from_bytes(data[place : place + 2], "little")) != 0:
        assert index < 10
        size = int.from_bytes(data[place + 8 : place + 16], "little")
        place += 16 + (size + 7 & ~7)
    data[place + 8 : place + 16] = bytes(8)
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path)
    assert caught.value.file == str(path)


def test_lengths_of_another_size_are_refused(tmp_path: Path) -> None:
    plist = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    plist.set_sizes(8, 4)
    path = tmp_path / "w.weights.h5"
    with h5py.File(h5py.h5f.create(str(path).encode(), h5py.h5f.ACC_TRUNC, plist)) as file:
        file["layers/dense/vars/0"] = [1.0]
    with pytest.raises(CheckpointError, match="lengths of 8 bytes"):
        checkpoint.load(path)


def test_an_attribute_of_a_type_that_is_no_text_is_not_read(tmp_path: Path) -> None:
    """h5py crashes on a text whose type was changed to a list of another size."""
    with h5py.File(path := tmp_path / "w.weights.h5", "w") as file:
        file["layers/dense/vars/0"] = [1.0]
        file["layers/dense/vars"].attrs["name"] = "dense"
    data = bytearray(path.read_bytes())
    # Class, version and kind of list: 1 is text (H5Odtype.c).
    place = data.index(b"name\0") + 8
    kind = data.index(b"\x19\x01", place)
    assert kind < place + 16
    data[kind + 1] = 0x7F
    path.write_bytes(data)
    assert next(iter(checkpoint.load(path).values())).tolist() == [1]


def test_names_in_several_attributes_are_read(tmp_path: Path) -> None:
    """Keras 2 writes several attributes if one would be too large."""
    with h5py.File(path := tmp_path / "w.h5", "w") as file:
        for name in "ba":
            file[f"{name}/{name}/kernel:0"] = [1.0]
            file[name].attrs["weight_names"] = [f"{name}/kernel:0".encode()]
        file.attrs["layer_names0"] = [b"b"]
        file.attrs["layer_names1"] = [b"a"]
    assert list(checkpoint.load(path)) == ["b/kernel", "a/kernel"]
