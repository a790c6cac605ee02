"""Compares two commits by the instructions that a call takes, counted by callgrind.

Instructions are counted, not timed: other work on the machine does not change them, and one run of
each commit is enough. They do not tell the time: a cache miss counts like a hit. What TensorFlow's
threads do while they wait for work is not counted.

    python benchmarks/compare.py BASE [--only PATTERN] [--fail-above PERCENT] [--profiles]

BASE is built in a separate worktree and kept under build/compare; it is compared with the installed
package. BASE may be HEAD's own commit with --force: the differences are those of the measure. With
--profiles the counts of each operation are kept beside it, for callgrind_annotate.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD = ROOT / "build" / "compare"
# Files whose changes can change the counts.
MEASURED = ("src", "include", "python", "cmake", "CMakeLists.txt", "pyproject.toml")
# Smaller differences come from the addresses of the tensors' memory.
NOTABLE = 0.01
# A thread of TensorFlow's that waits for work looks for it some thousand times: half of what a
# gradient takes, and 7 % more or less of it from one run to the next.
WAITS = "Eigen::ThreadPoolTempl<*>::MaybeGetTask*"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", help="commit to compare with")
    parser.add_argument("--only", metavar="PATTERN", default="", help="operations to be counted")
    parser.add_argument(
        "--fail-above", type=float, metavar="PERCENT", help="exit with 1 where a call takes more"
    )
    parser.add_argument("--profiles", action="store_true", help="keep callgrind's profiles")
    parser.add_argument("--force", action="store_true", help="also where nothing has changed")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)

    if shutil.which("valgrind") is None:
        console.print("bench-compare: valgrind is not installed")
        return 2
    base = git("rev-parse", "--short=12", f"{options.base}^{{commit}}")
    if not options.force and not changed_since(base):
        console.print(f"Nothing that is measured has changed since {base}.")
        return 0

    packages = {"base": built(base), "now": Path()}
    counts = counted(packages, only=options.only, keep=options.profiles)
    title = f"Instructions a call: {base} and the working tree"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("operation", no_wrap=True)
    for heading in (base, "now", "change"):
        table.add_column(heading, justify="right", no_wrap=True)
    worst = 0.0
    for name in counts["now"]:
        before, now = counts["base"].get(name), counts["now"][name]
        change = None if before is None else now / before - 1
        worst = max(worst, change or 0.0)
        table.add_row(
            name,
            "-" if before is None else f"{before:,.0f}",
            f"{now:,.0f}",
            "new" if change is None else said(change),
        )
    console.print(table)
    if options.profiles:
        console.print(f"callgrind_annotate {(BUILD / 'profiles').relative_to(ROOT)}/now-*")
    if options.fail_above is not None and worst * 100 > options.fail_above:
        console.print(f"[red]{worst:+.1%} is above {options.fail_above:g}%[/]")
        return 1
    return 0


def git(*arguments: str, folder: Path = ROOT) -> str:
    """The output of git; exits with git's own error text if it fails."""
    done = subprocess.run(
        ["git", *arguments], cwd=folder, check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"bench-compare: git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def changed_since(base: str) -> bool:
    """Whether any measured file differs from the working tree."""
    return bool(git("diff", "--name-only", base, "--", *MEASURED)) or bool(
        git("ls-files", "--others", "--exclude-standard", "--", *MEASURED)
    )


def built(commit: str) -> Path:
    """A folder from which to import the commit's package; built if it does not exist yet."""
    target, source = BUILD / commit, BUILD / f"{commit}.source"
    if target.exists():
        return target
    BUILD.mkdir(parents=True, exist_ok=True)
    git("worktree", "add", "--force", "--detach", str(source), commit)
    staged = BUILD / f"{commit}.new"
    try:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation"]
        subprocess.run([*pip, "--no-deps", "--target", str(staged), str(source)], check=True)
        staged.rename(target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        git("worktree", "remove", "--force", str(source))
    return target


def counted(packages: Mapping[str, Path], *, only: str, keep: bool) -> dict[str, dict[str, float]]:
    """Counts of the operations for each package, all from one process under callgrind."""
    profiles = BUILD / "profiles"
    shutil.rmtree(profiles, ignore_errors=True)
    profiles.mkdir(parents=True)
    client = BUILD / "callgrind_client.so"
    source = HERE / "callgrind_client.c"
    compile_it = [os.environ.get("CC", "gcc"), "-O1", "-shared", "-fPIC"]
    subprocess.run([*compile_it, str(source), "-o", str(client)], check=True)
    command = [
        *("valgrind", "--tool=callgrind", "--instr-atstart=no", "--quiet"),
        # In this order: the first turns the second off.
        *(f"--toggle-collect={WAITS}", "--collect-atstart=yes"),
        f"--callgrind-out-file={profiles}/%p",
        *(sys.executable, str(HERE / "_operations.py"), "--client", str(client), "--only", only),
        *(f"{label}={'' if folder == Path() else folder}" for label, folder in packages.items()),
    ]
    settings = {
        "PYTHONHASHSEED": "0",
        "LD_BIND_NOW": "1",  # else the first call through each symbol looks it up
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        # Memory that was freed waits in malloc's cache for the next call. With the usual 7 blocks
        # of each size, a thousand tensors take up to 4 % more or less with where others lie.
        "GLIBC_TUNABLES": "glibc.malloc.tcache_count=16000:glibc.malloc.arena_max=1",
    }
    log = BUILD / "callgrind.log"
    with log.open("w") as file:
        done = subprocess.run(
            command, env={**os.environ, **settings}, stdout=file, stderr=subprocess.STDOUT
        )
    if done.returncode:
        raise SystemExit(f"{log.read_text()}\nbench-compare: callgrind failed")
    counts = read_counts(profiles)
    if not keep:
        shutil.rmtree(profiles)
    return counts


def read_counts(profiles: Path) -> dict[str, dict[str, float]]:
    """The instructions of each call, from profiles with different numbers of calls."""
    totals: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for path in sorted(profiles.iterdir(), key=lambda path: [int(n) for n in path.name.split(".")]):
        text = path.read_text()
        label = re.search(r"^desc: Trigger: Client Request: (.*)$", text, re.MULTILINE)
        total = re.search(r"^totals: (\d+)$", text, re.MULTILINE)
        if label is None or total is None:  # what callgrind writes at the end of a process
            path.unlink()
            continue
        package, name, calls = label[1].split("|")
        totals[package, name].append((int(calls), int(total[1])))
        path.rename(path.with_name(f"{package}-{re.sub('[^a-z0-9]+', '-', name.lower())}-{calls}"))
    counts: dict[str, dict[str, float]] = defaultdict(dict)
    for (package, name), measured in totals.items():
        few, more = (min(measured)[0], max(measured)[0])
        # The lowest count: occasional work, such as a new memory arena, only adds to it.
        least = {calls: min(total for n, total in measured if n == calls) for calls in (few, more)}
        counts[package][name] = (least[more] - least[few]) / (more - few)
    return counts


def said(change: float) -> str:
    if abs(change) < NOTABLE:
        return "same"
    return f"[{'red' if change > 0 else 'green'}]{change:+.1%}[/]"


if __name__ == "__main__":
    sys.exit(main())
