"""What messages, docstrings and pages tell people to install, with pip."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

ROOT = Path(__file__).resolve().parents[1]
# A command ends with the line, the code span, or the sentence's bracket, semicolon or full stop.
_COMMAND = re.compile(
    r"pip install ((?:'[^']*'|\"[^\"]*\"|\.(?=[\s)`,]|$)|[^\s'\"`();,.]|\.(?=\w)| )+)", re.M
)
# Of the project itself: a checkout, its wheel.
_OWN = (".", "WHEEL", "dist/*.whl")


def _texts(path: Path) -> Iterator[str]:
    text = path.read_text("utf-8")
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            match node:
                case ast.Constant(value=str(found)):
                    yield found
                case ast.JoinedStr(values=values):
                    yield "".join(v.value if isinstance(v, ast.Constant) else "{}" for v in values)
    elif path.suffix in (".cc", ".h"):
        yield re.sub(r'"\s*[A-Z_]+\s*"', "{}", re.sub(r'"\s*"', "", text))
    else:
        yield text


def sources() -> list[Path]:
    """Every file whose text a user reads."""
    command = ["git", "ls-files", "README.md", "docs", "examples", "include", "python", "src"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    kinds = (".cc", ".h", ".md", ".py")
    return [ROOT / name for name in listed.stdout.split() if name.endswith(kinds)]


def arguments(text: str) -> Iterator[str]:
    """What each `pip install` of a text is to install, without options."""
    for command in _COMMAND.findall(text):
        yield from (word for word in shlex.split(command) if not word.startswith("-"))


def advised() -> dict[str, str]:
    """Each argument, and a file that has it."""
    return {
        word: str(path.relative_to(ROOT))
        for path in sources()
        for text in _texts(path)
        for word in arguments(text)
    }


def package(argument: str) -> str | None:
    """The package that an argument names; "" for the project itself, None for no known form.

    "{}" is what a message fills in.
    """
    if argument in _OWN or argument.startswith("{}"):
        return ""
    try:
        return Requirement(argument.replace("{}", "1")).name
    except InvalidRequirement:
        return None


def violations() -> Iterator[str]:
    """Checks that the index has what people are told to install."""
    for argument, place in sorted(advised().items()):
        name = package(argument)
        if name == "":
            continue
        # What a message fills in follows from the supported releases.
        wanted = argument if "{}" not in argument else str(name)
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps"]
        command += ["--ignore-installed", "--quiet", wanted]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            yield f"{place}: pip install {argument}: {done.stderr.strip().splitlines()[-1]}"
