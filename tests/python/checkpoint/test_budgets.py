"""Attacks by small files: memory, time and temporary files stay in proportion to the file's size.

Each attack runs in a separate process, whose memory, processor time and temporary files are
counted.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import bundles
import h5py
import numpy as np
import pytest
import tables
import torch
from fresh import run_forked
from tensorflow.core.protobuf import tensor_bundle_pb2

from tensor_bridge import CheckpointError, checkpoint
from tensor_bridge.checkpoint.read._names import slice_key

pytestmark = pytest.mark.alone

READER = """
import json, os, resource, sys, tempfile, time
import torch
import tensor_bridge.checkpoint.read._keras as keras_files
from tensor_bridge import checkpoint
from tensor_bridge.errors import TensorBridgeError
"""
READ = """
written = []
temporary = tempfile.TemporaryFile
def watched(*args, **options):
    written.append(temporary(*args, **options))
    return written[-1]
tempfile.TemporaryFile = watched
# What asks for everything is to fail, not to end other processes.
resource.setrlimit(resource.RLIMIT_AS, (32 << 30, 32 << 30))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
memory, begin, disk = peak(), time.process_time(), 0
close = os.close
refusals = []
def tried(call):
    try:
        return call()
    except TensorBridgeError as e:
        refusals.append(str(e))
def keep(path):
    source = checkpoint.load(path)
    return source
if hasattr(keras_files, "_write_sparse"):
    copy = keras_files._write_sparse
    def counted(source, target, most):
        global disk
        try:
            return copy(source, target, most)
        finally:
            disk = os.fstat(target.fileno()).st_blocks * 512
    keras_files._write_sparse = counted
loaded = tried(lambda: keep({path!r}))
if loaded is not None:
    tried(lambda: loaded.layers)
    tried(loaded.verify)
    for entry in loaded.all_entries:
        tried(lambda: entry.read(False))
print(json.dumps([
    len(loaded or ()), refusals[:3], peak() - memory, time.process_time() - begin, disk >> 20
]))
"""


class Cost(NamedTuple):
    entries: int
    refusals: list[str]
    megabytes: int
    seconds: float
    disk: int


def cost(path: Path) -> Cost:
    code = READ.replace("{path!r}", repr(str(path)))
    return Cost(*json.loads(run_forked(code, after=(READER,)).check()))


def made(folder: Path, content: bytes, name: str = "made.ckpt") -> Path:
    (path := folder / name).write_bytes(content)
    return path


def made_bundle(folder: Path, records: list[tuple[bytes, bytes]], data: bytes) -> Path:
    made(folder, data, "made.data-00000-of-00001")
    return made(folder, bundles.index_bytes(records), "made.index").with_suffix("")


def overlapping(folder: Path) -> Path:
    """1 MB of index: one variable in 20,000 slices, each of the same 256 KiB."""
    count, length = 20_000, 1 << 16
    whole = tensor_bundle_pb2.BundleEntryProto(dtype=1)
    for size in (count, length):
        whole.shape.dim.add().size = size
    records = []
    for row in range(count):
        extents = whole.slices.add()
        one, other = extents.extent.add(), extents.extent.add()
        one.start, one.length = row, 1
        other.start, other.length = 0, length
        part = bundles.entry(dtype=1, shape=(1, length), size=4 * length)
        records.append((slice_key(b"w", (row, 1, 0, length)), part))
    records = [(b"", bundles.header()), *sorted(records), (b"w", whole.SerializeToString())]
    return made_bundle(folder, records, b"\0" * 4 * length)


def repeated(folder: Path) -> Path:
    """The same slice a hundred thousand times in one entry."""
    whole = tensor_bundle_pb2.BundleEntryProto(dtype=1)
    whole.shape.dim.add().size = 100_000
    for _ in range(100_000):
        extent = whole.slices.add().extent.add()
        extent.start, extent.length = 0, 1
    part = bundles.entry(dtype=1, shape=(1,), size=4)
    records = [(b"", bundles.header()), (slice_key(b"w", (0, 1)), part)]
    records.append((b"w", whole.SerializeToString()))
    return made_bundle(folder, records, b"\0" * 4)


def _field(number: int, content: bytes) -> bytes:
    return bundles.varint(number << 3 | 2) + bundles.varint(len(content)) + content


def repeated_in_v1(folder: Path) -> Path:
    """The first format: the last of 60,000 records, 60,000 times in one tensor."""
    count = 60_000
    shape = _field(2, _field(2, b"\x08" + bundles.varint(count)))
    one = _field(4, _field(1, b"\x10\x01"))
    tensor = _field(1, _field(1, b"w") + shape + b"\x18\x01" + one * count)
    values = _field(2, _field(3, b"\x08\x01\x2a\x04\0\0\0\0"))
    records = [(b"", _field(1, tensor)), *((b"\0%05d" % i, b"") for i in range(count))]
    records.append((slice_key(b"w", (0, 1)), values))
    return made(folder, bundles.index_bytes(sorted(records)))


def _v1_tensor(name: bytes, count: int) -> bytes:
    """The description of a tensor of one axis, each of its elements a slice."""
    starts = (_field(4, _field(1, b"\x08" + bundles.varint(i) + b"\x10\x01")) for i in range(count))
    shape = _field(2, _field(2, b"\x08" + bundles.varint(count)))
    return _field(1, _field(1, name) + shape + b"\x18\x01" + b"".join(starts))


def _v1_slices(name: bytes, count: int) -> list[tuple[bytes, bytes]]:
    """The slices of such a tensor, each of them 1.0."""
    values = _field(2, _field(3, b"\x2a\x04\0\0\x80\x3f"))
    return [(slice_key(name, (i, 1)), values) for i in range(count)]


def many_slices(folder: Path) -> Path:
    """The first format: 40,000 slices of one tensor in one block."""
    records = [(b"", _field(1, _v1_tensor(b"w", 40_000))), *_v1_slices(b"w", 40_000)]
    return made(folder, bundles.index_bytes(sorted(records)))


def packed_slices(folder: Path) -> Path:
    """The first format: 3,000 tensors, alternating between two blocks that unpack to 16 MB each."""
    names = [b"%s%04d" % ((b"a", b"b")[i % 2], i) for i in range(3000)]
    description = _field(1, b"".join(_v1_tensor(name, 1) for name in names))
    records = sorted(record for name in names for record in _v1_slices(name, 1))
    half = len(records) // 2
    blocks = [[(b"", description), *records[:half]], records[half:]]
    return made(folder, tables.with_zeros(blocks, (16 << 20) + 8))


def long_slice_names(folder: Path) -> Path:
    """The first format: one name of 100 kB, which the keys of 40,000 slices repeat."""
    records = [(b"", _field(1, _v1_tensor(b"w" * 100_000, 40_000)))]
    return made(folder, bundles.index_bytes(records))


def archive(path: Path, weights: Callable[[Any], None], config: bytes = b"") -> Path:
    """An archive packed as tightly as deflate can."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        file.writestr("metadata.json", b"{}")
        if config:
            file.writestr("config.json", config)
        with file.open("model.weights.h5", "w", force_zip64=True) as member:
            weights(member)
    return path


def bomb(folder: Path) -> Path:
    """Half a megabyte that unpacks to half a gigabyte without zeros."""

    def write(member: Any) -> None:
        for _ in range(512):
            member.write(b"\1" * (1 << 20))

    return archive(folder / "bomb.keras", write)


def many_groups(folder: Path) -> Path:
    """Groups nested to a depth of 2,000."""
    with h5py.File(path := folder / "deep.weights.h5", "w") as file:
        group: Any = file
        for _ in range(2000):
            group = group.create_group("g")
        group.create_dataset("x", data=[1.0])
    return path


def shared_groups(folder: Path) -> Path:
    """40 groups, each with two names for the next one: 2 ** 40 paths."""
    with h5py.File(path := folder / "shared.weights.h5", "w") as file:
        group: Any = file
        for _ in range(40):
            inner = group.create_group("a")
            group["b"] = inner
            group = inner
        group.create_dataset("x", data=[1.0])
    return path


def long_names(folder: Path) -> Path:
    """Layers whose names are only slashes."""
    with h5py.File(path := folder / "names.weights.h5", "w") as file:
        for i in range(20):
            group = file.create_group(f"layers/dense_{i}/vars")
            group.create_dataset("0", data=[1.0])
            group.attrs["name"] = "a/" * 30_000
    return path


def _with_text(folder: Path, count: int, size: int) -> tuple[Path, bytearray, int, int]:
    """A file with an array of texts as names of layers: path, bytes, places of texts and heap."""
    path = folder / "text.weights.h5"
    names = ["layers/dense", *["x"] * (count - 1)]
    with h5py.File(path, "w") as file:
        file.attrs["other"] = "y" * size
        file.attrs["layer_names"] = np.array(names, dtype=object).astype(h5py.string_dtype())
        file["layers/dense/vars/0"] = [1.0]
        file["layers/dense"].attrs["weight_names"] = ["w"]
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL")
    heaps = [i for i in range(0, len(data), 8) if data.startswith(b"GCOL", i)]
    places = [data.find((12).to_bytes(4, "little") + h.to_bytes(8, "little")) for h in heaps]
    return path, data, max(places), heap


def spelt_layers(folder: Path) -> Path:
    """4,000 spellings of one group's name, which has 4,000 names of weights."""
    with h5py.File(path := folder / "spelt.h5", "w") as file:
        file["g/w"] = [1.0]
        for place, names in (
            (file, ["/" * i + "g" for i in range(4000)]),
            (file["g"], [f"w{i}" for i in range(4000)]),
        ):
            name = "layer_names" if place is file else "weight_names"
            place.attrs[name] = np.array(names, dtype=object).astype(h5py.string_dtype())
    return path


def long_chunk(folder: Path) -> Path:
    """A chunk of two bytes that has two megabytes by the index of chunks."""
    path = folder / "chunk.weights.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("layers/dense/vars/0", data=[True, False], chunks=(2,))
    data = bytearray(path.read_bytes()) + b"\xff" * (4 << 20)
    data[40:48] = len(data).to_bytes(8, "little")  # where the file ends
    size = data.index(b"TREE\1") + 24
    assert data[size : size + 4] == b"\2\0\0\0"
    data[size : size + 4] = (2 << 20).to_bytes(4, "little")
    chunk = int.from_bytes(data[size + 24 : size + 32], "little")
    assert data[chunk : chunk + 2] == b"\1\0"
    path.write_bytes(data)
    return path


def claimed_text(folder: Path) -> Path:
    """A text that claims 4 GB."""
    path, data, place, _ = _with_text(folder, 1, 1)
    data[place : place + 4] = b"\xff" * 4
    return made(folder, data, path.name)


def shared_text(folder: Path) -> Path:
    """4,000 texts that all refer to the same megabyte."""
    path, data, place, heap = _with_text(folder, 4000, 1 << 20)
    one = (1 << 20).to_bytes(4, "little") + heap.to_bytes(8, "little") + b"\1\0\0\0"
    assert one in data
    data[place : place + 16 * 4000] = one * 4000
    path.write_bytes(data)
    return path


def nested_heaps(folder: Path) -> Path:
    """Texts in 4,000 heaps; each heap has all later heaps as its objects."""
    path, data, place, _ = _with_text(folder, 4000, 1)
    an_object = b"\2" + b"\0" * 7 + (16).to_bytes(8, "little")
    for at in range(place, place + 16 * 4000, 16):
        data += an_object
        data[at : at + 16] = b"\x10\0\0\0" + len(data).to_bytes(8, "little") + b"\2\0\0\0"
        data += b"GCOL\1\0\0\0" + (1 << 40).to_bytes(8, "little")
    data += (an_object + b"\0" * 16) * 30_000
    data[40:48] = len(data).to_bytes(8, "little")  # where the file ends
    path.write_bytes(data)
    return path


def with_config(folder: Path, text: bytes) -> Path:
    """A small model that this configuration describes."""

    def write(member: Any) -> None:
        with h5py.File(folder / "w.h5", "w") as file:
            file["layers/dense/vars/0"] = [1.0]
        member.write((folder / "w.h5").read_bytes())

    return archive(folder / "made.keras", write, text)


def deep_config(folder: Path) -> Path:
    """A configuration of 16 MB, a hundred thousand levels deep."""
    text = b'{"config":' * 100_000 + b"[]" * (7 << 20)
    return with_config(folder, text)


def wide_config(folder: Path) -> Path:
    """16 KB of a configuration that unpack to 16 MB of empty objects."""
    text = b"[" + b"{}," * (5 << 20) + b"0]"
    return with_config(folder, text)


def quotes(folder: Path) -> Path:
    """A list of checkpoints that is a string without an end."""
    made(folder, b'model_checkpoint_path: "' + b'\\"' * 500_000, "checkpoint")
    return folder


def slashes(folder: Path) -> Path:
    (folder / "checkpoint").write_bytes(b'model_checkpoint_path: "' + b"a/" * 500_000 + b'"')
    return folder


ATTACKS = (
    overlapping,
    repeated,
    repeated_in_v1,
    many_slices,
    packed_slices,
    long_slice_names,
    bomb,
    many_groups,
    shared_groups,
    long_names,
    spelt_layers,
    long_chunk,
    claimed_text,
    shared_text,
    nested_heaps,
    deep_config,
    wide_config,
    quotes,
    slashes,
)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_what_a_small_file_may_take(attack: Callable[[Path], Path], tmp_path: Path) -> None:
    found = cost(attack(tmp_path))
    assert found.megabytes < 400, found
    assert found.seconds < 10, found
    assert found.disk <= 65, found
    # Each of many paths is read once; groups keep their own names if the given names are invalid.
    if attack is packed_slices:
        assert (found.entries, found.refusals) == (3000, []), found
    elif attack not in (shared_groups, long_names, spelt_layers, deep_config, wide_config):
        assert found.refusals, found


def test_a_model_of_zeros_is_read_whatever_its_size(tmp_path: Path) -> None:
    """The model is a thousand times as large as its archive, and takes no space on the disk."""
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_dataset("layers/dense/vars/0", data=np.zeros(32 << 20, np.float32))
        file["layers/dense/vars/1"] = np.arange(100.0)

    def write(member: Any) -> None:
        with (tmp_path / "w.h5").open("rb") as file:
            while piece := file.read(1 << 20):
                member.write(piece)

    path = archive(tmp_path / "zeros.keras", write)
    assert path.stat().st_size < 1 << 20
    found = cost(path)
    assert found.entries == 2
    assert found.refusals == []
    assert found.disk <= 1
    # Found by size, because without a configuration the names are those of the file.
    one, two = checkpoint.load(path).values()
    assert one.shape == (32 << 20,)
    assert int(one[:: 1 << 16].count_nonzero()) == 0
    assert torch.equal(two, torch.arange(100, dtype=torch.float64))


def test_a_sparse_file_of_four_gigabytes_is_read(tmp_path: Path) -> None:
    size = 4 << 30
    entry = bundles.entry(dtype=1, shape=(size // 4,), size=size)
    prefix = bundles.write(tmp_path, {"w": entry}, b"")
    with (tmp_path / "made.data-00000-of-00001").open("r+b") as file:
        file.truncate(size)
        file.seek(-4, 2)
        file.write(b"\0\0\x80\x3f")
    assert checkpoint.load(prefix)["w"][-1].item() == 1


def test_data_sets_that_share_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.weights.h5"
    with h5py.File(path, "w") as file:
        for name in ("0", "1"):
            file.create_dataset(f"layers/dense/vars/{name}", data=np.ones(1000, np.float32))
        places = [file[f"layers/dense/vars/{n}"].id.get_offset() for n in "01"]
    data = bytearray(path.read_bytes())
    place = data.find(places[1].to_bytes(8, "little"))
    data[place : place + 8] = places[0].to_bytes(8, "little")
    # Without the bytes of the second member, the two do not fit.
    path.write_bytes(data[: places[1]])
    with pytest.raises(CheckpointError):
        checkpoint.load(path)


def test_entries_that_share_bytes_are_refused(tmp_path: Path) -> None:
    def load(begin: int) -> checkpoint.Checkpoint:
        entries = {
            "a": bundles.entry(dtype=1, shape=(2,), size=8),
            "b": bundles.entry(dtype=1, shape=(2,), offset=begin, size=8),
            "none": bundles.entry(dtype=1, shape=(0,), offset=4, size=0),
        }
        return checkpoint.load(bundles.write(tmp_path, entries, b"\0" * 16))

    assert load(8)["b"].tolist() == [0, 0]
    with pytest.raises(CheckpointError, match="share no bytes") as caught:
        load(7)
    assert caught.value.entry == "b"
    assert caught.value.file.endswith("made.index")
