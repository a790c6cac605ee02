"""Checkpoints of TensorFlow's first format, compared with TensorFlow's own reader."""

from __future__ import annotations

import random
import re
from math import prod
from pathlib import Path
from typing import Any

import pytest
import tables
import tensorflow as tf
import torch
from tf_bytes import BY_DEFAULT, random_tensor, tf_memory, torch_memory
from tree import ROOT

import tensor_bridge
from tensor_bridge import CheckpointError, CheckpointNotFoundError, checkpoint

v1 = tf.compat.v1
DATA = ROOT / "tests/data/checkpoints"
# TensorFlow's TensorSliceWriter has only these.
DTYPES = [
    "float32", "float64", "int32", "uint8", "int16", "int8", "complex64", "int64", "bool", "uint16",
    "complex128", "float16",
]  # fmt: skip
QUANTIZED = {"qint8": tf.int8, "quint8": tf.uint8, "qint32": tf.int32}
ROWS = {row.name: row for row in BY_DEFAULT}


def drawn(name: str, shape: tuple[int, ...], seed: int) -> tf.Tensor:
    if name != "string":
        return random_tensor(ROWS[name], shape, seed)
    dice = random.Random(seed)
    strings = [dice.randbytes(dice.choice([0, 1, 7, 200])) for _ in range(prod(shape))]
    return tf.reshape(tf.constant(strings, tf.string), shape)


def write(path: Path | str, tensors: dict[str, Any]) -> str:
    tf.raw_ops.SaveSlices(
        filename=str(path),
        tensor_names=list(tensors),
        shapes_and_slices=[""] * len(tensors),
        data=list(tensors.values()),
    )
    return str(path)


def restored(path: str, name: str, dtype: tf.DType) -> tf.Tensor:
    """The tensor that TensorFlow reads, of every dtype and also from several slices."""
    return tf.raw_ops.RestoreSlice(
        file_pattern=path, tensor_name=name, shape_and_slice="", dt=dtype
    )


def assert_like_tensorflow(loaded: checkpoint.Checkpoint, pattern: str) -> None:
    reader = tf.train.load_checkpoint(pattern)
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    entries = {entry.key: entry for entry in loaded.all_entries}
    assert set(entries) == set(shapes)
    for key, entry in entries.items():
        assert list(entry.shape) == shapes[key]
        assert entry.dtype == dtypes[key].name
        expected = tensor_bridge.to_torch(restored(pattern, key, dtypes[key]))
        found = entry.read(False)
        if isinstance(expected, tensor_bridge.StringTensor):
            assert found.tolist() == expected.tolist()
            continue
        assert found.dtype == expected.dtype
        assert torch_memory(found) == torch_memory(expected)
        assert found.shape == expected.shape


def pack(path: str, seed: int) -> None:
    """Packs some of a file's blocks with Snappy, like early releases of TensorFlow."""
    file = Path(path)
    file.write_bytes(tables.pack(tables.records_of(file.read_bytes()), random.Random(seed)))


@pytest.mark.parametrize(
    ("path", "pattern", "names"),
    [
        # The file `checkpoint` names a folder of the machine on which it was made.
        ("serving_bad_half_plus_two", "export", ["Variable", "Variable_1"]),
        ("serving_session_bundle/export", "export-?????-of-00001", ["a", "b"]),
    ],
)
def test_real_checkpoints(path: str, pattern: str, names: list[str]) -> None:
    loaded = checkpoint.load(DATA / path, verify=True)
    assert loaded.verify().without == 0
    assert {name: loaded[name].item() for name in loaded} == dict(zip(names, [0.5, 2], strict=True))
    assert_like_tensorflow(loaded, str(DATA / path.split("/")[0] / pattern))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", [*DTYPES, "string"])
def test_every_dtype_is_read(tmp_path: Path, name: str, packed: bool) -> None:
    shapes = [(), (5,), (2, 3), (0, 4), (1, 1, 300)]
    tensors = {f"t{i}": drawn(name, shape, i) for i, shape in enumerate(shapes)}
    path = write(tmp_path / "model", tensors)
    if packed:
        pack(path, 1)
    loaded = checkpoint.load(path, verify=True)
    assert loaded.format == "v1"
    assert list(loaded) == list(tensors)
    assert_like_tensorflow(loaded, path)
    raw = checkpoint.load(path, raw=True)
    for key, tensor in tensors.items() if name != "string" else ():
        assert torch_memory(raw[key]) == tf_memory(tensor)


@pytest.mark.parametrize("name", QUANTIZED)
def test_quantized_dtypes_are_refused_and_read_raw(tmp_path: Path, name: str) -> None:
    plain = tf.constant([1, 0, 127], QUANTIZED[name])
    path = write(tmp_path / "q", {"q": tf.bitcast(plain, tf.as_dtype(name))})
    with pytest.raises(tensor_bridge.UnsupportedDtypeError, match=r"entry 'q'.*raw=True"):
        checkpoint.load(path)["q"]
    assert checkpoint.load(path, raw=True)["q"].tolist() == [1, 0, 127]


def test_tensorflow_writes_no_other_dtypes(tmp_path: Path) -> None:
    for row in BY_DEFAULT:
        if row.name not in DTYPES:
            with pytest.raises(tf.errors.OpError, match=r"Saving data|Tensor slice serial"):
                write(tmp_path / "x", {"x": random_tensor(row, (2,), 0)})


def save(path: str, make: Any, **options: Any) -> str:
    with tf.Graph().as_default():
        make()
        with v1.Session(config=v1.ConfigProto(device_count={"CPU": 2})) as session:
            session.run(v1.global_variables_initializer())
            saver = v1.train.Saver(write_version=v1.train.SaverDef.V1, **options)
            return str(saver.save(session, path))


def training() -> None:
    w = v1.get_variable("scope/w", (3, 2), initializer=v1.random_normal_initializer())
    v1.get_variable("words", initializer=tf.constant([["a", ""], ["bc", "d" * 300]]))
    v1.get_variable(
        "scope/part",
        (10, 300),
        partitioner=v1.fixed_size_partitioner(3, axis=1),
        initializer=v1.random_normal_initializer(),
    )
    step = v1.train.get_or_create_global_step()
    v1.train.AdamOptimizer().minimize(tf.reduce_sum(w * w), global_step=step)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("by", ["file", "folder", "pathlib"])
def test_what_a_saver_wrote_is_read(tmp_path: Path, by: str) -> None:
    path = save(str(tmp_path / "model.ckpt"), training)
    given = {"file": path, "folder": str(tmp_path), "pathlib": Path(path)}[by]
    loaded = checkpoint.load(given, verify=True)
    assert loaded.path == path
    assert list(loaded) == ["scope/part", "scope/w", "words"]
    assert sorted(loaded.slots) == ["scope/w/Adam", "scope/w/Adam_1"]
    assert sorted(loaded.counters) == ["beta1_power", "beta2_power", "global_step"]
    assert_like_tensorflow(loaded, path)


@pytest.mark.parametrize("by", ["pattern", "prefix", "file", "folder"])
def test_several_files_are_one_checkpoint(tmp_path: Path, by: str) -> None:
    def make() -> None:
        def place(operation: tf.Operation) -> str:
            return "/cpu:1" if operation.name.startswith(("w1", "part/part_1")) else "/cpu:0"

        with v1.device(place):
            for name in ("w0", "w1"):
                v1.get_variable(name, (3,), initializer=v1.random_normal_initializer())
            # Each file has one of its two slices.
            v1.get_variable(
                "part",
                (10, 3),
                partitioner=v1.fixed_size_partitioner(2),
                initializer=v1.random_normal_initializer(),
            )

    pattern = save(str(tmp_path / "model.ckpt"), make, sharded=True)
    assert pattern == str(tmp_path / "model.ckpt-?????-of-00002")
    given = {
        "pattern": pattern,
        "prefix": str(tmp_path / "model.ckpt"),
        "file": str(tmp_path / "model.ckpt-00001-of-00002"),
        "folder": str(tmp_path),
    }[by]
    loaded = checkpoint.load(given, verify=True)
    assert sorted(loaded) == ["part", "w0", "w1"]
    assert len({entry.file for entry in loaded.all_entries}) == 2
    assert_like_tensorflow(loaded, pattern)
    (tmp_path / "model.ckpt-00000-of-00002").unlink()
    with pytest.raises(
        CheckpointNotFoundError, match=r"00000-of-00002: no such file.*side by side"
    ):
        checkpoint.load(given)


def test_files_of_several_checkpoints_are_told_apart(tmp_path: Path) -> None:
    for name in ("m-00000-of-00001", "m-00000-of-00002", "m-00001-of-00002"):
        write(tmp_path / name, {name: tf.constant(1)})
    with pytest.raises(CheckpointError, match=r"00001, 00002 files.*m-\?{5}-of-00001"):
        checkpoint.load(tmp_path / "m")
    loaded = checkpoint.load(tmp_path / "m-?????-of-00002")
    assert list(loaded) == ["m-00000-of-00002", "m-00001-of-00002"]


def test_slices_along_two_axes_are_joined(tmp_path: Path) -> None:
    whole = tf.reshape(tf.range(24.0), (4, 6))
    places = [(r, c) for r in (0, 2) for c in (0, 3)]
    path = str(tmp_path / "grid")
    tf.raw_ops.SaveSlices(
        filename=path,
        tensor_names=["w"] * 4 + ["part"],
        shapes_and_slices=[f"4 6 {r},2:{c},3" for r, c in places] + ["4 1,2"],
        data=[whole[r : r + 2, c : c + 3] for r, c in places] + [tf.constant([1, 2])],
    )
    for seed in (None, 3):
        if seed is not None:
            pack(path, seed)
        loaded = checkpoint.load(path, verify=True)
        assert torch.equal(loaded["w"], torch.arange(24.0).reshape(4, 6))
        with pytest.raises(CheckpointError, match=r"entry 'part'.*slices that make up the shape"):
            loaded["part"]


def mapped_files() -> str:
    return Path("/proc/self/maps").read_text()


def test_aligned_values_are_views_of_the_file(tmp_path: Path) -> None:
    # The name's length moves the values, so one of four consecutive names has aligned values.
    path = write(tmp_path / "views", {"w" * i: tf.random.normal((50, 50)) for i in range(1, 9)})
    loaded = checkpoint.load(path)
    before = Path(path).read_bytes()
    views = 0
    for name in loaded:
        w = loaded[name]
        w.zero_()
        seen = loaded[name].eq(0).all().item()
        views += seen
        assert seen == (loaded.entries[name].extent().offset % 4 == 0)
    assert views == 2
    assert Path(path).read_bytes() == before
    assert_like_tensorflow(checkpoint.load(path), path)


def test_it_is_converted(tmp_path: Path) -> None:
    tensors = {"a": tf.random.normal((3, 4)), "b": tf.constant([1, -2], tf.int8)}
    path = write(tmp_path / "model", tensors)
    [target] = checkpoint.convert(path, tmp_path / "out.pt")
    found = torch.load(target)
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor_bridge.to_torch(tensor))


def draw(folder: Path, dice: random.Random) -> str:
    """A checkpoint of drawn tensors, some of them in slices."""
    names, specs, data = [], [], []
    for number in range(dice.randint(1, 12)):
        dtype = dice.choice([*DTYPES, "string"])
        shape = tuple(dice.choice([0, 1, 2, 3, 17]) for _ in range(dice.randint(0, 4)))
        whole = drawn(dtype, shape, dice.randint(0, 1000))
        name = "/".join(dice.choices(["a", "layer", "ü", "w" * 200], k=dice.randint(1, 3)))
        axis = next((i for i, size in enumerate(shape) if size > 1), None)
        if axis is None or dtype == "string" or dice.random() < 0.5:
            cuts = [(0, -1)]
        else:
            at = dice.randint(1, shape[axis] - 1)
            cuts = [(0, at), (at, shape[axis] - at)]
        for start, length in cuts:
            names.append(f"{name}{number}")
            extents = ["-"] * len(shape)
            if length >= 0:
                extents[axis] = f"{start},{length}"
            specs.append(" ".join([*map(str, shape), ":".join(extents)]) if length >= 0 else "")
            begin = [start if i == axis else 0 for i in range(len(shape))]
            size = [length if i == axis else -1 for i in range(len(shape))]
            data.append(tf.slice(whole, begin, size) if length >= 0 else whole)
    path = str(folder / f"{dice.getrandbits(40)}")
    tf.raw_ops.SaveSlices(filename=path, tensor_names=names, shapes_and_slices=specs, data=data)
    if dice.random() < 0.5:
        pack(path, dice.getrandbits(20))
    return path


@pytest.mark.parametrize("seed", range(8))
def test_drawn_checkpoints_are_read_as_tensorflow_reads_them(tmp_path: Path, seed: int) -> None:
    path = draw(tmp_path, random.Random(seed))
    assert_like_tensorflow(checkpoint.load(path, verify=True), path)


@pytest.mark.exhaustive
def test_thousands_of_drawn_checkpoints(tmp_path: Path) -> None:
    for seed in range(1000, 3000):
        path = draw(tmp_path, random.Random(seed))
        assert_like_tensorflow(checkpoint.load(path, verify=True), path)


def test_every_changed_byte_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "ck", {"w": tf.range(4.0), "s": tf.constant(["ab", "c"])})
    file = Path(path)
    good = file.read_bytes()
    unseen = []
    for at in range(len(good)):
        file.write_bytes(good[:at] + bytes([good[at] ^ 0x55]) + good[at + 1 :])
        try:
            checkpoint.load(path, verify=True)
        except CheckpointError:
            continue
        unseen.append(at)
    # The footer has no checksum. It has the handle of the empty metaindex block, and padding.
    assert all(at >= len(good) - 48 for at in unseen)


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "ck", {"w": tf.range(40.0)})
    good = Path(path).read_bytes()
    for size in range(len(good)):
        Path(path).write_bytes(good[:size])
        with pytest.raises(CheckpointError, match=re.escape(path)) as caught:
            checkpoint.load(path)
        assert caught.value.file == path


def test_random_damage_never_crashes(tmp_path: Path) -> None:
    path = draw(tmp_path, random.Random(5))
    good = Path(path).read_bytes()
    dice = random.Random(3)
    outcomes = {True: 0, False: 0}
    for _ in range(400):
        bad = bytearray(good)
        for _ in range(dice.randint(1, 3)):
            bad[dice.randrange(len(bad))] = dice.randrange(256)
        Path(path).write_bytes(bad)
        try:
            for entry in checkpoint.load(path).all_entries:
                entry.read(False)
            outcomes[True] += 1
        except (CheckpointError, tensor_bridge.UnsupportedDtypeError):
            outcomes[False] += 1
    assert min(outcomes.values()) > 10
