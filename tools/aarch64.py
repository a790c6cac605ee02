"""Runs the tests for aarch64 on another machine, under qemu's user mode emulation.

    python tools/aarch64.py              # all; continues where it stopped
    python tools/aarch64.py PART...      # of: c++ newest middle
    python tools/aarch64.py newest -- PATH...   # files or folders of tests only

Makes in build/aarch64 a root of Debian's packages, which are unpacked and not configured, with the
tree of the commit and an environment for each entry of ENVIRONMENTS in it. Programs run there in a
user namespace that has an entry of its own for the emulator (Linux 6.7 or newer). The wheel is that
of `make wheel ARCH=aarch64`. What ran, how it ended and what was left out is in
tests/aarch64/result.json, and which files did not run yet, also after an interruption. A run
continues with the files without an outcome there, also in another clone, and then with those whose
outcome is of another commit.
"""

from __future__ import annotations

import collections
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The checks of a release import this file, and are of this machine's processor.
if __name__ == "__main__":
    os.environ["TENSOR_BRIDGE_ARCH"] = "aarch64"

import aarch64_inside
import build_wheel
import install_group
import matrix
import target

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "tests" / "aarch64" / "result.json"
SCRATCH = ROOT / "build" / "aarch64"
ARM = SCRATCH / "root"
TREE = ARM / "src" / "tensor_bridge"
RESULTS = ARM / "results"
DEBIAN = "bookworm"
PYTHON = "3.11"
PACKAGES = f"python{PYTHON},python3-distutils,ca-certificates,binutils,file,procps,git"
# The emulator's own choice has SVE, and torch's products are wrong with its kernels for it.
CPU = "neoverse-n1"
GOOGLETEST = Path("/usr/src/googletest")
# Processes of tests side by side.
JOBS = int(os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", "2"))


@dataclass(frozen=True)
class Environment:
    """Releases that are installed together, groups of pyproject.toml beside them, what is run."""

    torch: str
    tensorflow: str
    groups: tuple[str, ...]
    # Without what they require, as the Makefile installs them.
    alone: tuple[str, ...]
    tests: str


ENVIRONMENTS = {
    "newest": Environment(
        "2.13.0", "2.21.0", ("test", "helpers", "interop", "loops"), ("models",), "tests/python"
    ),
    "middle": Environment("2.6.0", "2.18.0", ("test",), (), "tests/python/installation/releases"),
}
# Left out, beside what the matrix leaves out.
LEFT_OUT = {path: matrix.LEFT_OUT[path] for path in matrix.LEFT_OUT} | {
    "gpu": "there is no GPU, and no driver that could be emulated",
}
MARKS = matrix.MARKS
MARKS_LEFT_OUT = {
    "exhaustive": "hours, emulated",
    "alone": "counts memory, threads and time, which are the emulator's here",
    "gpu": "needs a GPU",
}
# In a user namespace of its own: an entry for the emulator, and the folders that programs expect.
SETUP = """
set -e
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
echo '{entry}' > /proc/sys/fs/binfmt_misc/register
for d in proc dev; do mount --rbind /$d {arm}/$d; done
mount --bind {sys} {arm}/sys
exec chroot {arm} "$@"
"""
MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"


def run(*command: str | Path) -> str:
    """The output of a command that has to succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stdout + done.stderr)[-3000:]
        raise SystemExit(f"{shlex.join(map(str, command))}: {done.returncode}\n{said}")
    return done.stdout


def inside(*command: str, env: dict[str, str] | None = None) -> list[str]:
    """The command line that runs a program of the root."""
    emulator = shutil.which("qemu-aarch64-static") or "/usr/bin/qemu-aarch64-static"
    entry = f":aarch64:M::{MAGIC}:{MASK}:{emulator}:F"
    setup = SETUP.format(entry=entry, arm=shlex.quote(str(ARM)), sys=shlex.quote(str(fake_sys())))
    given = {"PATH": "/usr/bin:/bin", "HOME": "/root", "TF_CPP_MIN_LOG_LEVEL": "3"}
    given |= {"QEMU_CPU": CPU} | (env or {})
    words = ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in given.items())]
    if target.CROSS:
        start = ["unshare", "--user", "--map-root-user", "--mount", "--fork"]
        return [*start, "bash", "-c", setup, "setup", *words, *command]
    raise SystemExit("on an aarch64 machine `make test` runs the tests themselves")


def fake_sys() -> Path:
    """A /sys that says of which kind the processors are; torch ends without it."""
    folder = SCRATCH / "sys" / "devices" / "system" / "cpu"
    count = os.cpu_count() or 1
    for number in range(count):
        identification = folder / f"cpu{number}" / "regs" / "identification"
        identification.mkdir(parents=True, exist_ok=True)
        (identification / "midr_el1").write_text("0x00000000410fd0c0\n")  # Neoverse N1
    for name in ("possible", "present", "online"):
        (folder / name).write_text(f"0-{count - 1}\n")
    return SCRATCH / "sys"


def make_root() -> None:
    complete = SCRATCH / "root.complete"
    if complete.exists() and complete.read_text() == PACKAGES:
        return
    shutil.rmtree(ARM, ignore_errors=True)
    ARM.parent.mkdir(parents=True, exist_ok=True)
    run(
        *("debootstrap", "--arch=arm64", "--foreign", "--variant=minbase"),
        *(f"--include={PACKAGES}", DEBIAN, ARM),
    )
    for archive in sorted((ARM / "var/cache/apt/archives").glob("*.deb")):
        run("dpkg-deb", "-x", archive, ARM)
        archive.unlink()
    for name in ("proc", "sys", "dev", "tmp", "opt"):
        (ARM / name).mkdir(exist_ok=True)
    (ARM / "usr/bin/python3").unlink(missing_ok=True)
    (ARM / "usr/bin/python3").symlink_to(f"python{PYTHON}")
    # What was built here names files by their place on this machine.
    outside = ARM / str(ARM).lstrip("/")
    outside.parent.mkdir(parents=True, exist_ok=True)
    outside.symlink_to("/")
    complete.write_text(PACKAGES)


def make_tree() -> str:
    """The files of the commit in the root; returns the commit."""
    commit = build_wheel.git("rev-parse", "--short=12", "HEAD")
    kept = SCRATCH / "tree.commit"
    if not (kept.exists() and kept.read_text() == commit and TREE.is_dir()):
        shutil.rmtree(TREE, ignore_errors=True)
        TREE.mkdir(parents=True)
        archive = SCRATCH / "tree.tar"
        run("git", "-C", ROOT, "archive", "-o", archive, "HEAD")
        run("tar", "-xf", archive, "-C", TREE)
        archive.unlink()
        kept.write_text(commit)
    return commit


def site_packages(name: str) -> Path:
    return ARM / "opt" / name / "lib" / f"python{PYTHON}" / "site-packages"


def uv_install(name: str, *words: str | Path) -> None:
    """Wheels of the other processor; what has none is not compiled."""
    env = {"UV_CACHE_DIR": str(SCRATCH / "cache"), "UV_LINK_MODE": "hardlink"}
    command = ["uv", "pip", "install", "--quiet", "--python-version", PYTHON]
    command += ["--python-platform", "aarch64-manylinux_2_36", "--target", site_packages(name)]
    done = matrix.run(*command, *words, env=env)
    if done.returncode != 0:
        raise SystemExit(f"{name} cannot be installed:\n{done.stderr[-3000:]}")


def make_environment(name: str, wheel: Path) -> None:
    """A virtual environment at /opt/NAME of the root, with the wheel."""
    environment = ENVIRONMENTS[name]
    folder = ARM / "opt" / name
    complete = folder / "complete"
    project = install_group.tomllib.loads(install_group.PYPROJECT.read_text("utf-8"))
    groups = project["dependency-groups"]
    wanted, alone = (
        [r for group in each for r in install_group.requirements(groups, group)]
        for each in (environment.groups, environment.alone)
    )
    frameworks = [f"torch=={environment.torch}", f"tensorflow=={environment.tensorflow}"]
    said = "\n".join([*frameworks, *wanted, *alone])
    if not (complete.exists() and complete.read_text() == said):
        shutil.rmtree(folder, ignore_errors=True)
        site_packages(name).mkdir(parents=True)
        matrix.SCRATCH.mkdir(parents=True, exist_ok=True)
        # One is only to be had as sources, and has nothing to compile.
        only = ["--only-binary", ":all:", "--no-binary", "promise"]
        uv_install(name, *only, *frameworks, *wanted, "optree")
        if alone:
            uv_install(name, "--no-deps", *alone)
        (folder / "pyvenv.cfg").write_text(f"home = /usr/bin\nversion = {PYTHON}\n")
        (folder / "bin").mkdir()
        for command in ("python", "python3", f"python{PYTHON}"):
            (folder / "bin" / command).symlink_to(f"/usr/bin/python{PYTHON}")
        complete.write_text(said)
    for old in site_packages(name).glob("t*tensor_bridge*"):
        shutil.rmtree(old)
    uv_install(name, "--no-deps", wheel)


def by_turns(names: list[str]) -> list[str]:
    """The first file of each folder of tests/python, then the second of each, and so on.

    A run of hours is often ended before all of them.
    """
    folders = collections.defaultdict(list)
    for name in sorted(names):
        folders[name.removeprefix("tests/python/").partition("/")[0]].append(name)
    turns = itertools.zip_longest(*folders.values())
    return [name for turn in turns for name in turn if name]


def files(tests: str) -> list[str]:
    names = [str(path.relative_to(TREE)) for path in (TREE / tests).rglob("test_*.py")]
    left_out = tuple(f"tests/python/{path}" for path in LEFT_OUT)
    return by_turns([name for name in names if not name.startswith(left_out)])


def run_python(name: str, results: Path, only: list[str], done: dict[str, Any]) -> None:
    """Runs files of tests.

    Args:
      name: A key of ENVIRONMENTS.
      results: The folder for their reports. Files with a report there are not run again.
      only: What the names of the files begin with, in the order of running; all if empty.
      done: The outcomes of this commit, whose files are not run, and of others, whose files are
        run last.
    """
    results.mkdir(parents=True, exist_ok=True)
    commit = (SCRATCH / "tree.commit").read_text()
    wanted = [
        file
        for file in files(ENVIRONMENTS[name].tests)
        if not (results / f"{aarch64_inside.slug(file)}.xml").exists()
        and done.get(file, {}).get("commit") != commit
        and (not only or file.startswith(tuple(only)))
    ]
    order = {path: i for i, path in enumerate(only)}
    wanted.sort(
        key=lambda f: (f in done, min((i for p, i in order.items() if f.startswith(p)), default=0))
    )
    for file in wanted:
        (results / f"{aarch64_inside.slug(file)}.ended").unlink(missing_ok=True)
    if not wanted:
        return
    tree = f"/{TREE.relative_to(ARM)}"
    options = [f"--rootdir={tree}", "-c", f"{tree}/pyproject.toml"]
    options += ["-o", "filterwarnings=", "-q", "-m", MARKS, "-p", "no:cacheprovider"]
    options += ["-p", "no:xdist", "-o", "junit_family=xunit1", "--timeout=3600"]
    env = {
        "PYTHONDONTWRITEBYTECODE": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": "/tmp/hypothesis",
        "VIRTUAL_ENV": f"/opt/{name}",
        "PATH": f"/opt/{name}/bin:/usr/bin:/bin",
    }
    python = f"/opt/{name}/bin/python"
    script = "tools/aarch64_inside.py"
    words = [python, script, f"/{results.relative_to(ARM)}", str(JOBS), *options]
    there = f"cd {tree} && exec {shlex.join(words)}"
    command = inside("/bin/bash", "-c", there, env=env)
    subprocess.run(command, input="\n".join(wanted), text=True, check=True)


def outcome(report: Path) -> dict[str, Any] | None:
    """How the tests of a file ended; None if they did not run."""
    ended = report.with_suffix(".ended")
    if ended.exists():
        return {"passed": 0, "skipped": {}, "failed": [f"ended with {ended.read_text().strip()}"]}
    if not report.exists():
        return None
    skipped: collections.Counter[str] = collections.Counter()
    passed, failed = 0, []
    for case in ET.parse(report).getroot().iter("testcase"):
        why = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(str(case.get("name")))
        elif why is not None:
            skipped[why.get("message") or ""] += 1
        else:
            passed += 1
    return {"passed": passed, "skipped": dict(sorted(skipped.items())), "failed": sorted(failed)}


def python_result(name: str, results: Path, commit: str, done: dict[str, Any]) -> dict[str, Any]:
    """The outcome of each file, new or from `done`, and what they are together."""
    environment = ENVIRONMENTS[name]
    names = sorted(files(environment.tests))
    new = {file: outcome(results / f"{aarch64_inside.slug(file)}.xml") for file in names}
    outcomes = done | {file: {"commit": commit} | found for file, found in new.items() if found}
    outcomes = {file: outcomes[file] for file in names if file in outcomes}
    return {
        "python": PYTHON,
        "torch": environment.torch,
        "tensorflow": environment.tensorflow,
        "tests": environment.tests,
        "passed": sum(found["passed"] for found in outcomes.values()),
        "failed": [
            f"{file}::{each}" for file, found in outcomes.items() for each in found["failed"]
        ],
        "files": len(outcomes),
        "files of another commit": sum(o["commit"] != commit for o in outcomes.values()),
        "files that did not run": [file for file in names if file not in outcomes],
        "outcomes": outcomes,
    }


PARTS = ("c++", *ENVIRONMENTS)


def violations(result: dict[str, Any]) -> list[str]:
    """What did not run, what failed, and what is of another commit than the rest."""
    found = [f"{part}: did not run" for part in PARTS if part not in result]
    for part in PARTS:
        of_part = result.get(part, {})
        found += [f"{part}: {each}" for each in of_part.get("failed", ())]
        found += [f"{part}: {f}: did not run" for f in of_part.get("files that did not run", ())]
        others = {
            o["commit"] for o in (of_part, *of_part.get("outcomes", {}).values()) if "commit" in o
        }
        found += [f"{part}: of commit {other}" for other in sorted(others - {result["commit"]})]
    return found


def build_googletest() -> Path:
    prefix = SCRATCH / "googletest"
    if not (prefix / "lib").exists():
        made = SCRATCH / "googletest-build"
        run(
            *("cmake", "-S", GOOGLETEST, "-B", made, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release"),
            *(f"-DCMAKE_TOOLCHAIN_FILE={target.TOOLCHAIN}", f"-DCMAKE_INSTALL_PREFIX={prefix}"),
            "-DCMAKE_INSTALL_LIBDIR=lib",
        )
        run("cmake", "--build", made)
        run("cmake", "--install", made)
    return prefix


def run_cpp() -> dict[str, Any]:
    """Builds the C++ tests with the newest environment's frameworks, and runs what ctest lists."""
    made = ARM / "cpp"
    packages = site_packages("newest")
    run(
        *("cmake", "-S", TREE, "-B", made, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=RelWithDebInfo"),
        *(f"-DCMAKE_TOOLCHAIN_FILE={target.TOOLCHAIN}", "-DTENSOR_BRIDGE_BUILD_PYTHON=OFF"),
        *("-DTENSOR_BRIDGE_BUILD_TESTS=ON", "-DTENSOR_BRIDGE_WERROR=ON"),
        f"-DCMAKE_PREFIX_PATH={build_googletest()}",
        f"-DTENSOR_BRIDGE_TORCH_DIR={packages / 'torch'}",
        f"-DTENSOR_BRIDGE_TENSORFLOW_DIR={packages / 'tensorflow'}",
    )
    run("cmake", "--build", made)
    listed = json.loads(run("ctest", "--test-dir", made, "--show-only=json-v1"))
    passed, failed, tests = 0, [], 0
    for test in listed["tests"]:
        command = " ".join(shlex.quote(word) for word in test["command"])
        try:
            done = subprocess.run(
                inside("/bin/bash", "-c", f"cd {made} && exec {command}"),
                capture_output=True,
                text=True,
                check=False,
                timeout=aarch64_inside.LIMIT,
            )
        except subprocess.TimeoutExpired:
            failed.append(f"{test['name']}: not ended after {aarch64_inside.LIMIT} s")
            continue
        (SCRATCH / f"{test['name']}.log").write_text(done.stdout + done.stderr)
        found = re.search(r"\[  PASSED  \] (\d+) test", done.stdout)
        tests += int(found[1]) if found else 0
        if done.returncode == 0 and found:
            passed += 1
        else:
            failed.append(f"{test['name']}: ended with {done.returncode}")
        print(f"{time.strftime('%H:%M:%S')} {done.returncode} {test['name']}", flush=True)
    return {"programs passed": passed, "tests passed": tests, "failed": failed}


def keep(result: dict[str, Any], part: str, of_part: dict[str, Any]) -> None:
    """Writes what ran of a part."""
    result |= {part: of_part, "date": time.strftime("%Y-%m-%d")}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    told = {name: value for name, value in of_part.items() if name != "outcomes"}
    print(json.dumps({part: told}, indent=2), flush=True)


def main(arguments: list[str]) -> int:
    split = arguments.index("--") if "--" in arguments else len(arguments)
    parts, only = arguments[:split], arguments[split + 1 :]
    if set(parts) - set(PARTS):
        raise SystemExit(__doc__)
    wheel = matrix.the_wheel()
    make_root()
    commit = make_tree()
    what = {
        "commit": commit,
        "wheel": {
            "name": wheel.name,
            "sha256": matrix.digest(wheel),
            "commit": build_wheel.COMMIT.read_text("utf-8").strip(),
        },
        "emulator": run("qemu-aarch64-static", "--version").splitlines()[0],
    }
    results = RESULTS / f"{commit}-{what['wheel']['sha256'][:12]}"
    kept = json.loads(RESULT.read_text("utf-8")) if RESULT.exists() else {}
    result = kept | what | {"left out": LEFT_OUT | MARKS_LEFT_OUT}
    for part in parts or PARTS:
        if part in ENVIRONMENTS:
            make_environment(part, wheel)
            done = kept.get(part, {}).get("outcomes", {})
            try:
                run_python(part, results / part, only, done)
            finally:  # An interruption keeps what has ended.
                keep(result, part, python_result(part, results / part, commit, done))
        else:
            make_environment("newest", wheel)
            keep(result, part, {"commit": commit} | run_cpp())
    return int(any(result[part]["failed"] for part in parts or PARTS))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
