"""Folders with a file ``checkpoint``, compared with tf.train.latest_checkpoint; moved folders."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import bundles
import pytest
import tensorflow as tf

from tensor_bridge import CheckpointNotFoundError, checkpoint

# Names that protobuf's text format escapes, and names that it does not escape.
NAMES = ["model", "model.ckpt", "ü", "a b", "it's", 'say "x"', "back\\slash", "#1", "日本", "n\tt"]


def save_v2(prefix: str, value: float) -> None:
    bundles.save(prefix, {"w": value})


def save_v1(path: str, value: float) -> None:
    tf.raw_ops.SaveSlices(
        filename=path, tensor_names=["w"], shapes_and_slices=[""], data=[tf.constant(value)]
    )


def state(folder: Path, path: str, *older: str) -> None:
    """Writes the file like TensorFlow."""
    tf.compat.v1.train.update_checkpoint_state(
        str(folder), path, all_model_checkpoint_paths=[*older, path]
    )


def draw(folder: Path, dice: random.Random) -> None:
    """A folder with checkpoints of either format, one of them the latest."""
    folder.mkdir()
    names = dice.sample(NAMES, 3)
    paths = []
    for number, name in enumerate(names):
        inner = folder / dice.choice(["", "", "sub", "ö x"])
        inner.mkdir(exist_ok=True)
        path = str(inner / f"{name}-{number}")
        dice.choice([save_v1, save_v2])(path, float(number))
        paths.append(path if dice.random() < 0.5 else os.path.relpath(path, folder))
    state(folder, paths[-1], *paths[:-1])


def assert_latest(folder: Path, value: float = 2.0) -> None:
    loaded = checkpoint.load(folder)
    assert loaded["w"].item() == value
    latest = tf.train.latest_checkpoint(folder)
    # TensorFlow expands the path as a pattern, in which a backslash escapes the next character.
    assert (latest is None) == ("\\" in loaded.path)
    if latest is not None:
        assert os.path.realpath(loaded.path) == os.path.realpath(latest)


@pytest.mark.parametrize("seed", range(20))
def test_the_latest_is_tensorflows(tmp_path: Path, seed: int) -> None:
    folder = tmp_path / "run"
    draw(folder, random.Random(seed))
    assert_latest(folder)


@pytest.mark.exhaustive
def test_the_latest_is_tensorflows_a_thousand_times(tmp_path: Path) -> None:
    for seed in range(1000, 2000):
        folder = tmp_path / str(seed)
        draw(folder, random.Random(seed))
        assert_latest(folder)


@pytest.mark.parametrize("seed", range(10))
def test_a_moved_folder_is_read_all_the_same(tmp_path: Path, seed: int) -> None:
    draw(tmp_path / "run", random.Random(seed))
    shutil.move(tmp_path / "run", tmp_path / "moved")
    assert checkpoint.load(tmp_path / "moved")["w"].item() == 2
    # A path from Windows, where names have no backslash.
    file = tmp_path / "moved/checkpoint"
    text = file.read_text()
    if 2 * "\\" in text:
        return
    file.write_text(text.replace(f"{tmp_path}/run/", r"C:\\models\\run\\"))
    assert checkpoint.load(tmp_path / "moved")["w"].item() == 2


@pytest.mark.parametrize(
    "path",
    ["C:\\models\\run\\step-1", "\\\\server\\run\\step-1", "sub\\step-1", "/old/run/sub/step-1"],
)
def test_paths_of_other_machines(tmp_path: Path, path: str) -> None:
    inner = tmp_path / "sub" if "sub" in path else tmp_path
    inner.mkdir(exist_ok=True)
    save_v2(str(inner / "step-1"), 1.0)
    if inner != tmp_path:  # of two candidates, the one that matches more of the path
        save_v2(str(tmp_path / "step-1"), 2.0)
    state(tmp_path, path)
    loaded = checkpoint.load(tmp_path)
    assert loaded["w"].item() == 1
    assert loaded.path == str(inner / "step-1")


@pytest.mark.parametrize("where", ["/old/run/", "C:\\\\run\\\\"])
def test_a_name_may_be_empty(tmp_path: Path, where: str) -> None:
    save_v2(f"{tmp_path}/", 1.0)  # like Saver.save(session, "folder/")
    assert (tmp_path / ".index").is_file()
    state(tmp_path, where)
    assert checkpoint.load(tmp_path)["w"].item() == 1


def test_what_the_file_names_comes_first(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    save_v2(str(tmp_path / "elsewhere/step"), 1.0)
    folder = tmp_path / "run"
    folder.mkdir()
    save_v2(str(folder / "step"), 2.0)
    state(folder, str(tmp_path / "elsewhere/step"))
    assert_latest(folder, 1.0)


def test_no_other_is_taken_for_a_missing_one(tmp_path: Path) -> None:
    save_v2(str(tmp_path / "step-1"), 1.0)
    state(tmp_path, "/old/run/step-2")
    assert tf.train.latest_checkpoint(tmp_path) is None
    with pytest.raises(CheckpointNotFoundError, match=r"names, /old/run/step-2, got neither"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        'model_checkpoint_path: "a-1"',
        "model_checkpoint_path: 'a-1'",
        'all_model_checkpoint_paths: "b"\nmodel_checkpoint_path : "a-1"\n',
        '# model_checkpoint_path: "b"\nmodel_checkpoint_path:"a"\n  "-1"',
        'model_checkpoint_path: "\\x61\\055\\61" last_preserved_timestamp: 1.5',
        'all_model_checkpoint_paths: "model_checkpoint_path: \\"b\\"" model_checkpoint_path: "a-1"',
    ],
)
def test_texts_of_the_file(tmp_path: Path, text: str) -> None:
    save_v2(str(tmp_path / "a-1"), 1.0)
    save_v2(str(tmp_path / "b"), 2.0)
    (tmp_path / "checkpoint").write_text(text)
    assert_latest(tmp_path, 1.0)


@pytest.mark.parametrize("text", ["", "what?", "model_checkpoint_path: 5", '"a-1"', "\0\xff"])
def test_texts_that_name_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "checkpoint").write_text(text, "latin-1")
    for name in ("a-1", "b"):
        save_v2(str(tmp_path / name), 1.0)
    with pytest.raises(CheckpointNotFoundError, match="several checkpoints: a-1, b"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("how", ["write", "save"])
def test_prefixes_that_end_in_a_slash(tmp_path: Path, how: str) -> None:
    folder = f"{tmp_path}/run/"
    written = tf.train.Checkpoint(w=tf.Variable(3.0))
    prefix = written.write(folder) if how == "write" else written.save(folder)
    assert Path(prefix + ".index").name == (".index" if how == "write" else "-1.index")
    for path in (prefix, prefix + ".index", prefix + ".data-00000-of-00001", folder, folder[:-1]):
        assert checkpoint.load(path)["w"].item() == 3
    assert checkpoint.load(Path(folder))["w"].item() == 3
