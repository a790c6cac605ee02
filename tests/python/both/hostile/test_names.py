"""Names in files and names of files: every command and every message shows them with escapes."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from hostile_names import FORMATS, draw, draw_many, unshowable

from tensor_bridge import CheckpointError, checkpoint, errors
from tensor_bridge._printable import printable
from tensor_bridge.cli import main as entry

Run = Callable[..., tuple[int, list[str]]]
SEEDS = range(3)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command and returns its status and its lines, which must be printable."""

    def call(*arguments: Any) -> tuple[int, list[str]]:
        try:
            status = entry([*map(str, arguments)])
        except SystemExit as e:
            status = int(str(e.code))
        captured = capsys.readouterr()
        shown = captured.out + captured.err
        assert not unshowable(shown.encode("utf-8", "surrogatepass")), shown
        return status, shown.removesuffix("\n").split("\n")

    return call


def test_the_judge_finds_what_must_not_be_shown() -> None:
    for bad in ("\x1b[2J", "\r", "\t", "\x7f", "\x85", "\u202e", "\u2066", "\u200b", "\u115f"):
        assert unshowable(f"a {bad} b".encode())
    assert unshowable(b"\xff") == {"U+DCFF"}
    assert not unshowable("a b\né日本 \\x1b".encode())


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("seed", SEEDS)
def test_commands_show_names_of_every_format(
    kind: str, seed: int, tmp_path: Path, run: Run
) -> None:
    dice = Random(seed)
    (tmp_path / "other").mkdir()
    path = FORMATS[kind](draw_many(dice, 12), tmp_path)
    other = FORMATS[kind](draw_many(dice, 12), tmp_path / "other")
    entries = checkpoint.load(path).all_entries
    assert len(entries) >= 10

    _, shown = run("checkpoint", "ls", path, "--all")
    assert len(shown) == len(entries) + 2
    widths = {line.index("float32") for line in shown[1:-1] if line.isascii()}
    assert widths <= {shown[0].index("DTYPE")}

    _, [text] = run("checkpoint", "ls", path, "--all", "--json")
    assert {row["name"] for row in json.loads(text)} == {entry.name for entry in entries}

    for one in entries:
        status, shown = run("checkpoint", "show", path, printable(one.name))
        assert status == 0
        assert len(shown) == 1
    name = entries[0].name
    _, [text] = run("checkpoint", "show", path, printable(name), "--json")
    assert list(json.loads(text)) == [name]
    assert run("checkpoint", "show", path, name + draw(dice).decode("utf-8", "replace"))[0] == 2

    run("checkpoint", "diff", path, other)
    run("checkpoint", "diff", path, other, "--json")
    run("checkpoint", "verify", path)
    run("checkpoint", "convert", path, tmp_path / "out.pt")
    run("checkpoint", "convert", path, tmp_path / "out.safetensors")
    module = torch.nn.Linear(2, 1)
    with pytest.raises(errors.MismatchError) as e:
        checkpoint.load_into(module, path)
    assert not unshowable(str(e.value).encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("seed", SEEDS)
def test_commands_show_what_is_damaged(kind: str, seed: int, tmp_path: Path, run: Run) -> None:
    dice = Random(seed)
    path = FORMATS[kind](draw_many(dice, 4), tmp_path)
    files = [file for file in tmp_path.iterdir() if file.is_file()]
    for _ in range(30):
        file = dice.choice(files)
        data = bytearray(whole := file.read_bytes())
        for _ in range(dice.choice((1, 1, 3))):
            data[dice.randrange(len(data))] = dice.choice(
                (0, 0x1B, 0x0A, 0xFF, dice.randrange(256))
            )
        file.write_bytes(data)
        for command in ("verify", "ls"):
            assert run("checkpoint", command, path)[0] in (0, 1, 2, 3)
        file.write_bytes(whole)


@pytest.mark.parametrize("seed", range(12))
def test_file_names_are_shown(seed: int, tmp_path: Path, run: Run) -> None:
    dice = Random(seed)
    name = draw(dice).replace(b"/", b"").replace(b"\0", b"").strip(b".")[:200] or b"\x1b"
    folder = tmp_path / os.fsdecode(name)
    folder.mkdir()
    source = FORMATS["bundle"]([b"w"], tmp_path)
    shown = folder / os.fsdecode(name)
    assert run("checkpoint", "convert", source, f"{shown}.pt")[0] == 0
    assert run("checkpoint", "convert", source, f"{shown}.pt")[0] == 2  # the target exists
    assert (
        run("checkpoint", "convert", source, f"{shown}.safetensors", "--max-shard-size=1")[0] == 0
    )
    assert run("checkpoint", "convert", source, folder / "not" / "there.pt")[0] == 2
    assert run("checkpoint", "convert", source, f"{shown}.{os.fsdecode(name)}")[0] == 2
    _, [text] = run("checkpoint", "convert", source, f"{shown}.pt", "--overwrite", "--json")
    assert json.loads(text) == [f"{shown}.pt"]
    for missing in (shown, f"{shown}.index", f"{shown}.keras", f"{shown}.pt"):
        for command in ("ls", "verify"):
            assert run("checkpoint", command, missing)[0] in (1, 2)
        assert run("checkpoint", "diff", source, missing)[0] == 2
    (folder / "checkpoint").write_bytes(b'model_checkpoint_path: "' + name + b'"')
    assert run("checkpoint", "ls", folder)[0] == 2
    # Unknown words.
    assert run(os.fsdecode(name))[0] == 2
    assert run("checkpoint", "ls", source, f"--{os.fsdecode(name)}")[0] == 2
    assert run("doctor", os.fsdecode(name))[0] == 2


@pytest.mark.parametrize("seed", range(12))
def test_messages_have_one_line_and_attributes_the_true_name(seed: int) -> None:
    name = draw(Random(seed)).decode("utf-8", "surrogateescape")
    error = CheckpointError(f"{name}: expected something else")
    error.entry = name
    assert not unshowable(str(error).encode("utf-8", "surrogatepass"))
    assert "\n" not in str(error)
    assert error.entry == name
    assert error.args == (f"{name}: expected something else",)
    assert str(CheckpointError(str(error))) == str(error)


def test_a_text_of_several_lines_keeps_them() -> None:
    assert str(errors.TensorFlowError("one\n\t two\x1b[2J")) == "one\n\t two\\x1b[2J"


def test_printable_leaves_what_can_be_seen() -> None:
    for text in ("layer/w:0", "é日本", "😀", "a\\nb", "e\u0301", ""):
        assert printable(text) is text


def test_columns_hold_for_names_of_any_width(tmp_path: Path, run: Run) -> None:
    path = FORMATS["bundle"]([b"w", "重み".encode(), "e\u0301".encode(), b"x" * 5000], tmp_path)
    _, shown = run("checkpoint", "ls", path)
    by_name = {line.split()[0]: line for line in shown[1:-1]}
    column = shown[0].index("DTYPE")
    assert by_name["w"].index("float32") == column
    assert by_name["重み"].index("float32") == column - 2
    assert by_name["e\u0301"].index("float32") == column + 1
    assert column < 200  # one long name does not lengthen every row


@pytest.mark.alone
def test_a_stream_that_lacks_a_character_gets_an_escape(tmp_path: Path) -> None:
    path = FORMATS["bundle"](["重み".encode()], tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "tensor_bridge", "checkpoint", "ls", str(path)],
        check=True,
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert b"\\u91cd\\u307f  float32" in done.stdout


@pytest.mark.alone
def test_a_terminal_is_sent_no_control_character(tmp_path: Path) -> None:
    path = FORMATS["bundle"](draw_many(Random(0), 40), tmp_path)
    parent, child = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "tensor_bridge", "checkpoint", "ls", "--all", str(path)],
        stdin=subprocess.DEVNULL,
        stdout=child,
        stderr=child,
    ) as process:
        os.close(child)
        shown = b""
        try:
            while piece := os.read(parent, 1 << 16):
                shown += piece
        except OSError:  # the terminal's other side is closed
            pass
        os.close(parent)
        assert process.wait() == 0
    assert len(shown.splitlines()) == 42
    assert not unshowable(shown.replace(b"\r\n", b"\n"))
