"""Damaged, truncated and hostile checkpoints: a typed error that names the place."""

from __future__ import annotations

import gc
import random
import re
from pathlib import Path
from typing import Any

import bundles
import pytest
import tensorflow as tf

import tensor_bridge
from tensor_bridge import CheckpointError, CheckpointNotFoundError, checkpoint


@pytest.fixture
def saved(tmp_path: Path) -> str:
    return bundles.save(tmp_path / "ck", {"b": [1, 2], "s": ["abc", "", "d"], "w": tf.range(16.0)})


def data_of(prefix: str) -> Path:
    return Path(prefix + ".data-00000-of-00001")


def assert_error(error: CheckpointError, file: str, entry: str, offset: int | None) -> None:
    assert error.file == file
    assert error.entry == entry
    if offset is not None:
        assert error.offset == offset
    assert file in str(error)
    assert entry in str(error)
    if error.offset >= 0:
        assert f"byte {error.offset}" in str(error)


def test_a_changed_byte_of_data_is_found_by_verify(saved: str) -> None:
    entry = checkpoint.load(saved).entries["w"]
    data = bytearray(data_of(saved).read_bytes())
    data[entry.offset + 7] ^= 1
    data_of(saved).write_bytes(data)
    checkpoint.load(saved)
    with pytest.raises(CheckpointError, match="CRC-32C") as caught:
        checkpoint.load(saved, verify=True)
    assert_error(caught.value, str(data_of(saved)), "w", entry.offset)
    found = list(checkpoint.load(saved).problems())
    assert [type(e) for e in found] == [CheckpointError]


@pytest.mark.parametrize("at", [0, 1, 3, 7, 8])
def test_a_changed_byte_of_strings_is_found(saved: str, at: int) -> None:
    entry = checkpoint.load(saved).entries["s"]
    data = bytearray(data_of(saved).read_bytes())
    data[entry.offset + at] ^= 1
    data_of(saved).write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(saved, verify=True)
    assert_error(caught.value, str(data_of(saved)), "s", None)


def test_every_changed_byte_of_the_index_is_found(saved: str) -> None:
    index = Path(saved + ".index")
    good = index.read_bytes()
    unseen, files = [], set()
    for at in range(len(good)):
        index.write_bytes(good[:at] + bytes([good[at] ^ 0x55]) + good[at + 1 :])
        try:
            checkpoint.load(saved, verify=True)
        except CheckpointError as e:
            files.add(e.file)
        else:
            unseen.append(at)
    assert files <= {str(index), str(data_of(saved))}
    # The footer has no checksum. It has the handle of the empty metaindex block, and padding.
    assert all(at >= len(good) - 48 for at in unseen)


@pytest.mark.parametrize("keep", [0, 1, 7, 30, 63])
def test_truncated_data_is_refused_where_it_is_used(saved: str, keep: int) -> None:
    entry = checkpoint.load(saved).entries["w"]
    data_of(saved).write_bytes(data_of(saved).read_bytes()[: entry.offset + keep])
    with pytest.raises(CheckpointError, match="truncated") as caught:
        checkpoint.load(saved)["w"]
    assert_error(caught.value, str(data_of(saved)), "w", entry.offset)


def test_truncated_indices_are_refused(saved: str) -> None:
    index = Path(saved + ".index")
    good = index.read_bytes()
    for size in range(len(good)):
        index.write_bytes(good[:size])
        with pytest.raises(CheckpointError) as caught:
            checkpoint.load(saved)
        assert caught.value.file == str(index)


def test_random_damage_never_crashes(saved: str) -> None:
    index = Path(saved + ".index")
    good = index.read_bytes()
    rng = random.Random(3)
    outcomes = {True: 0, False: 0}
    for _ in range(2000):
        bad = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        index.write_bytes(bad)
        try:
            loaded = checkpoint.load(saved)
            for entry in loaded.all_entries:
                entry.read(False)
            outcomes[True] += 1
        except (CheckpointError, CheckpointNotFoundError, tensor_bridge.UnsupportedDtypeError):
            outcomes[False] += 1
    assert outcomes[False] > 1000


def test_missing_files(saved: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="nothing-here"):
        checkpoint.load(tmp_path / "nothing-here")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointNotFoundError, match="got none of them"):
        checkpoint.load(tmp_path / "empty")
    data_of(saved).unlink()
    loaded = checkpoint.load(saved)
    with pytest.raises(CheckpointNotFoundError, match=re.escape(str(data_of(saved)))):
        loaded["w"]
    with pytest.raises(CheckpointNotFoundError):
        loaded.verify()


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"not a checkpoint at all")
    with pytest.raises(tensor_bridge.UnsupportedFileError, match="begins with b'not a ch'"):
        checkpoint.load(path)
    # An index under another name.
    path.write_bytes(bundles.index_bytes([(b"", bundles.header())]))
    with pytest.raises(CheckpointError, match=r"a description of the tensors.*ends in \.index"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"version": {"min_consumer": 2}}, "readers of version 1, got one for 2"),
        ({"endianness": 1}, "little-endian machine"),
    ],
)
def test_checkpoints_that_others_can_read_are_not_damaged(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    path = tmp_path / "made.index"
    path.write_bytes(bundles.index_bytes([(b"", bundles.header(**fields))]))
    with pytest.raises(tensor_bridge.UnsupportedFileError, match=message) as caught:
        checkpoint.load(tmp_path / "made")
    assert_error(caught.value, str(path), "", None)


F32, STRING = 1, 7


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dtype": F32, "shape": (1 << 40,), "size": 4 << 40}, "truncated"),
        ({"dtype": F32, "shape": (2,), "size": 8, "offset": 1 << 60}, "truncated"),
        ({"dtype": STRING, "shape": (1 << 40,), "size": 8}, "hold 1099511627776 strings"),
        ({"dtype": STRING, "shape": (2,), "size": 8}, "expected"),
    ],
)
def test_claims_beyond_the_file_allocate_nothing(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    prefix = bundles.write(tmp_path, {"w": bundles.entry(**fields)}, b"\x05\x04" * 8)
    loaded = checkpoint.load(prefix)
    with pytest.raises(CheckpointError, match=message) as caught:
        loaded["w"]
    assert_error(caught.value, prefix + ".data-00000-of-00001", "w", None)
    del loaded, caught
    gc.collect()
    assert "made.data" not in Path("/proc/self/maps").read_text()


def sliced(shape: tuple[int, ...], *slices: tuple[tuple[int, int], ...]) -> bytes:
    from tensorflow.core.protobuf import tensor_bundle_pb2

    proto = tensor_bundle_pb2.BundleEntryProto.FromString(bundles.entry(dtype=F32, shape=shape))
    for place in slices:
        extents = proto.slices.add()
        for start, length in place:
            extents.extent.add(start=start, length=length)
    return proto.SerializeToString()


def test_slices_must_exist_and_make_up_the_whole(tmp_path: Path) -> None:
    from tensor_bridge.checkpoint.read._names import slice_key

    def part(start: int, length: int) -> tuple[str, bytes]:
        key = slice_key(b"w", (start, length)).decode("latin-1")
        # Entries must not share bytes, so each has its own place.
        offset = 16 * start
        return key, bundles.entry(dtype=F32, shape=(length,), offset=offset, size=4 * length)

    def load(whole: bytes, *parts: tuple[str, bytes]) -> Any:
        records = [(b"", bundles.header()), (b"w", whole)]
        records += [(key.encode("latin-1"), value) for key, value in parts]
        prefix = tmp_path / "made"
        prefix.with_suffix(".index").write_bytes(bundles.index_bytes(sorted(records)))
        (tmp_path / "made.data-00000-of-00001").write_bytes(b"\0" * 64)
        return checkpoint.load(prefix)["w"]

    assert load(sliced((4,), ((0, 2),), ((2, 2),)), part(0, 2), part(2, 2)).tolist() == [0] * 4
    with pytest.raises(CheckpointError, match="there is none") as caught:
        load(sliced((4,), ((0, 2),), ((2, 2),)), part(0, 2))
    assert caught.value.entry == "w"
    with pytest.raises(CheckpointError, match="do not overlap"):
        load(sliced((4,), ((0, 2),), ((1, 2),)), part(0, 2), part(1, 2))
    with pytest.raises(CheckpointError, match="make up the shape"):
        load(sliced((1 << 40,), ((0, 2),)), part(0, 2))


def test_bools_of_other_bytes_than_0_and_1_become_bools(tmp_path: Path) -> None:
    entry = bundles.entry(dtype=10, shape=(4,), size=4)
    prefix = bundles.write(tmp_path, {"b": entry}, b"\x00\x01\x02\xff")
    x = checkpoint.load(prefix)["b"]
    assert x.tolist() == [False, True, True, True]
    assert x.view(dtype=__import__("torch").uint8).tolist() == [0, 1, 1, 1]


def test_unknown_dtypes_leave_the_rest_readable(tmp_path: Path) -> None:
    entries = {
        "new": bundles.entry(dtype=99, shape=(2,), size=8),
        "old": bundles.entry(dtype=F32, shape=(1,), offset=8, size=4),
    }
    loaded = checkpoint.load(bundles.write(tmp_path, entries, b"\0" * 12))
    assert loaded["old"].tolist() == [0]
    with pytest.raises(tensor_bridge.UnsupportedDtypeError, match=r"entry 'new'.*number 99"):
        loaded["new"]


def test_a_damaged_object_graph_is_an_error_where_it_is_used(tmp_path: Path) -> None:
    from tensor_bridge.checkpoint.read._names import GRAPH_KEY

    text = b"\x0a\xff\xff"
    data = bytes([len(text)]) + b"crc!" + text
    entry = bundles.entry(dtype=STRING, size=len(data))
    loaded = checkpoint.load(bundles.write(tmp_path, {GRAPH_KEY: entry}, data))
    with pytest.raises(CheckpointError, match="object graph") as caught:
        loaded.variable_names  # noqa: B018
    assert caught.value.entry == GRAPH_KEY
