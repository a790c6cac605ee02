"""Other files than checkpoints, and unwritable targets: the error names them and the remedy."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import pytest
import tensorflow as tf
import torch
from fresh import run_python
from safetensors.torch import save_file

import tensor_bridge
from tensor_bridge import InvalidOptionError, checkpoint

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


def tar(path: Path) -> None:
    inside = path.with_name("inside")
    inside.write_bytes(b"x")
    with tarfile.open(path, "w") as archive:
        archive.add(inside)


def zipped(path: Path, **members: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name.replace("_", "."), text)


def graph_text(path: Path) -> None:
    with tf.Graph().as_default() as graph:
        tf.constant(1.0)
    path.write_text(str(graph.as_graph_def()))  # write_graph(as_text=True) needs protobuf below 7


FILES: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "git-LFS": ("m.h5", lambda p: p.write_text(LFS), "pointer of git-LFS.*git lfs pull"),
    "empty": ("m.keras", lambda p: p.write_bytes(b""), "an empty file"),
    "zeros": ("m.h5", lambda p: p.write_bytes(bytes(4096)), "begins with zeros only"),
    "npy": ("m.npy", lambda p: np.save(p, np.ones(3)), r"array of NumPy.*numpy\.load"),
    "npz": ("m.npz", lambda p: np.savez(p, a=np.ones(3)), r"arrays of NumPy \(\.npz\)"),
    "torch": ("m.pt", lambda p: torch.save({"w": torch.ones(2)}, p), r"torch\.save.*torch\.load"),
    "old torch": (
        "m.pth",
        lambda p: torch.save({"w": torch.ones(2)}, p, _use_new_zipfile_serialization=False),
        r"a pickle.*torch\.load",
    ),
    "pickle": ("m.pkl", lambda p: p.write_bytes(pickle.dumps({"w": [1.0]})), "a pickle"),
    "safetensors": (
        "m.safetensors",
        lambda p: save_file({"w": torch.ones(2)}, p),
        r"safetensors\.torch\.load_file",
    ),
    "gzip": ("m.tgz", lambda p: p.write_bytes(gzip.compress(b"x")), "gzip.*unpack it first"),
    "bzip2": ("m.bz2", lambda p: p.write_bytes(bz2.compress(b"x")), "bzip2.*unpack it first"),
    "xz": ("m.xz", lambda p: p.write_bytes(lzma.compress(b"x")), "xz.*unpack it first"),
    "tar": ("m.tar", tar, "archive of tar.*tar -xf"),
    "zip": ("m.zip", lambda p: zipped(p, notes_txt="x"), r"a zip file with notes\.txt"),
    "empty zip": ("m.zip", lambda p: zipped(p), "an empty zip file"),
    "keras without weights": ("m.keras", lambda p: zipped(p, config_json="{}"), "archive of Keras"),
    "web": ("m.h5", lambda p: p.write_text("<!DOCTYPE html><html>"), "page of the web"),
    "JSON": ("m.json", lambda p: p.write_text('{"class_name": "Model"}'), "without its weights"),
    "pbtxt": ("m.pbtxt", graph_text, r"got one as text \(\.pbtxt\)"),
    "GGUF": ("m.gguf", lambda p: p.write_bytes(b"GGUF\3\0\0\0"), "a GGUF file"),
    "ONNX": ("m.onnx", lambda p: p.write_bytes(b"\x08\x08\x12\x07pytorch\x1a"), "ONNX.*onnx2torch"),
    "list": (
        "checkpoint",
        lambda p: p.write_text('model_checkpoint_path: "ck-1"'),
        "pass the folder",
    ),
    "data": (
        "ck.data-00000-of-00001",
        lambda p: p.write_bytes(b"\1" * 64),
        r"without its index: put .*/ck\.index beside it",
    ),
    "unknown": ("m.bin", lambda p: p.write_bytes(b"12345678901"), "begins with b'12345678'"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_format_is_named(tmp_path: Path, name: str) -> None:
    called, write, text = FILES[name]
    path = tmp_path / called
    write(path)
    with pytest.raises(tensor_bridge.UnsupportedFileError, match=f"(?s){text}") as caught:
        checkpoint.load(path)
    assert str(caught.value).startswith(f"{path}: expected ")
    assert caught.value.file == str(path)
    # The contents decide, not the name.
    other = path.rename(tmp_path / "renamed")
    if name != "data":
        with pytest.raises(tensor_bridge.UnsupportedFileError, match=f"(?s){text}"):
            checkpoint.load(other)


@pytest.mark.parametrize(
    "path",
    ["gs://bucket/m", "s3://b/m.keras", "https://x.org/m.h5", "hdfs://n/m", "file:///m", "gs:/b/m"],
)
def test_only_local_files_are_read_and_written(path: str) -> None:
    for call in (
        lambda: checkpoint.load(path),
        lambda: checkpoint.save({"w": torch.ones(1)}, path),
        lambda: checkpoint.load_into(torch.nn.Linear(1, 1), path),
    ):
        with pytest.raises(tensor_bridge.InvalidOptionError, match=r"only local files") as caught:
            call()
        assert str(caught.value).startswith(path)


def test_a_folder_with_a_colon_is_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run:").mkdir()
    monkeypatch.chdir(tmp_path)
    checkpoint.save({"w": torch.ones(1)}, "run:/ck")
    assert list(checkpoint.load("run:/ck")) == ["w"]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "a NoneType"),
        (123, "an int"),
        (b"path", "a bytes"),
        (["path"], "a list"),
        (torch.nn.Linear(1, 1), "a torch.nn.modules.linear.Linear"),
        ({}, "a dict"),
    ],
)
def test_what_is_no_path_is_told(value: Any, kind: str) -> None:
    text = f"expected a path, got {kind}; load_into"
    with pytest.raises(tensor_bridge.UnsupportedTypeError, match=text):
        checkpoint.load(value)


@pytest.mark.parametrize("value", ["", "a\0b"])
def test_what_can_be_no_path_is_told(value: str) -> None:
    with pytest.raises(tensor_bridge.InvalidOptionError, match="expected a path"):
        checkpoint.load(value)


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (torch.nn.Linear(1, 1), r"got a torch.nn.modules.linear.Linear; its state_dict\(\) is one"),
        (None, "got a NoneType$"),
        ([torch.ones(1)], "got a list$"),
        (torch.ones(1), "got a torch.Tensor$"),
        ({1: torch.ones(1)}, "expected names to be texts, got 1"),
    ],
)
def test_what_is_no_mapping_cannot_be_saved(tmp_path: Path, state: Any, text: str) -> None:
    with pytest.raises(tensor_bridge.UnsupportedTypeError, match=text):
        checkpoint.save(state, tmp_path / "ck")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["q.keras", "q.weights.h5", "q.safetensors", "q.PT", "q.pb", "q.npz", "q.index"]
)
def test_a_prefix_that_ends_as_another_format_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(tensor_bridge.InvalidOptionError, match="expected a prefix"):
        checkpoint.save({"w": torch.ones(1)}, tmp_path / name)
    assert not list(tmp_path.iterdir())
    # A name like those of TensorFlow's checkpoints.
    checkpoint.save({"w": torch.ones(1)}, tmp_path / "model.ckpt-100")


# --- writing --------------------------------------------------------------------------------------


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    state = {"w": torch.ones(1 << 18), "b": torch.ones(4, dtype=torch.bool)}
    return checkpoint.save(state, tmp_path / "weights", object_based=False)


def writers(prefix: str, folder: Path) -> dict[str, Callable[[], Any]]:
    state = dict(checkpoint.load(prefix))
    return {
        "out.safetensors": lambda: checkpoint.convert(prefix, folder / "out.safetensors"),
        "out.pt": lambda: checkpoint.convert(prefix, folder / "out.pt"),
        "out.data-00000-of-00001": lambda: checkpoint.save(state, folder / "out"),
    }


def test_a_folder_that_is_not_there_is_named(prefix: str, tmp_path: Path) -> None:
    folder = tmp_path / "nowhere"
    for name, write in writers(prefix, folder).items():
        with pytest.raises(tensor_bridge.InvalidOptionError, match="there is no") as caught:
            write()
        assert str(caught.value).startswith(f"{folder / name}: ")
        assert "partial" not in str(caught.value)


def test_a_full_disk_names_the_file(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = set(tmp_path.iterdir())
    for name, write in writers(prefix, tmp_path).items():
        with monkeypatch.context() as patch:
            for call in ("write", "copy_file_range", "sendfile"):
                patch.setattr(os, call, full)
            with pytest.raises(OSError, match="No space left") as caught:
                write()
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename == str(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
    assert set(tmp_path.iterdir()) == before


def test_a_limit_of_the_system_names_the_file(prefix: str, tmp_path: Path) -> None:
    # The kernel refuses writes beyond the limit with EFBIG, like ENOSPC on a full disk.
    done = run_python(
        f"""
        import resource, signal
        from tensor_bridge.cli import main
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        for name in ("out.safetensors", "out.pt"):
            print(int(main(["checkpoint", "convert", {prefix!r}, {str(tmp_path)!r} + "/" + name])))
        """
    )
    assert (done.code, done.out) == (0, "2\n2\n")
    for name in ("out.safetensors", "out.pt"):
        assert re.search(rf"File too large: '{tmp_path}/{name}'\n", done.err)
        assert not (tmp_path / name).exists()


def test_a_folder_in_the_place_of_the_target_is_named(prefix: str, tmp_path: Path) -> None:
    (tmp_path / "out.pt").mkdir()
    target = tmp_path / "out.pt"
    with pytest.raises(InvalidOptionError, match=f"{re.escape(str(target))}: .*name a file in it"):
        checkpoint.convert(prefix, target, overwrite=True)


def test_a_name_of_another_kind_is_pointed_at(tmp_path: Path) -> None:
    tensors = {"w": tf.ones(2), "w/Adam": tf.ones(2), "global_step": tf.constant(1)}
    prefix = bundles.save(tmp_path / "ck", tensors)
    loaded = checkpoint.load(prefix)
    for name, kind in (("w/Adam", "slots"), ("global_step", "counters")):
        text = re.escape(f"it is among its {kind}: checkpoint.{kind}[{name!r}]")
        with pytest.raises(KeyError, match=text):
            loaded[name]
    with pytest.raises(KeyError, match="None is no variable"):
        loaded[None]  # type: ignore[index]
