"""Builds the release wheel: one for every supported Python, torch and TensorFlow.

    python tools/build_wheel.py            # into dist/
    python tools/build_wheel.py --real     # with the real libraries' symbols; writes the lists anew
    python tools/build_wheel.py --check WHEEL

For this machine's processor, or with a cross compiler for that in TENSOR_BRIDGE_ARCH (target.py).
The adapters are compiled with the headers of release wheels and linked against stand-ins
(torch_wheels.py). auditwheel decides on the platform tag, TENSOR_BRIDGE_PORTABLE makes it an
old one. A wheel that breaks a rule of `violations` is not left in dist/. Two builds of a commit, by
one compiler in one folder, are the same bytes: --real builds twice and compares.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import target
import torch_wheels

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
BUILD = ROOT / "build" / f"wheel{target.SUFFIX}"
# The commit of the tree that the wheel was built from.
COMMIT = DIST / f"commit{target.SUFFIX}.txt"
# manylinux_2_28 or older.
NAME = re.compile(
    r"tf_torch_tensor_bridge-[\w.]+-cp310-abi3-(\w+\.)*"
    rf"manylinux_2_(1\d|2[0-8])_{target.ARCH}(\.\w+)*\.whl"
)
MAX_BYTES = 5 * 1000 * 1000
# A function of libtorch_python that the adapter looks up by this name.
WRAP = re.compile(rb"_Z\d+THPVariable_Wrap\w+")


def adapter_name(group: list[str]) -> str:
    return f"libtensor_bridge_torch_{group[0].replace('.', '_')}.so"


def undefined(library: Path) -> set[str]:
    """The names that the library takes from others, those of glibc and libstdc++ left out."""
    command = [target.tool("nm"), "-D", "--undefined-only", library]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    found = [line.split() for line in lines]
    # Weak ones may be missing; versioned ones are the system's, which auditwheel looks at.
    return {words[-1] for words in found if words[0] != "w" and "@" not in words[-1]}


# Names and types of the symbols of a library of a release.
Symbols = Callable[[str, str], dict[str, str]]


def looked_up(library: Path) -> set[str]:
    return {name.decode() for name in WRAP.findall(library.read_bytes())}


def adapter_violations(library: Path, minor: str, symbols: Symbols) -> Iterator[str]:
    """The symbols that the adapter needs and the torch release lacks."""
    there = {name for each in torch_wheels.LINKED for name in symbols(minor, each)}
    for name in sorted(undefined(library) - there):
        yield f"{library.name}: torch {minor} has no {name}"
    wanted = looked_up(library)
    if not wanted or not wanted <= symbols(minor, torch_wheels.SEARCHED).keys():
        yield f"{library.name}: torch {minor} has none of {sorted(wanted)}"


def write_lists(package: Path) -> None:
    """The lists of what the adapters in that folder use of each release; after provide_real()."""
    for group in torch_wheels.groups():
        adapter = package / adapter_name(group)
        wanted = dict.fromkeys(torch_wheels.LINKED, undefined(adapter))
        wanted[torch_wheels.SEARCHED] = looked_up(adapter)
        for minor in group:
            listed = torch_wheels.provide_real(minor)
            for library, names in wanted.items():
                real = torch_wheels.real_symbols(minor, library)
                listed.symbols[library] = {name: real[name] for name in names & real.keys()}
            listed.write(minor)


FILES = (
    "_C.abi3.so",
    "_C.pyi",
    "py.typed",
    "libtensor_bridge.so",
    "cmake/tensor_bridgeConfig.cmake",
    "include/tensor_bridge/c_api.h",
    "include/tensor_bridge/torch.h",
)
"""The other files of a wheel, besides the adapters and the Python modules."""


def violations(wheel: Path, symbols: Symbols | None = None) -> Iterator[str]:
    """What is wrong with a wheel; its adapters are held to `symbols`, or to the lists."""
    symbols = symbols or torch_wheels.symbols
    if not NAME.fullmatch(wheel.name):
        yield f"{wheel.name}: expected a cp310-abi3 wheel for {target.PLATFORM}"
    if wheel.stat().st_size > MAX_BYTES:
        yield f"{wheel.name}: {wheel.stat().st_size} bytes, more than {MAX_BYTES}"
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        archive.extractall(folder)
        package = Path(folder) / "tensor_bridge"
        for file in FILES:
            if not (package / file).is_file():
                yield f"{wheel.name}: no {file}"
        groups = torch_wheels.groups()
        expected = {adapter_name(group) for group in groups}
        there = {path.name for path in package.glob("libtensor_bridge_torch_*.so")}
        if there != expected:
            yield f"{wheel.name}: has the adapters {sorted(there)}, expected {sorted(expected)}"
        for group in groups:
            library = package / adapter_name(group)
            for minor in group if library.exists() else []:
                yield from adapter_violations(library, minor, symbols)
        lint = [sys.executable, str(ROOT / "tools/binaries.py")]
        env = os.environ | {"TENSOR_BRIDGE_LIB_DIR": str(package)}
        done = subprocess.run(lint, env=env, capture_output=True, text=True, check=False)
        yield from (done.stdout + done.stderr).splitlines()


def python_config(folder: Path) -> Path:
    """A folder of pyconfig.h where Debian's header of that name, for all of them, looks for it."""
    own = Path(sysconfig.get_config_h_filename())
    beside = folder / f"{target.ARCH}-linux-gnu" / f"python3.{sys.version_info.minor}"
    beside.mkdir(parents=True, exist_ok=True)
    shutil.copy(own, beside / "pyconfig.h")
    return folder


def build(folder: Path) -> Path:
    """The wheel as the toolchain makes it, with the tag of the machine that it is for."""
    first = [torch_wheels.directory(group[0]) for group in torch_wheels.groups()]
    # The build takes the DLPack header of the newest torch.
    torches = ";".join(str(path) for path in reversed(first))
    settings = {
        "build-dir": str(BUILD.relative_to(ROOT)),
        "cmake.define.TENSOR_BRIDGE_TORCH_DIR": torches,
        "cmake.define.TENSOR_BRIDGE_PORTABLE": "ON",
    }
    # Paths of this machine that torch's macros write down.
    flags = f"-ffile-prefix-map={ROOT}=. -frandom-seed=tensor_bridge"
    env = dict(os.environ)
    if target.CROSS:
        # The headers of this Python: the limited API is the same on every processor of 64 bits.
        settings["cmake.define.Python_INCLUDE_DIR"] = sysconfig.get_path("include")
        flags += f" -idirafter {python_config(BUILD / 'include')}"
        env["_PYTHON_HOST_PLATFORM"] = f"linux-{target.ARCH}"
        env["CMAKE_TOOLCHAIN_FILE"] = str(target.TOOLCHAIN)
    settings["cmake.define.CMAKE_CXX_FLAGS"] = flags
    options = [f"--config-settings={name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", *options, "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, env=env)
    (wheel,) = folder.glob("*.whl")
    return wheel


def repair(wheel: Path, folder: Path) -> Path:
    """The same wheel under the platform tag that auditwheel grants. It adds no library."""
    # For another processor it takes no platform by name, and finds the oldest that will do.
    platform = "auto" if target.CROSS else target.PLATFORM
    command = [sys.executable, "-m", "auditwheel", "repair", "--plat", platform]
    command += [f"--exclude={library}" for library in torch_wheels.LINKED]
    subprocess.run([*command, "--wheel-dir", str(folder), str(wheel)], check=True)
    (repaired,) = folder.glob("*.whl")
    return repaired


def commit() -> str:
    """The commit of the tree, with "-dirty" if files were changed."""
    return git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")


def git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--check"] and len(arguments) == 2:
        found = list(violations(Path(arguments[1])))
        print("\n".join(found), end="\n" if found else "")
        return bool(found)
    real = arguments == ["--real"]
    if arguments and not real:
        raise SystemExit(__doc__)
    # The times of files in the wheel; scikit-build-core and auditwheel know it.
    os.environ.setdefault("SOURCE_DATE_EPOCH", git("log", "-1", "--format=%ct"))
    if real:
        shutil.rmtree(BUILD, ignore_errors=True)
    for group in torch_wheels.groups():
        torch_wheels.provide(group[0], check=not real)
        for minor in group if real else []:
            torch_wheels.provide_real(minor)
        torch_wheels.write_stand_ins(group[0], real=real)
    with tempfile.TemporaryDirectory() as scratch:
        plain, tagged = Path(scratch) / "plain", Path(scratch) / "tagged"
        try:
            wheel = repair(build(plain), tagged)
        except subprocess.CalledProcessError as error:
            hint = "; a symbol that no list has: `make wheel-check`" if not real else ""
            raise SystemExit(f"the wheel is not built: {error}{hint}") from error
        found = list(violations(wheel, torch_wheels.real_symbols if real else None))
        if real:
            first = wheel.read_bytes()
            shutil.rmtree(BUILD)
            again = repair(build(Path(scratch) / "again"), Path(scratch) / "again tagged")
            if again.read_bytes() != first:
                found.append(f"{wheel.name}: a second build has other bytes")
        if found:
            print("\n".join(found), file=sys.stderr)
            return 1
        if real:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(scratch)
            write_lists(Path(scratch) / "tensor_bridge")
        DIST.mkdir(exist_ok=True)
        for old in DIST.glob(f"*_{target.ARCH}.whl"):
            old.unlink()
        COMMIT.write_text(commit() + "\n", encoding="utf-8")
        shutil.copy(wheel, DIST)
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        print(f"dist/{wheel.name}: {wheel.stat().st_size:,} bytes, sha256 {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
