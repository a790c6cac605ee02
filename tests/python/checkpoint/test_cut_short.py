"""A file that is truncated while it is open: copying raises, and the process goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import bundles
import every_format
import pytest
import torch
from torch import nn

from tensor_bridge import CheckpointError, checkpoint

# Truncates each file of each checkpoint in turn after it was opened.
CUT = """
import json, os, sys
from tensor_bridge import checkpoint
from tensor_bridge.errors import TensorBridgeError

for path, files in json.loads(sys.argv[1]).items():
    print(path, end=" ", flush=True)  # so that a process that dies here has said where
    refused = 0
    for file in files:
        loaded = checkpoint.load(path)
        for entry in loaded.all_entries:
            entry.read(False)  # so that all files are open
        with open(file, "rb") as whole:
            content = whole.read()
        os.truncate(file, 0)
        for entry in loaded.all_entries:
            for call in (lambda: entry.read(False), entry.extent, lambda: list(entry.problems())):
                try:
                    call()
                except TensorBridgeError as e:
                    refused += 1
        try:
            loaded.verify()
        except TensorBridgeError:
            pass
        with open(file, "wb") as whole:
            whole.write(content)
    print(refused, flush=True)
"""


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return every_format.write(tmp_path_factory.mktemp("formats"))


@pytest.mark.alone
def test_every_format_survives_its_files_becoming_empty(formats: dict[str, Path]) -> None:
    data = {
        "bundle": ["bundle.data-00000-of-00001"],
        "joined": ["ck.data-00000-of-00001"],
        "first": ["ck"],
        "model.h5": ["model.h5"],
        "chunked.weights.h5": ["chunked.weights.h5"],
        "stored.keras": ["stored.keras"],
        "graph": ["graph.pb"],
        "tflite": ["model.tflite"],
    }
    paths = {
        str(formats[name]): [str(formats[name].parent / file) for file in files]
        for name, files in data.items()
    }
    done = subprocess.run(
        [sys.executable, "-c", CUT, json.dumps(paths)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, (done.stdout, done.returncode, done.stderr)
    refused = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    assert refused.keys() == paths.keys()
    assert all(int(count) > 0 for count in refused.values()), refused


INTO = """
import os, sys
import torch
from torch import nn
from tensor_bridge import checkpoint
from tensor_bridge.errors import CheckpointError

class Cutting(nn.Linear):
    # Called when everything was looked at.
    def _load_from_state_dict(self, *args):
        os.truncate(sys.argv[2], 0)
        super()._load_from_state_dict(*args)

kind = sys.argv[3]
if kind == "before":
    model = nn.ModuleDict({"a": nn.Linear(1024, 1024, bias=False)})
    loaded = checkpoint.load(sys.argv[1])
    os.truncate(sys.argv[2], 0)
else:
    # Above what is copied in one go: the second part is copied when the file is cut.
    hidden = nn.Module._load_from_state_dict
    def cutting(self, *args):
        hidden(self, *args)
        if isinstance(self, nn.Linear):
            os.truncate(sys.argv[2], 0)
    cutting.__module__ = "torch.nn.modules.module"
    nn.Module._load_from_state_dict = cutting
    model = nn.ModuleDict({
        name: nn.Linear(4096, 4096, bias=False) for name in "ab"
    })
    loaded = sys.argv[1]
try:
    checkpoint.load_into(model, loaded)
except (CheckpointError, ValueError) as e:
    print(type(e).__name__, "truncated" in str(e))
"""


@pytest.mark.alone
@pytest.mark.parametrize("kind", ["before", "between"])
def test_load_into_raises_where_a_file_was_truncated(kind: str, tmp_path: Path) -> None:
    count = 1024 if kind == "before" else 4096
    size = 4 * count * count
    names = ["a/kernel"] if kind == "before" else ["a/kernel", "b/kernel"]
    entries = {
        name: bundles.entry(dtype=1, shape=(count, count), offset=i * size, size=size)
        for i, name in enumerate(names)
    }
    prefix = bundles.write(tmp_path, entries, b"\0" * size * len(names))
    done = subprocess.run(
        [sys.executable, "-c", INTO, prefix, prefix + ".data-00000-of-00001", kind],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert done.stdout.split()[1:] == ["True"], done.stdout
    assert done.stdout.split()[0] in ("CheckpointError", "MismatchError")


def test_what_was_written_to_a_view_is_loaded_into_a_module(tmp_path: Path) -> None:
    entry = bundles.entry(dtype=1, shape=(2, 3), size=24)
    loaded = checkpoint.load(bundles.write(tmp_path, {"a/kernel": entry}, b"\0" * 24))
    loaded["a/kernel"].copy_(torch.arange(6.0).view(2, 3))
    model = nn.ModuleDict({"a": nn.Linear(2, 3, bias=False)})
    checkpoint.load_into(model, loaded)
    assert torch.equal(model["a"].weight, torch.arange(6.0).view(2, 3).t())


def test_copies_by_the_kernel_are_what_they_are_copies_of() -> None:
    from tensor_bridge.checkpoint.read._owned import owned

    x = torch.arange(24.0).view(2, 3, 4)
    for view in (
        x,
        x.permute(2, 0, 1),
        x[:, 1],
        x[:, :, ::2],
        x[1, 2, 3],
        x[:, :1].expand(2, 3, 4),
    ):
        copy = owned(view)
        assert torch.equal(copy, view)
        assert copy.stride() == view.stride()
        assert copy.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()
    assert owned(empty := torch.empty(0)) is empty


def test_a_copy_of_what_is_gone_is_an_error(tmp_path: Path) -> None:
    from tensor_bridge.checkpoint.read._owned import owned

    entry = bundles.entry(dtype=1, shape=(8192,), size=32768)
    prefix = bundles.write(tmp_path, {"w": entry}, b"\1" * 32768)
    x = checkpoint.load(prefix)["w"]
    with Path(prefix + ".data-00000-of-00001").open("r+b") as file:
        file.truncate(4096)
    with pytest.raises(CheckpointError, match="truncated"):
        owned(x)
    assert owned(x[:1024]).view(torch.uint8).unique().tolist() == [1]
