"""The command `tensor-bridge` as a whole: completion, colours, activity, closed outputs."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

import pytest

from tensor_bridge import __version__, cli
from tensor_bridge._command_line import activity, say
from tensor_bridge._completion import SCRIPTS, _commands, completions

# In a shell: the words that it shows for the last of `$words`.
ASK = {
    "bash": "COMP_WORDS=({words}); COMP_CWORD={last}; _tensor_bridge; "
    'printf "%s\\n" "${{COMPREPLY[@]}}"',
    "fish": "complete -C '{words}'",
}


def parsers(
    parser: ArgumentParser, *names: str
) -> Iterator[tuple[tuple[str, ...], ArgumentParser]]:
    """Each command's parser with the words that lead to it."""
    yield names, parser
    for name, child in _commands(parser).items():
        yield from parsers(child, *names, name)


def command(folder: Path) -> dict[str, str]:
    """An environment in which `tensor-bridge` is this one."""
    path = folder / "tensor-bridge"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -m tensor_bridge "$@"\n')
    path.chmod(0o755)
    return os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_every_command_and_option_is_completed() -> None:
    seen = 0
    for names, parser in parsers(cli._parser()):
        assert completions(cli._parser(), [*names, ""]) == sorted(
            [
                *_commands(parser),
                *(["bash", "fish", "words", "zsh"] if "completion" in names else []),
            ]
        )
        options = {option for action in parser._actions for option in action.option_strings}
        assert set(completions(cli._parser(), [*names, "-"])) == options
        for option in options:
            assert option in completions(cli._parser(), [*names, option[:-1]])
            seen += 1
    assert seen > 30
    assert completions(cli._parser(), ["checkpoint", "ver"]) == ["verify"]
    assert completions(cli._parser(), ["nothing", "no"]) == []


@pytest.mark.parametrize("shell", sorted(ASK))
def test_a_shell_completes(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    for words, expected in (
        ("tensor-bridge che", ["checkpoint"]),
        ("tensor-bridge checkpoint con", ["convert"]),
        ("tensor-bridge records verify --js", ["--json"]),
    ):
        ask = ASK[shell].format(words=words, last=len(words.split()) - 1)
        code = SCRIPTS[shell] + ask
        done = subprocess.run(
            [shell, "-c", code], env=command(tmp_path), capture_output=True, text=True, check=True
        )
        assert [line.split("\t")[0] for line in done.stdout.splitlines()] == expected, done.stderr


@pytest.mark.parametrize("shell", sorted(SCRIPTS))
def test_the_code_for_each_shell_is_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    assert capsys.readouterr().out.strip() == SCRIPTS[shell].strip()


def test_the_version_has_two_options(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("-V", "--version"):
        with pytest.raises(SystemExit) as end:
            cli.main([option])
        assert end.value.code == 0
        assert capsys.readouterr().out == f"tensor_bridge {__version__}\n"


@pytest.mark.parametrize("unbuffered", ["", "-u"])
@pytest.mark.parametrize("arguments", ["completion bash", "-V", "checkpoint ls --help"])
def test_closed_and_full_outputs_are_errors_without_a_traceback(
    arguments: str, unbuffered: str
) -> None:
    for redirection, said in (
        (">&-", "tensor-bridge: standard output is closed\n"),
        (">/dev/full", "tensor-bridge: [Errno 28] No space left on device\n"),
    ):
        line = f"{sys.executable} {unbuffered} -m tensor_bridge {arguments} {redirection}"
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (2, said)


def test_outputs_that_nobody_reads_are_not_written_elsewhere() -> None:
    line = f"{sys.executable} -m tensor_bridge completion bash >&- 2>&-"
    assert subprocess.run(["sh", "-c", line], check=False).returncode == 2
    line = f"{sys.executable} -m tensor_bridge checkpoint ls --json nothing-there 2>&-"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    for arguments in ("completion words --", "--help"):
        line = f"{sys.executable} -m tensor_bridge {arguments} | head -0"
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_colours_are_for_terminals_whose_user_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal, os.fdopen(ours, "rb", buffering=0) as shown:
        monkeypatch.setattr(sys, "stderr", terminal)

        def seen() -> bytes:
            say("error: \x1b[2J", error=True, colour="red")
            terminal.flush()
            return shown.read(100)

        assert seen() == b"\x1b[31merror: \\x1b[2J\x1b[0m\r\n"
        monkeypatch.setenv("NO_COLOR", "1")
        assert seen() == b"error: \\x1b[2J\r\n"
        monkeypatch.setenv("NO_COLOR", "")
        monkeypatch.setenv("TERM", "dumb")
        assert seen() == b"error: \\x1b[2J\r\n"
        with activity("looking"):
            assert shown.read(100) == b"looking ..."
        assert shown.read(100) == b"\r           \r"


def test_nothing_is_coloured_or_shown_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with activity("looking"):
        say("error: no", colour="red")
    assert capsys.readouterr() == ("error: no\n", "")
