"""The files of one `save` belong together: a mix of two checkpoints is refused when it is opened.

TensorFlow reads the files like any others, and TensorFlow's own files are opened as before.
"""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path
from typing import Any

import bundles
import pytest
import tensorflow as tf
import torch

import tensor_bridge
from tensor_bridge import StringTensor, checkpoint


def data_of(prefix: str) -> Path:
    return Path(prefix + ".data-00000-of-00001")


def index_of(prefix: str) -> Path:
    return Path(prefix + ".index")


def by_tensorflow(prefix: Path, **tensors: Any) -> str:
    return bundles.save(prefix, tensors)


def mixed(folder: Path, index: str, data: str) -> str:
    """The index of one checkpoint beside the data of another."""
    prefix = str(folder / "mixed")
    shutil.copy(index_of(index), index_of(prefix))
    shutil.copy(data_of(data), data_of(prefix))
    return prefix


def assert_told(prefix: str) -> None:
    with pytest.raises(tensor_bridge.CheckpointError, match="of the same save") as caught:
        checkpoint.load(prefix)
    assert str(index_of(prefix)) in str(caught.value)
    assert str(data_of(prefix)) in str(caught.value)
    assert caught.value.file == str(index_of(prefix))


@pytest.mark.parametrize("object_based", [True, False])
def test_a_mix_of_two_saves_is_told(tmp_path: Path, object_based: bool) -> None:
    states: list[dict[str, Any]] = [
        {"w": torch.ones(3)},
        {"w": torch.tensor([1.0, 1.0, 1.5])},
        {"v": torch.ones(3)},
        {"w": torch.ones(3), "v": torch.ones(3)},
        {"w": torch.ones(1, 3)},
        {"w": torch.ones(3).view(torch.int32)},
        {"w": StringTensor.from_list(["a"])},
        {"w": torch.ones(0)},
        {},
    ]
    prefixes = [
        checkpoint.save(state, tmp_path / f"ck{i}", object_based=object_based)
        for i, state in enumerate(states)
    ]
    for one, other in itertools.permutations(prefixes, 2):
        assert_told(mixed(tmp_path, one, other))
    for prefix in prefixes:
        checkpoint.load(mixed(tmp_path, prefix, prefix), verify=True)


def test_saves_of_the_same_tensors_are_the_same_files(tmp_path: Path) -> None:
    one, other = (checkpoint.save({"w": torch.ones(3)}, tmp_path / n) for n in ("a", "b"))
    assert index_of(one).read_bytes() == index_of(other).read_bytes()
    assert data_of(one).read_bytes() == data_of(other).read_bytes()


def test_no_tensor_is_read_to_tell_a_mix(tmp_path: Path) -> None:
    one, other = (
        checkpoint.save({"w": torch.full((9,), v)}, tmp_path / f"{v}") for v in (1.0, 2.0)
    )
    prefix = mixed(tmp_path, one, other)
    os.truncate(data_of(prefix), 64)
    assert_told(prefix)
    os.truncate(data_of(one), 64)
    with pytest.raises(tensor_bridge.CheckpointError, match="truncated"):
        dict(checkpoint.load(one))


def test_a_mix_with_files_of_tensorflow_is_told(tmp_path: Path) -> None:
    theirs = by_tensorflow(tmp_path / "theirs", w=[1.0, 2.0])
    ours = checkpoint.save({"w": torch.ones(2)}, tmp_path / "ours", object_based=False)
    assert_told(mixed(tmp_path, ours, theirs))
    assert_told(mixed(tmp_path, theirs, ours))


def test_the_index_that_was_there_does_not_fit_the_data_that_came(tmp_path: Path) -> None:
    """Like after a kill between the two files, with the same names, shapes and places."""
    prefix = checkpoint.save({"w": torch.ones(2)}, tmp_path / "ck")
    index = index_of(prefix).read_bytes()
    checkpoint.save({"w": torch.zeros(2)}, tmp_path / "ck", overwrite=True)
    index_of(prefix).write_bytes(index)
    assert_told(prefix)


def test_the_digest_in_the_index_has_a_checksum(tmp_path: Path) -> None:
    prefix = checkpoint.save({"w": torch.ones(2)}, tmp_path / "ck")
    data = bytearray(data_of(prefix).read_bytes())
    index = bytearray(index_of(prefix).read_bytes())
    digest = bytes(data[32:64])
    assert index.count(digest) == 1
    index[index.index(digest)] ^= 1
    data[32] ^= 1
    index_of(prefix).write_bytes(index)
    data_of(prefix).write_bytes(data)
    loaded = checkpoint.load(prefix)
    with pytest.raises(tensor_bridge.CheckpointError, match="CRC-32C"):
        loaded.verify()


def test_a_missing_data_file_is_told_when_it_is_needed(tmp_path: Path) -> None:
    prefix = checkpoint.save({"w": torch.ones(2)}, tmp_path / "ck", object_based=False)
    data_of(prefix).unlink()
    loaded = checkpoint.load(prefix)
    with pytest.raises(tensor_bridge.CheckpointNotFoundError, match="side by side"):
        loaded["w"]


# --- TensorFlow -----------------------------------------------------------------------------------


def test_tensorflow_sees_the_tensors_and_nothing_else(tmp_path: Path) -> None:
    prefix = checkpoint.save(
        {"w": torch.ones(2, 3), "s": StringTensor.from_list(["a", "bc"])},
        tmp_path / "ck",
        object_based=False,
    )
    assert tf.train.list_variables(prefix) == [("s", [2]), ("w", [2, 3])]
    reader = tf.train.load_checkpoint(prefix)
    assert reader.get_tensor("w").tolist() == [[1.0] * 3] * 2
    assert reader.get_tensor("s").tolist() == [b"a", b"bc"]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        w = tf.compat.v1.get_variable("w", (2, 3))
        tf.compat.v1.train.Saver([w]).restore(session, prefix)
        assert session.run(w).tolist() == [[1.0] * 3] * 2


def test_what_tensorflow_merges_is_opened(tmp_path: Path) -> None:
    ours = [
        checkpoint.save({n: torch.full((3,), v)}, tmp_path / n, object_based=False)
        for n, v in (("a", 1.0), ("b", 2.0))
    ]
    theirs = by_tensorflow(tmp_path / "c", c=[3.0, 3.0, 3.0])
    prefix = str(tmp_path / "merged")
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[*ours, theirs], destination_prefix=prefix, delete_old_dirs=False
    )
    assert Path(f"{prefix}.data-00000-of-00003").is_file()
    loaded = checkpoint.load(prefix, verify=True)
    assert {n: x.tolist() for n, x in loaded.items()} == {
        "a": [1.0] * 3,
        "b": [2.0] * 3,
        "c": [3.0] * 3,
    }
    # Another of our data files under the same name is refused when it is opened.
    other = checkpoint.save({"a": torch.full((3,), 9.0)}, tmp_path / "z", object_based=False)
    shutil.copy(data_of(other), f"{prefix}.data-00000-of-00003")
    with pytest.raises(tensor_bridge.CheckpointError, match="of the same save"):
        dict(checkpoint.load(prefix))


def test_one_of_ours_that_tensorflow_merged_alone_is_opened(tmp_path: Path) -> None:
    ours = checkpoint.save({"a": torch.ones(3)}, tmp_path / "a", object_based=False)
    prefix = str(tmp_path / "merged")
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=[ours], destination_prefix=prefix)
    assert checkpoint.load(prefix)["a"].tolist() == [1.0] * 3


def test_a_tensor_of_tensorflow_may_hold_a_file_of_ours(tmp_path: Path) -> None:
    """TensorFlow's data file then begins like ours."""
    ours = checkpoint.save({"a": torch.ones(3)}, tmp_path / "a", object_based=False)
    content = list(data_of(ours).read_bytes())
    theirs = by_tensorflow(
        tmp_path / "b", a=tf.constant(content, tf.uint8), b=tf.constant([1.0, 2.0])
    )
    assert data_of(theirs).read_bytes().startswith(bytes(content))
    assert checkpoint.load(theirs)["a"].tolist() == content
