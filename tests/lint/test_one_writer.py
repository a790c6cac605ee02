"""Only _folder.py of the package makes files."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from tree import files

HOME = "python/tensor_bridge/_folder.py"
# A file without a name in the system's temporary folder, and the null device.
EXCEPTIONS = {
    "python/tensor_bridge/checkpoint/read/_keras.py": {"TemporaryFile"},
    "python/tensor_bridge/cli.py": {"O_WRONLY"},
}
# Attributes and names whose use makes, names or removes a file.
NAMES = {
    *("O_WRONLY", "O_RDWR", "O_CREAT", "O_TMPFILE", "mkfifo", "mknod"),
    *("TemporaryFile", "NamedTemporaryFile", "TemporaryDirectory", "mkstemp", "mkdtemp"),
    *("write_bytes", "write_text", "touch", "mkdir", "makedirs", "symlink_to", "hardlink_to"),
    *("rename", "renames", "unlink", "link", "symlink", "copyfile", "copytree", "rmtree"),
}
CPP = re.compile(r"\b(ofstream|fstream|fopen|O_WRONLY|O_RDWR|O_CREAT|rename|renameat2?|mkstemp)\b")


def writes(mode: object) -> bool:
    return isinstance(mode, str) and re.fullmatch("(?=.*[wxa+])[rwxabt+]{1,4}", mode) is not None


def python_violations(name: str, text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text, filename=name)):
        used: set[str] = set()
        if isinstance(node, ast.Attribute):
            used = {node.attr} & NAMES
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "open":
            values = [*node.args, *(k.value for k in node.keywords if k.arg == "mode")]
            used = {v.value for v in values if isinstance(v, ast.Constant) and writes(v.value)}
        for what in used - EXCEPTIONS.get(name, set()):
            yield f"{name}:{node.lineno}: {what}"


def cpp_violations(name: str, text: str) -> Iterator[str]:
    code = re.sub(r"//.*", "", text)
    yield from (f"{name}: {found}" for found in CPP.findall(code))


def test_files_are_made_in_one_place() -> None:
    found = [
        violation
        for name, text in files("python/**/*.py")
        if name != HOME
        for violation in python_violations(name, text)
    ]
    found += [v for name, text in files("src/**", "include/**") for v in cpp_violations(name, text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "code",
    [
        'open("a.txt", "w")',
        'Path("a.txt").open(mode="ab")',
        'path.open("r+b")',
        "path.write_bytes(data)",
        "os.open(path, os.O_WRONLY)",
        "tempfile.TemporaryFile()",
        "os.rename(a, b)",
    ],
)
def test_another_way_is_found(code: str) -> None:
    assert list(python_violations("python/tensor_bridge/new.py", code))
    assert not list(python_violations("python/tensor_bridge/new.py", 'open("a.txt", "rb")'))
    assert list(cpp_violations("src/core/new.cc", "std::ofstream file(path);"))
