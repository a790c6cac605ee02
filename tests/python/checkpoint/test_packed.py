"""Index files with blocks packed by Snappy: published files, and TensorFlow's packed again."""

from __future__ import annotations

import random
from pathlib import Path

import bundles
import pytest
import tables
import tensorflow as tf
from like_tensorflow import assert_like_tensorflow
from tree import ROOT

from tensor_bridge import CheckpointError, checkpoint

DATA = ROOT / "tests/data/checkpoints"
REAL = {
    "sonnet_lstm_1": ["module/_w_h", "module/_w_i", "module/b"],
    "sonnet_conv2d_3x3_2x2": ["module/b", "module/w"],
    "serving_half_plus_two": ["a", "b", "c"],
}


@pytest.mark.parametrize("folder", REAL)
def test_real_checkpoints_are_read_as_tensorflow_reads_them(folder: str) -> None:
    loaded = checkpoint.load(DATA / folder, verify=True)
    assert list(loaded) == REAL[folder]
    prefix = loaded.entries[REAL[folder][0]].file.removesuffix(".data-00000-of-00001")
    assert_like_tensorflow(loaded, prefix)


def test_a_real_one_that_was_cut_off_gives_what_it_has() -> None:
    loaded = checkpoint.load(DATA / "sonnet_mlp_3x4x5_1x3")
    reader = tf.train.load_checkpoint(str(DATA / "sonnet_mlp_3x4x5_1x3"))
    assert len(loaded) == 6
    for name, entry in loaded.entries.items():
        assert loaded[name].tolist() == reader.get_tensor(entry.key).tolist()
    with pytest.raises(CheckpointError, match=r"697 bytes.*file ends at 512.*truncated"):
        loaded.verify()
    with pytest.raises(IndexError, match="Read less bytes"):
        reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH")


def save(folder: Path, dice: random.Random) -> str:
    """A TensorFlow checkpoint with drawn names, whose index is packed again."""
    prefix = str(folder / f"{dice.getrandbits(40)}")
    parts = ["model", "encoder", "layer_0", "layer_1", "kernel", "bias", "x" * 300, "Adam", "ü"]
    count = dice.choice([1, 3, 30, 200])
    names = {
        "/".join(dice.choices(parts, k=dice.randint(1, 6))) + str(i % 40) for i in range(count)
    }
    tensors = [
        tf.fill([dice.randint(0, 3)] * dice.randint(0, 4), float(i)) for i in range(len(names))
    ]
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=[*names, "words", "sliced"],
        shape_and_slices=[""] * (len(names) + 1) + ["4 6 2,2:0,3"],
        tensors=[*tensors, tf.constant(["", "abc"]), tf.zeros((2, 3))],
    )
    index = Path(prefix + ".index")
    index.write_bytes(tables.pack(tables.records_of(index.read_bytes()), dice))
    return prefix


def read_as_tensorflow_reads(prefix: str) -> None:
    loaded = checkpoint.load(prefix, verify=True)
    entries = {entry.key: entry for entry in loaded.all_entries}
    reader = tf.train.load_checkpoint(prefix)
    assert set(entries) == set(reader.get_variable_to_shape_map())
    for key, entry in entries.items():
        if key == "sliced":  # only a part of it
            continue
        found = entry.read(False)
        assert found.tolist() == reader.get_tensor(key).tolist()
        assert list(entry.shape) == reader.get_variable_to_shape_map()[key]


@pytest.mark.parametrize("seed", range(12))
def test_packed_anew_they_are_read_as_tensorflow_reads_them(tmp_path: Path, seed: int) -> None:
    read_as_tensorflow_reads(save(tmp_path, random.Random(seed)))


@pytest.mark.exhaustive
def test_thousands_packed_anew(tmp_path: Path) -> None:
    for seed in range(1000, 3000):
        read_as_tensorflow_reads(save(tmp_path, random.Random(seed)))


def elements_of(packed: bytes) -> set[tuple[str, int]]:
    """The kinds of elements, with the number of bytes of their lengths or offsets."""
    found = set()
    at = next(i for i, byte in enumerate(packed) if byte < 0x80) + 1
    while at < len(packed):
        kind, upper = packed[at] & 3, packed[at] >> 2
        size = max(0, upper - 59) if kind == 0 else (1, 2, 4)[kind - 1]
        number = int.from_bytes(packed[at + 1 : at + 1 + size], "little")
        found.add(("copy" if kind else "literal", size))
        at += 1 + size + (0 if kind else (number if size else upper) + 1)
    return found


def test_the_encoder_draws_every_element() -> None:
    found = set()
    for seed in range(5):
        dice = random.Random(seed)
        found |= elements_of(tables.snappy(dice.randbytes(3000) + b"ab" * 3000, dice))
    assert found == {
        *(("literal", size) for size in range(5)),
        *(("copy", size) for size in (1, 2, 4)),
    }


def test_a_changed_byte_of_a_packed_block_is_found(tmp_path: Path) -> None:
    dice = random.Random(7)
    prefix = save(tmp_path, dice)
    index = Path(prefix + ".index")
    good = index.read_bytes()
    unseen, files = [], set()
    for at in range(0, len(good), max(1, len(good) // 400)):
        index.write_bytes(good[:at] + bytes([good[at] ^ 0x55]) + good[at + 1 :])
        try:
            checkpoint.load(prefix, verify=True)
        except CheckpointError as e:
            files.add(e.file)
        else:
            unseen.append(at)
    assert files <= {str(index), prefix + ".data-00000-of-00001"}
    assert all(at >= len(good) - 48 for at in unseen)


def test_lengths_that_snappy_cannot_have_are_refused(tmp_path: Path) -> None:
    index = tmp_path / "made.index"
    records = [(b"", bundles.header()), (b"w", bundles.entry(dtype=1, size=4))]
    good = tables.pack(records, random.Random(1), packed=1.0)
    index.write_bytes(b"\xff\xff\xff\xff\x07" + good[5:])
    with pytest.raises(CheckpointError, match="packed by Snappy, got a length") as caught:
        checkpoint.load(tmp_path / "made")
    assert (caught.value.file, caught.value.offset) == (str(index), 0)
