"""A process is killed while it writes: the file with the name is the old or the new one, and whole.

It is killed at every system call that changes the folder or a file, and at random moments.
"""

from __future__ import annotations

import itertools
import random
import re
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from killed_writer import Writers
from written import KINDS, Kind, state

import tensor_bridge
from tensor_bridge import checkpoint

pytestmark = pytest.mark.alone

OLD, NEW = 1.0, 2.0
# Names of files that a killed process may leave behind.
HEX = re.compile(r"[0-9a-f]{8,16}")
LEFT = re.compile(r"\.tensor_bridge-[0-9a-f]{16}\.partial|out(-[0-9a-f]{8})?-\d{5}-of-\d{5}\..*")


@pytest.fixture(scope="module")
def writers() -> Iterator[Writers]:
    with Writers() as server:
        yield server


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[float, str]:
    """Checkpoints to convert, with three tensors that have the same value."""
    folder = tmp_path_factory.mktemp("sources")
    return {v: checkpoint.save(state(v), folder / f"ck{v}") for v in (OLD, NEW)}


def checked(kind: Kind, folder: Path) -> float | str | None:
    """The value in the complete files; "mixed" if the files of a checkpoint do not fit together."""
    for path in folder.iterdir():
        assert path.name in kind.files or LEFT.fullmatch(path.name), path
    try:
        return kind.read(folder)
    except tensor_bridge.CheckpointError as error:
        names = [str(folder / "out.index"), str(folder / "out.data-00000-of-00001")]
        if not all(name in str(error) for name in names):
            raise
        return "mixed"


EXHAUSTIVE = pytest.mark.exhaustive


@pytest.mark.parametrize("half", [False, pytest.param(True, marks=EXHAUSTIVE)], ids=["", "half"])
@pytest.mark.parametrize("poor", [False, pytest.param(True, marks=EXHAUSTIVE)], ids=["", "poor"])
@pytest.mark.parametrize(
    "overwrite", [True, pytest.param(False, marks=EXHAUSTIVE)], ids=["overwrite", "new"]
)
@pytest.mark.parametrize("name", KINDS)
def test_killed_at_every_call(
    writers: Writers,
    sources: dict[float, str],
    tmp_path: Path,
    name: str,
    overwrite: bool,
    poor: bool,
    half: bool,
) -> None:
    kind = KINDS[name]
    before, folder = tmp_path / "before", tmp_path / "folder"
    before.mkdir()
    if overwrite:
        writers.run(kind.code(sources[OLD], before, overwrite=False))
    code = kind.code(sources[NEW], folder, overwrite=overwrite)
    again = kind.code(sources[NEW], folder, overwrite=True)
    found: set[float | str | None] = set()
    calls: set[str] = set()
    left_before: set[str] = set()
    for number in itertools.count():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(before, folder)
        call = writers.ended_at(code, number, half=half, poor=poor)
        found.add(checked(kind, folder))
        if not call:
            break
        calls.add(call)
        left = " ".join(sorted(HEX.sub("", path.name) for path in folder.iterdir()))
        if left not in left_before:
            # Files that were left behind do not disturb the next writer.
            left_before.add(left)
            writers.run(again)
            assert checked(kind, folder) == NEW
    assert calls >= {"open", "write", "fsync", "rename" if overwrite else "link"}
    old = OLD if overwrite else None
    assert found == {old, NEW} | ({"mixed"} if name == "bundle" and overwrite else set())


@pytest.mark.parametrize("rounds", [2, pytest.param(50, marks=EXHAUSTIVE)])
@pytest.mark.parametrize("name", KINDS)
def test_killed_at_random_moments(
    writers: Writers, sources: dict[float, str], tmp_path: Path, name: str, rounds: int
) -> None:
    kind = KINDS[name]
    calls = [kind.code(sources[v], tmp_path, overwrite=True) for v in (OLD, NEW)]
    endless = "while True:\n" + textwrap.indent("".join(calls), "    ")
    writers.run(calls[0])
    draw = random.Random(name)
    for _ in range(rounds):
        writers.ended_after(endless, draw.uniform(0, 0.2))
        assert checked(kind, tmp_path) in {OLD, NEW, "mixed"}
    writers.run(calls[0])
    assert checked(kind, tmp_path) == OLD
