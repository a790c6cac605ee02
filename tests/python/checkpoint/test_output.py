"""Files get their names when whole, and are private, in any folder and beside other writers."""

from __future__ import annotations

import ctypes
import errno
import itertools
import json
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
import sharing
from killed_writer import Writers
from safetensors.torch import load_file
from written import KINDS, Kind, state

import tensor_bridge
from tensor_bridge import _folder, _output, checkpoint

OLD, NEW = 1.0, 2.0
Sources = dict[float, str]
Patch = pytest.MonkeyPatch


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    folder = tmp_path_factory.mktemp("sources")
    return {v: checkpoint.save(state(v), folder / f"ck{v}") for v in map(float, range(1, 9))}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


# --- file systems ---------------------------------------------------------------------------------


def without_unnamed_files(patch: Patch) -> None:
    real = os.open

    def refusing(path: Any, flags: int, *more: Any, **options: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no O_TMPFILE")
        return real(path, flags, *more, **options)

    patch.setattr(os, "open", refusing)


def without_flags(patch: Patch) -> None:
    without_unnamed_files(patch)
    patch.setattr(_folder.Folder, "_rename", lambda *_: False)


def without_renameat2(patch: Patch) -> None:
    """Like in a sandbox that forbids the call."""
    without_unnamed_files(patch)

    class Libc:
        def renameat2(self, *_: Any) -> int:
            ctypes.set_errno(errno.EPERM)
            return -1

    patch.setattr(_folder.ctypes, "CDLL", lambda *_, **__: Libc())


def without_links(patch: Patch) -> None:
    without_flags(patch)

    def refusing(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, "no links")

    patch.setattr(os, "link", refusing)


def without_proc(patch: Patch) -> None:
    real = Path.is_dir
    patch.setattr(Path, "is_dir", lambda path: str(path) != "/proc/self/fd" and real(path))


FILE_SYSTEMS = {
    "ext4": lambda patch: None,
    "no_unnamed_files": without_unnamed_files,
    "no_flags": without_flags,
    "no_renameat2": without_renameat2,
    "no_links": without_links,
    "no_proc": without_proc,
}


@pytest.fixture(params=FILE_SYSTEMS.values(), ids=FILE_SYSTEMS)
def file_system(request: pytest.FixtureRequest, monkeypatch: Patch) -> None:
    request.param(monkeypatch)


@pytest.mark.usefixtures("file_system")
def test_files_get_their_names_on_every_file_system(
    sources: Sources, tmp_path: Path, kind: Kind
) -> None:
    kind.write(sources[OLD], tmp_path, overwrite=False)
    assert kind.read(tmp_path) == OLD
    assert names(tmp_path) == set(kind.files)
    with pytest.raises(tensor_bridge.InvalidOptionError, match="exists; overwrite=True"):
        kind.write(sources[NEW], tmp_path, overwrite=False)
    assert kind.read(tmp_path) == OLD
    kind.write(sources[NEW], tmp_path, overwrite=True)
    assert kind.read(tmp_path) == NEW
    assert len(names(tmp_path)) == len(kind.files)


@pytest.mark.usefixtures("file_system")
def test_what_appears_meanwhile_is_not_replaced(
    sources: Sources, tmp_path: Path, monkeypatch: Patch, kind: Kind
) -> None:
    """At the last moment before the files get their names, after all checks of the folder."""
    real = _output.Output.add
    for name in kind.files:

        def planting(output: _output.Output, name: str = name) -> None:
            if output.path.name == name:
                (tmp_path / name).write_bytes(b"theirs")
            real(output)

        monkeypatch.setattr(_output.Output, "add", planting)
        with pytest.raises(tensor_bridge.InvalidOptionError, match=f"{name} exists"):
            kind.write(sources[NEW], tmp_path, overwrite=False)
        assert (tmp_path / name).read_bytes() == b"theirs"
        assert names(tmp_path) == {name}
        (tmp_path / name).unlink()


# --- files planted by others ----------------------------------------------------------------------


Plant = Callable[[Path, Path], Any]
PLANTS: dict[str, Plant] = {
    "link": lambda path, victim: path.symlink_to(victim),
    "dangling_link": lambda path, victim: path.symlink_to(victim.with_name("nothing")),
    "hard_link": lambda path, victim: path.hardlink_to(victim),
    "fifo": lambda path, victim: os.mkfifo(path),
    "file": lambda path, victim: path.write_bytes(b"theirs"),
}
EVERY_PLANT = pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder beside a file that must not change."""
    (tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


@EVERY_PLANT
def test_what_is_planted_at_the_target_is_replaced_and_not_followed(
    sources: Sources, folder: Path, tmp_path: Path, kind: Kind, plant: Plant
) -> None:
    victim = folder.with_name("victim")
    for name in kind.files:
        plant(folder / name, victim)
    before = {name: (folder / name).lstat().st_ino for name in kind.files}
    with pytest.raises(tensor_bridge.InvalidOptionError, match="exists; overwrite=True"):
        kind.write(sources[NEW], folder, overwrite=False)
    assert {name: (folder / name).lstat().st_ino for name in kind.files} == before
    kind.write(sources[NEW], folder, overwrite=True)
    assert kind.read(folder) == NEW
    assert victim.read_bytes() == b"mine"
    assert names(tmp_path) == {"folder", "victim"}


@EVERY_PLANT
def test_a_name_that_was_guessed_is_not_opened(
    sources: Sources, folder: Path, monkeypatch: Patch, kind: Kind, plant: Plant
) -> None:
    without_unnamed_files(monkeypatch)
    victim = folder.with_name("victim")
    plant(folder / "guessed", victim)
    monkeypatch.setattr(_folder.Folder, "free_name", lambda _: "guessed")
    with pytest.raises(FileExistsError):
        kind.write(sources[NEW], folder, overwrite=False)
    assert victim.read_bytes() == b"mine"
    assert names(folder) == {"guessed"}


def test_a_folder_in_the_place_of_a_file_is_told_before_the_work(
    sources: Sources, tmp_path: Path, kind: Kind
) -> None:
    kind.write(sources[OLD], tmp_path, overwrite=False)
    last = tmp_path / kind.files[-1]
    last.unlink()
    last.mkdir()
    before = {path: path.stat().st_ino for path in tmp_path.iterdir()}
    with pytest.raises(tensor_bridge.InvalidOptionError, match="got a folder"):
        kind.write(sources[NEW], tmp_path, overwrite=True)
    assert {path: path.stat().st_ino for path in tmp_path.iterdir()} == before


def test_nothing_has_a_name_before_it_is_complete(
    sources: Sources, tmp_path: Path, monkeypatch: Patch, kind: Kind
) -> None:
    seen: list[set[str]] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: seen.append(names(tmp_path)) or real(fd))
    kind.write(sources[NEW], tmp_path, overwrite=False)
    assert seen[0] == set()
    assert seen[-1] == set(kind.files)


# --- modes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002, 0o000])
@pytest.mark.usefixtures("file_system")
def test_modes_are_those_of_what_is_replaced_or_as_umask_says(
    sources: Sources, tmp_path: Path, kind: Kind, mask: int
) -> None:
    with umask(mask):
        kind.write(sources[OLD], tmp_path, overwrite=True)
        for path in tmp_path.iterdir():
            assert mode(path) == 0o666 & ~mask
        for kept in (0o600, 0o640, 0o444, 0o664, 0o755):
            for path in tmp_path.iterdir():
                path.chmod(kept)
            kind.write(sources[NEW], tmp_path, overwrite=True)
            assert {mode(path) for path in tmp_path.iterdir()} == {kept}


def test_a_file_is_never_broader_than_what_it_replaces(
    sources: Sources, tmp_path: Path, monkeypatch: Patch, kind: Kind
) -> None:
    """If the file has a name while it is written, others could open it meanwhile."""
    without_unnamed_files(monkeypatch)
    kind.write(sources[OLD], tmp_path, overwrite=False)
    for path in tmp_path.iterdir():
        path.chmod(0o600)
    seen: set[int] = set()
    real = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: seen.update(map(mode, tmp_path.iterdir())) or real(fd)
    )
    kind.write(sources[NEW], tmp_path, overwrite=True)
    assert seen == {0o600}


AS_NOBODY = """
import os
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
os.umask(0o027)
"""


@pytest.fixture(scope="module")
def writers() -> Iterator[Writers]:
    with Writers() as server:
        yield server


@pytest.mark.alone
@pytest.mark.skipif(os.geteuid() != 0, reason="files of other users need a superuser")
def test_files_of_other_users_and_groups_open_nothing(
    writers: Writers, sources: Sources, tmp_path: Path, kind: Kind
) -> None:
    # Other users may pass through the folders above, and must not list this folder.
    tmp_path.chmod(0o733)
    for path in tmp_path.parents:
        if not path.stat().st_mode & 0o001:
            path.chmod(0o755)
    for path in Path(sources[NEW]).parent.iterdir():
        path.chmod(0o644)
    Path(sources[NEW]).parent.chmod(0o755)
    code = AS_NOBODY + kind.code(sources[NEW], tmp_path, overwrite=True)
    for owner, group, before, after in [
        (65534, 65534, 0o660, 0o660),
        (65534, 1234, 0o664, 0o644),
        (65534, 1234, 0o640, 0o600),
        (1234, 1234, 0o666, 0o640),
        (1234, 1234, 0o604, 0o600),
    ]:
        kind.write(sources[OLD], tmp_path, overwrite=True)
        for path in tmp_path.iterdir():
            os.chown(path, owner, group)
            path.chmod(before)
        writers.run(code)
        assert kind.read(tmp_path) == NEW
        for path in tmp_path.iterdir():
            assert path.stat().st_uid == 65534
            assert mode(path) == after
            path.unlink()


# --- failures and interrupts ----------------------------------------------------------------------


def test_what_cannot_be_brought_to_the_disk_gets_no_name(
    sources: Sources, tmp_path: Path, monkeypatch: Patch, kind: Kind
) -> None:
    def failing(fd: int) -> None:
        raise OSError(errno.EIO, "no disk")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="no disk") as caught:
        kind.write(sources[NEW], tmp_path, overwrite=False)
    assert caught.value.filename == str(tmp_path / kind.files[0])
    assert names(tmp_path) == set()


@pytest.mark.parametrize("overwrite", [True, False], ids=["overwrite", "new"])
def test_an_interrupt_at_any_line_leaves_old_or_new(
    sources: Sources, tmp_path: Path, monkeypatch: Patch, kind: Kind, overwrite: bool
) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    package = Path(_output.__file__).parent
    written = (_folder.__file__, _output.__file__, str(package / "checkpoint" / "write"))

    def interrupt_at(line: int) -> Any:
        lines = itertools.count()

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            if not frame.f_code.co_filename.startswith(written):
                return None
            if event == "line" and next(lines) == line:
                raise KeyboardInterrupt
            return trace

        return trace

    found = set()
    for line in itertools.count(0, 3):
        folder = tmp_path / str(line)
        folder.mkdir()
        if overwrite:
            kind.write(sources[OLD], folder, overwrite=False)
        sys.settrace(interrupt_at(line))
        try:
            kind.write(sources[NEW], folder, overwrite=overwrite)
        except KeyboardInterrupt:
            interrupted = True
        else:
            interrupted = False
        finally:
            sys.settrace(None)
        found.add(kind.read(folder))
        if not interrupted:
            break
    assert found == {OLD if overwrite else None, NEW}


# --- shards ---------------------------------------------------------------------------------------


def test_new_shards_have_other_names_and_old_ones_go(sources: Sources, tmp_path: Path) -> None:
    kind = KINDS["shards"]
    target = tmp_path / "out.safetensors"
    for value in (OLD, NEW, OLD):
        *parts, index = checkpoint.convert(
            sources[value], target, max_shard_bytes=4000, overwrite=True
        )
        assert names(tmp_path) == {path.name for path in (*parts, index)}
        assert kind.read(tmp_path) == value
        for number, path in enumerate(parts):
            assert re.fullmatch(
                rf"out(-\w{{8}})?-0000{number + 1}-of-00003\.safetensors", path.name
            )


def test_an_index_that_was_made_to_do_harm_removes_no_other_file(
    sources: Sources, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    victims = [
        tmp_path / "out-00001-of-00001.safetensors",
        folder / "model-00001-of-00001.safetensors",
        folder / "out.pt",
        folder / "out-00001-of-00001.safetensors.bak",
    ]
    for path in victims:
        path.write_bytes(b"mine")
    (tmp_path / "is").mkdir()
    index = folder / "out.safetensors.index.json"
    named = [*map(str, victims), *(p.name for p in victims), f"../{victims[0].name}", 3, None, {}]
    for text in (
        json.dumps({"weight_map": dict(enumerate(named))}),
        json.dumps({"weight_map": named}),
        json.dumps({"weight_map": None}),
        json.dumps(named),
        "[" * 100_000,
        "no JSON \xff",
        "",
    ):
        index.write_text(text)
        KINDS["shards"].write(sources[NEW], folder, overwrite=True)
        assert KINDS["shards"].read(folder) == NEW
        assert [path.read_bytes() for path in victims] == [b"mine"] * 4


def test_shards_take_no_name_that_something_has(sources: Sources, tmp_path: Path) -> None:
    theirs = tmp_path / "out-00002-of-00003.safetensors"
    theirs.write_bytes(b"theirs")
    KINDS["shards"].write(sources[NEW], tmp_path, overwrite=True)
    assert KINDS["shards"].read(tmp_path) == NEW
    assert theirs.read_bytes() == b"theirs"
    assert len(names(tmp_path)) == 5


# --- races ----------------------------------------------------------------------------------------


def in_threads(codes: list[str]) -> list[int]:
    """Runs all codes at once in threads. Returns 0 for each that was not refused."""

    def run(code: CodeType) -> int:
        try:
            exec(code, {})
        except tensor_bridge.InvalidOptionError:
            return 1
        return 0

    compiled = [compile(code, "<thread>", "exec") for code in codes]
    return sharing.in_threads(*[partial(run, code) for code in compiled], timeout=240)


ROUNDS = pytest.mark.parametrize("rounds", [2, pytest.param(50, marks=pytest.mark.exhaustive)])
MANY = pytest.mark.parametrize("many", [2, 8])


@pytest.mark.alone
@ROUNDS
@MANY
@pytest.mark.parametrize("where", ["threads", "processes"])
def test_of_writers_at_one_time_one_is_there_whole(
    writers: Writers,
    sources: Sources,
    tmp_path: Path,
    kind: Kind,
    where: str,
    many: int,
    rounds: int,
) -> None:
    together = in_threads if where == "threads" else writers.together
    values = list(sources)[:many]
    for overwrite in (False, True) * rounds:
        if not overwrite:
            for path in tmp_path.iterdir():
                path.unlink()
        codes = [kind.code(sources[v], tmp_path, overwrite=overwrite) for v in values]
        statuses = together(codes)
        found = kind.read(tmp_path)
        assert found in values
        # No temporary file is left, and no shard that the index does not name.
        assert len(names(tmp_path)) == len(kind.files)
        if overwrite:
            assert statuses == [0] * many
        else:
            assert sorted(statuses) == [0] + [1] * (many - 1)
            assert statuses[values.index(found)] == 0


@pytest.mark.alone
def test_a_writer_whose_files_were_replaced_in_part_replaces_them_again(
    sources: Sources, tmp_path: Path, monkeypatch: Patch
) -> None:
    """A second writer runs from begin to end between the two files of the first."""
    kind = KINDS["bundle"]
    kind.write(sources[OLD], tmp_path, overwrite=False)
    real = _folder.Folder.replace
    renamed: list[str] = []

    def one_by_one(folder: _folder.Folder, old: list[str], new: list[str]) -> None:
        renamed.append(new[0])
        if len(renamed) > 1:
            real(folder, old, new)
            return
        real(folder, old[:1], new[:1])
        kind.write(sources[3.0], tmp_path, overwrite=True)
        real(folder, old[1:], new[1:])

    monkeypatch.setattr(_folder.Folder, "replace", one_by_one)
    kind.write(sources[NEW], tmp_path, overwrite=True)
    assert len(renamed) == 3
    assert kind.read(tmp_path) == NEW
    assert names(tmp_path) == set(kind.files)


def test_a_reader_of_a_file_that_is_replaced_sees_one_of_the_two(
    sources: Sources, tmp_path: Path
) -> None:
    kind = KINDS["safetensors"]
    kind.write(sources[OLD], tmp_path, overwrite=False)
    path = tmp_path / "out.safetensors"
    with path.open("rb") as old:
        kind.write(sources[NEW], tmp_path, overwrite=True)
        assert load_file(path)["w0"][0] == NEW
        before = tmp_path / "before.safetensors"
        before.write_bytes(old.read())
    assert load_file(before)["w0"][0] == OLD
