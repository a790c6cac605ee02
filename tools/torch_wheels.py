"""Headers and symbols of each supported torch release, for building adapters without torch.

    python tools/torch_wheels.py [--real] [MINOR...]      # e.g. 2.8 2.10; by default all

Keeps in build/torch/<minor>/torch (for another processor in build/torch-<processor>), of each
release:

    include/             of the first release of each group, read out of its wheel
    share/cmake/         the file that says which of libstdc++'s ABIs it is built for
    lib/libc10.so ...    stand-ins to link against: no code, but every symbol of the list, so that
                         the linker finds what is missing
    real/libc10.gz ...   with --real: all names that the real library exports

The lists are tools/torch_symbols/<processor>/<minor>.txt: of which wheel, and which of its symbols
the adapters use. `make wheel-check` writes them anew from the real libraries.
"""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import remote_wheel
import target

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "build" / f"torch{target.SUFFIX}"
LISTS = Path(__file__).resolve().parent / "torch_symbols" / target.ARCH
# For each minor, the release whose wheel is read.
RELEASES = {
    "2.6": "2.6.0",
    "2.7": "2.7.1",
    "2.8": "2.8.0",
    "2.9": "2.9.1",
    "2.10": "2.10.0",
    "2.11": "2.11.0",
    "2.12": "2.12.1",
    "2.13": "2.13.0",
    "2.14": "2.14.1",
    "2.15": "2.15.0",
}
# The libraries to link against, and the one in which a function is looked up.
LINKED = ("libc10.so", "libtorch_cpu.so")
SEARCHED = "libtorch_python.so"
# Says which of libstdc++'s ABIs the wheel is built for.
CONFIG = "torch/share/cmake/Torch/TorchConfig.cmake"
# Kept in another way by an earlier release of this tool: read again.
_FORMAT = 3
# Functions of libstdc++ that leak out of some builds of libtorch_cpu; the real ones are to be used.
_STANDARD = re.compile(r"_Z(?:N|NK|T[ISV])?S[tsabiod]")
_SECTIONS = {"FUNC": ".text", "OBJECT": ".data", "TLS": '.tbss,"awT",@nobits'}
_TYPES = {"FUNC": "function", "OBJECT": "object", "TLS": "tls_object"}


def groups() -> list[list[str]]:
    """The minors that share an adapter, as cmake/torch_groups.cmake lists them."""
    text = (ROOT / "cmake" / "torch_groups.cmake").read_text(encoding="utf-8")
    (line,) = re.findall(r"set\(TB_TORCH_GROUPS (.+)\)", text)
    return [group.split() for group in re.findall(r'"([^"]+)"', line)]


def directory(minor: str) -> Path:
    """The kept files of a release, laid out like an installed torch."""
    return CACHE / minor / "torch"


@dataclass
class Listed:
    """What is committed of a release: its wheel, and the symbols by library that adapters use."""

    wheel: str = ""
    sha256: str = ""
    record_sha256: str = ""
    # Name -> type of the symbol.
    symbols: dict[str, dict[str, str]] = field(default_factory=dict)

    @staticmethod
    def read(minor: str) -> Listed:
        path = LISTS / f"{minor}.txt"
        if not path.exists():
            raise SystemExit(f"no {path.relative_to(ROOT)}; `make wheel-check` writes it")
        listed = Listed()
        for line in path.read_text("utf-8").splitlines():
            words = line.split()
            if line.startswith("#"):
                continue
            if len(words) == 2:
                setattr(listed, words[0], words[1])
            else:
                listed.symbols.setdefault(words[0], {})[words[2]] = words[1]
        return listed

    def write(self, minor: str) -> None:
        lines = [
            "# Written by `make wheel-check`: a wheel, and what of it the adapters use.",
            f"wheel {self.wheel}",
            f"sha256 {self.sha256}",
            f"record_sha256 {self.record_sha256}",
        ]
        for library, names in sorted(self.symbols.items()):
            lines += [f"{library} {kind} {name}" for name, kind in sorted(names.items())]
        LISTS.mkdir(parents=True, exist_ok=True)
        (LISTS / f"{minor}.txt").write_text("\n".join(lines) + "\n", "utf-8")


def symbols(minor: str, library: str) -> dict[str, str]:
    """Names and types of the symbols of the list."""
    return Listed.read(minor).symbols.get(library, {})


def real_symbols(minor: str, library: str) -> dict[str, str]:
    """All that the real library exports; after provide_real()."""
    path = directory(minor) / "real" / f"{library}.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    return dict(line.split()[::-1] for line in lines)


def exported(library: Path) -> dict[str, str]:
    """Name and type of each symbol that the library defines for others."""
    command = ["readelf", "--dyn-syms", "--wide", library]
    found = {}
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for line in printed.splitlines():
        # Num: Value Size Type Bind Vis Ndx Name; on aarch64 also a note in brackets before the Ndx.
        words = re.sub(r"\[[^]]*\]", "", line).split()
        if len(words) < 8 or words[6] == "UND" or words[4] == "LOCAL" or words[7] == "Name":
            continue
        found[words[7].split("@")[0]] = words[3] if words[3] in _TYPES else "FUNC"
    return found


def write_stand_in(library: Path, defined: dict[str, str]) -> None:
    """A library with those symbols and nothing behind them."""
    lines = []
    for kind, section in _SECTIONS.items():
        lines.append(f".section {section}")
        for name, its_kind in sorted(defined.items()):
            if its_kind == kind and not _STANDARD.match(name):
                lines.append(f".globl {name}\n.type {name},@{_TYPES[kind]}\n.size {name},8")
                lines.append(f"{name}:")
        lines.append(".zero 8")
    source = library.with_suffix(".s")
    source.write_text("\n".join([*lines, '.section .note.GNU-stack,"",@progbits', ""]))
    command = [target.tool("gcc"), "-shared", "-nostdlib", f"-Wl,-soname,{library.name}"]
    command += ["-o", str(library), str(source)]
    subprocess.run(command, check=True)
    source.unlink()


def write_stand_ins(minor: str, *, real: bool) -> None:
    lib = directory(minor) / "lib"
    lib.mkdir(parents=True, exist_ok=True)
    for library in LINKED:
        write_stand_in(lib / library, (real_symbols if real else symbols)(minor, library))


def _read(minor: str, part: str, take: Iterable[str], *, check: bool) -> remote_wheel.Wheel:
    """Members of the release's wheel, below `part`; with `check` it has to be that of the list."""
    release = RELEASES[minor]
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = directory(minor).parent
    with (
        tempfile.TemporaryDirectory(dir=CACHE) as scratch,
        remote_wheel.opened("torch", release, Path(scratch)) as wheel,
    ):
        if check:
            listed = Listed.read(minor)
            found = (wheel.name, wheel.sha256, wheel.record_sha256)
            if found != (listed.wheel, listed.sha256, listed.record_sha256):
                raise SystemExit(
                    f"torch {release}: pip chooses {found}, and "
                    f"{LISTS.relative_to(ROOT)}/{minor}.txt is of "
                    f"{(listed.wheel, listed.sha256, listed.record_sha256)}. Let pip use PyPI, "
                    "or write the lists anew with `make wheel-check`"
                )
        names = [name for name in wheel.archive.namelist() if name.startswith(tuple(take))]
        shutil.rmtree(folder / "torch" / part, ignore_errors=True)
        wheel.extract((name for name in names if not name.endswith("/")), folder)
        print(f"torch {release}: {wheel.fetched / 1e6:.1f} MB of {wheel.name}", flush=True)
        return wheel


def _mark(minor: str) -> str:
    return f"{RELEASES[minor]} {_FORMAT}"


def _is_kept(minor: str, what: str) -> bool:
    mark = directory(minor) / what
    return mark.exists() and mark.read_text("utf-8") == _mark(minor)


def provide(minor: str, *, check: bool = True) -> Path:
    """The directory of a release with its headers; reads what is not there yet."""
    if not _is_kept(minor, "headers.complete"):
        _read(minor, "include", ["torch/include/", CONFIG], check=check)
        (directory(minor) / "headers.complete").write_text(_mark(minor), "utf-8")
    return directory(minor)


def provide_real(minor: str) -> Listed:
    """The names that the real libraries export, and which wheel they are of."""
    folder = directory(minor) / "real"
    if not _is_kept(minor, "real.complete"):
        libraries = [f"torch/lib/{library}" for library in (*LINKED, SEARCHED)]
        wheel = _read(minor, "lib", libraries, check=False)
        folder.mkdir(exist_ok=True)
        for path in libraries:
            library = directory(minor).parent / path
            lines = "".join(f"{kind} {name}\n" for name, kind in sorted(exported(library).items()))
            (folder / f"{library.name}.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
            library.unlink()
        (folder / "wheel.txt").write_text(f"{wheel.name} {wheel.sha256} {wheel.record_sha256}")
        (directory(minor) / "real.complete").write_text(_mark(minor), "utf-8")
    return Listed(*(folder / "wheel.txt").read_text("utf-8").split())


def main(arguments: list[str]) -> int:
    real = "--real" in arguments
    for minor in [each for each in arguments if each != "--real"] or RELEASES:
        print(provide(minor, check=not real), flush=True)
        if real:
            provide_real(minor)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
