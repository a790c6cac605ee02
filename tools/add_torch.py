"""Adds a release of torch to the supported releases.

    python tools/add_torch.py 2.16.0 [--python 3.13] [--tensorflow 2.21.0] [-- tests of the matrix]
    python tools/add_torch.py --remove     # removes the newest release from the tree again

1. Reads the headers of the release and compares the layout of its classes with the newest group's
   (torch_layout.py). If they are the same, the release joins that group; else it begins a new one.
2. Writes the release into the lists and texts of the tree; `git diff` shows where.
3. Builds the wheel for each processor, with a cross compiler for another than this machine's, and
   with the symbols of the release (build_wheel.py --real), which writes its lists.
4. Installs the wheel beside the release, tries it (the adapter tests itself when it is loaded, the
   doctor converts both ways) and runs the tests (matrix.py, which keeps the result unless tests are
   named).

If step 3 or 4 fails, look in the table "What breaks with a new torch" of CONTRIBUTING.md.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import matrix
import target
import torch_layout
import torch_wheels

ROOT = Path(__file__).resolve().parents[1]
Groups = list[list[str]]
# The first release whose storages call a function before a write.
HOOKED = "2.13"
SUFFIXES = (".c", ".cc", ".h", ".cmake", ".md", ".py", ".toml", ".txt")


def minor_of(release: str) -> str:
    return ".".join(release.split(".")[:2])


def after(minor: str) -> str:
    return f"2.{int(minor.split('.')[1]) + 1}"


def spelled(groups: Groups) -> list[tuple[str, str]]:
    """How texts name the releases of these groups: a pattern, and the text in place of its @."""
    minors = [minor for group in groups for minor in group]
    hooked = minors[minors.index(HOOKED) :]
    first, last = minors[0], minors[-1]
    pair = "((2, {}), (2, {}))".format(*(m.split(".")[1] for m in (first, last)))
    return [
        (f"{first} to @", last),
        (f"{HOOKED} to @", last),
        ("up to @", last),
        ("newer than @", last),
        ("TORCH_RANGE = @", pair),
        ("torch>=2.6,<@", after(last)),
        (f"torch>={HOOKED},<@", after(last)),
        ("torch<@", after(last)),
        ("torch @:", f"{', '.join(hooked[:-1])} and {hooked[-1]}"),
        ("in @\n", f"{', '.join(hooked[:-1])} and {hooked[-1]}"),
        ("@", " | ".join(" ".join(group) for group in groups)),
        ("TB_TORCH_GROUPS @)", " ".join(f'"{" ".join(group)}"' for group in groups)),
    ]


def rewritten(text: str, old: Groups, new: Groups) -> str:
    for (pattern, was), (_, becomes) in zip(spelled(old), spelled(new), strict=True):
        begin, _, end = pattern.partition("@")
        whole = re.escape(begin) + re.escape(was) + re.escape(end) + r"(?!\d)"
        text = re.sub(whole, f"{begin}{becomes}{end}".replace("\\", r"\\"), text)
    return text


def write_texts(old: Groups, new: Groups) -> None:
    command = ["git", "ls-files", "--", *(f"*{suffix}" for suffix in SUFFIXES)]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        path = ROOT / name
        text = path.read_text("utf-8") if path.exists() else ""
        changed = rewritten(text, old, new)
        if changed != text:
            path.write_text(changed, "utf-8")


def edit(name: str, pattern: str, becomes: str) -> None:
    """Replaces the single match of a pattern in a file."""
    path = ROOT / "tools" / name
    text, count = re.subn(pattern, becomes, path.read_text("utf-8"), flags=re.MULTILINE)
    if count != 1:
        raise SystemExit(f"tools/{name}: expected one match of {pattern!r}, got {count}")
    path.write_text(text, "utf-8")


def remove() -> None:
    """Removes the newest release from the tree. Results of the matrix stay."""
    old = torch_wheels.groups()
    minor = old[-1][-1]
    new = [*old[:-1], old[-1][:-1]] if len(old[-1]) > 1 else old[:-1]
    write_texts(old, new)
    release = re.escape(torch_wheels.RELEASES[minor])
    edit("torch_wheels.py", rf'^    "{re.escape(minor)}": "{release}",\n', "")
    edit("matrix.py", rf'^    Environment\("[\d.]+", "{release}", "[\d.]+"\),\n', "")
    for arch in target.SUPPORTED:
        (torch_wheels.LISTS.parent / arch / f"{minor}.txt").unlink(missing_ok=True)


def add(release: str, environment: matrix.Environment) -> None:
    """Does steps 1 and 2."""
    old, minor = torch_wheels.groups(), minor_of(release)
    newest = old[-1][-1]
    if minor != after(newest):
        raise SystemExit(f"expected a release of torch {after(newest)}, got {release}")
    torch_wheels.RELEASES[minor] = release
    for each in (old[-1][0], minor):
        torch_wheels.provide(each, check=False)
    differs = torch_layout.differences(old[-1][0], minor)
    print("\n".join(differs) or f"torch {minor}: same layout as {old[-1][0]}", flush=True)
    new = [*old, [minor]] if differs else [*old[:-1], [*old[-1], minor]]
    write_texts(old, new)
    line = f'    "{newest}": "{torch_wheels.RELEASES[newest]}",\n'
    edit("torch_wheels.py", f"^{re.escape(line)}", f'{line}    "{minor}": "{release}",\n')
    words = f'"{environment.python}", "{environment.torch}", "{environment.tensorflow}"'
    before = torch_wheels.RELEASES[newest].replace(".", r"\.")
    last = rf'^(    Environment\("[\d.]+", "{before}", "[\d.]+"\),\n)'
    edit("matrix.py", last, rf"\1    Environment({words}),\n")


def newest_tensorflow() -> str:
    text = (ROOT / "python/tensor_bridge/_frameworks.py").read_text("utf-8")
    ((major, minor),) = re.findall(r"TENSORFLOW_RANGE = .*\((\d+), (\d+)\)\)", text)
    return f"{major}.{minor}.0"


def steps(environment: str, tests: list[str]) -> list[list[str]]:
    """Steps 3 and 4: for which processor, the script, its arguments."""
    lists = [[arch, "build_wheel.py", "--real"] for arch in target.SUPPORTED]
    named = ["--", *tests] if tests else []
    return [*lists, [target.ARCH, "matrix.py", environment, *named]]


def main(arguments: list[str]) -> int:
    if arguments == ["--remove"]:
        remove()
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    both = [environment for environment in matrix.ENVIRONMENTS if environment.tensorflow]
    newest = max(both, key=lambda e: [int(part) for part in e.torch.split(".")])
    parser.add_argument("release", help="such as 2.16.0")
    parser.add_argument("--python", default=newest.python, help="Python in the matrix")
    parser.add_argument("--tensorflow", default=newest_tensorflow(), help="release in the matrix")
    parser.add_argument("tests", nargs="*", help="after --: tests of the matrix instead of all")
    given = parser.parse_args(arguments)
    environment = matrix.Environment(given.python, given.release, given.tensorflow)
    add(given.release, environment)
    for arch, script, *words in steps(environment.name, given.tests):
        # Separate processes, so that they read the files that were written here.
        command = [sys.executable, ROOT / "tools" / script, *words]
        env = os.environ | {"TENSOR_BRIDGE_ARCH": arch}
        done = subprocess.run(command, env=env, check=False)
        if done.returncode != 0:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
