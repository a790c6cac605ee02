"""Checks the exports, dependencies and hardening of the built libraries.

    python tools/binaries.py            # prints the differences
    python tools/binaries.py --update   # writes exported_symbols/ anew

The libraries are those of the installed package, or of the folder in TENSOR_BRIDGE_LIB_DIR.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import target

LISTS = Path(__file__).resolve().parents[1] / "tests" / "lint" / "exported_symbols"
ADAPTER = re.compile(r"^libtensor_bridge_torch_\d+_\d+\.so$")

# Libraries that every shared library of a C++ program may need.
RUNTIME = {
    "libstdc++.so.6",
    "libgcc_s.so.1",
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
}
# List of symbols -> the libraries that such a library must need besides RUNTIME, and no others.
NEEDED = {
    "libtensor_bridge": set(),
    "torch_adapter": {"libc10.so", "libtorch_cpu.so"},
    "_C": {"libtensor_bridge.so"},
}
# ... and the run path it has.
RUNPATH = {"libtensor_bridge": [], "torch_adapter": [], "_C": ["$ORIGIN"]}
# Functions of _FORTIFY_SOURCE that each library must call. Libraries not listed here call none.
CHECKED = {"libtensor_bridge": {"__snprintf_chk", "__vsnprintf_chk"}}


def kind_of(library: Path) -> str | None:
    """The name of the list for `library`, or None for a foreign file."""
    if library.name == "libtensor_bridge.so":
        return "libtensor_bridge"
    if library.name == "_C.abi3.so":
        return "_C"
    return "torch_adapter" if ADAPTER.match(library.name) else None


def library_dir() -> Path:
    """The folder of this build's libraries, found without importing the package."""
    given = os.environ.get("TENSOR_BRIDGE_LIB_DIR")
    if given:
        return Path(given)
    package = importlib.util.find_spec("tensor_bridge")
    for place in (package.submodule_search_locations or []) if package else []:
        if (Path(place) / "libtensor_bridge.so").exists():
            return Path(place)
    raise FileNotFoundError("no built tensor_bridge: run `make build` or set TENSOR_BRIDGE_LIB_DIR")


def libraries() -> dict[str, list[Path]]:
    """The built libraries, by the list they are held to."""
    found: dict[str, list[Path]] = {kind: [] for kind in NEEDED}
    for library in sorted(library_dir().glob("*.so")):
        kind = kind_of(library)
        if kind is not None:
            found[kind].append(library)
    return found


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def exported(library: Path) -> set[str]:
    """The names that `library` defines for others."""
    lines = run(target.tool("nm"), "-D", "--defined-only", str(library)).splitlines()
    return {line.split()[-1] for line in lines}


def dynamic(library: Path) -> tuple[set[str], list[str]]:
    """The names of the libraries that `library` needs, and its run path."""
    text = run("readelf", "--dynamic", "--wide", str(library))
    needed = set(re.findall(r"\(NEEDED\).*\[(.+)\]", text))
    paths = re.findall(r"\((?:RUNPATH|RPATH)\).*\[(.*)\]", text)
    return needed, [path for entry in paths for path in entry.split(":") if path]


def planned(kind: str) -> set[str]:
    text = (LISTS / f"{kind}.txt").read_text(encoding="utf-8")
    return {line for line in text.splitlines() if line and not line.startswith("#")}


def symbol_violations(library: Path, allowed: set[str]) -> list[str]:
    """How the exports of `library` differ from `allowed`."""
    names = exported(library)
    return [f"{library.name} exports {name}, unplanned" for name in sorted(names - allowed)] + [
        f"{library.name} does not export {name}" for name in sorted(allowed - names)
    ]


def has_erased_path(library: Path) -> bool:
    """Whether a run path was erased: zeros among the names, as many as the path had characters."""
    sections = run("readelf", "--sections", "--wide", str(library))
    (place,) = re.findall(r"\.dynstr\s+STRTAB\s+\w+\s+(\w+)\s+(\w+)", sections)
    offset, size = (int(number, 16) for number in place)
    return b"\0\0" in library.read_bytes()[offset : offset + size]


def dynamic_violations(library: Path, required: set[str], runpath: list[str]) -> list[str]:
    """How the dependencies of `library` differ from `required`, and its run path from `runpath`."""
    needed, paths = dynamic(library)
    found = [f"{library.name} needs {name}" for name in sorted(needed - required - RUNTIME)]
    found += [f"{library.name} does not need {name}" for name in sorted(required - needed)]
    if paths != runpath:
        found.append(f"{library.name} has the run path {paths}, expected {runpath}")
    if has_erased_path(library):
        found.append(
            f"{library.name} has room of an erased run path: SKIP_BUILD_RPATH keeps it away"
        )
    return found


def taken(library: Path) -> set[str]:
    """The names that `library` takes from others, without their versions."""
    lines = run(target.tool("nm"), "-D", "--undefined-only", str(library)).splitlines()
    return {line.split()[-1].partition("@")[0] for line in lines}


def hardening_violations(library: Path, checked: set[str]) -> list[str]:
    """The hardening of cmake/compile_options.cmake that `library` lacks."""
    names = taken(library)
    flags = re.findall(
        r"\((?:FLAGS|FLAGS_1)\)(.*)", run("readelf", "--dynamic", "--wide", str(library))
    )
    headers = run("readelf", "--program-headers", "--wide", str(library))
    found = []
    if not re.search(r"\b(?:BIND_NOW|NOW)\b", " ".join(flags)):
        found.append("binds symbols when they are used (-z now)")
    if "GNU_RELRO" not in headers:
        found.append("has a writable table of symbols (-z relro)")
    if re.search(r"GNU_STACK.*\bRWE\b", headers):
        found.append("has an executable stack (-z noexecstack)")
    if "__stack_chk_fail" not in names:
        found.append("does not check its stack (-fstack-protector-strong)")
    found += [f"does not call {name} (_FORTIFY_SOURCE)" for name in sorted(checked - names)]
    return [f"{library.name} {each}" for each in found]


def main(arguments: list[str]) -> int:
    update = arguments == ["--update"]
    if arguments and not update:
        raise SystemExit(__doc__)
    differences = []
    for kind, built in libraries().items():
        for library in built:
            if update:
                names = "\n".join(sorted(exported(library)))
                text = f"# Written by tools/binaries.py --update.\n{names}\n"
                (LISTS / f"{kind}.txt").write_text(text, encoding="utf-8")
            else:
                differences += symbol_violations(library, planned(kind))
                differences += dynamic_violations(library, NEEDED[kind], RUNPATH[kind])
                differences += hardening_violations(library, CHECKED.get(kind, set()))
    print("\n".join(differences), end="\n" if differences else "")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
