"""The three libraries export and need exactly what is planned, and are hardened."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from binaries import (
    CHECKED,
    NEEDED,
    RUNPATH,
    dynamic_violations,
    hardening_violations,
    has_erased_path,
    kind_of,
    libraries,
    planned,
    symbol_violations,
)
from tree import ROOT

KINDS = sorted(NEEDED)


@pytest.mark.parametrize("kind", KINDS)
def test_each_library_is_built(kind: str) -> None:
    assert libraries()[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_exported_symbols_are_the_planned_ones(kind: str) -> None:
    found = [v for library in libraries()[kind] for v in symbol_violations(library, planned(kind))]
    assert not found, "\n".join([*found, "If planned: python tools/binaries.py --update"])


def declared(header: str) -> set[str]:
    """The functions that a C header exports."""
    return set(re.findall(r"^TB_EXPORT\b[^;]*?\b(\w+)\(", header, re.MULTILINE))


def test_the_planned_symbols_are_those_of_the_headers() -> None:
    headers = [ROOT / "include/tensor_bridge/c_api.h", ROOT / "src/c_api/private_api.h"]
    public, private = (declared(header.read_text(encoding="utf-8")) for header in headers)
    assert planned("libtensor_bridge") == public | private
    assert not public & private


def test_declarations_are_found_in_all_their_shapes() -> None:
    text = (
        "TB_EXPORT const char* tb_a(void);\n"
        "TB_EXPORT tb_status tb_b(struct X* x,\n                         int (*f)(int));\n"
        "typedef void (*tb_callback)(int);\n"
        "/* TB_EXPORT int tb_gone(void); */\n"
    )
    assert declared(text) == {"tb_a", "tb_b"}


@pytest.mark.parametrize("kind", KINDS)
def test_needed_libraries_are_the_planned_ones(kind: str) -> None:
    found = [
        violation
        for library in libraries()[kind]
        for violation in dynamic_violations(library, NEEDED[kind], RUNPATH[kind])
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("kind", KINDS)
def test_the_libraries_are_hardened(kind: str) -> None:
    found = [
        v
        for library in libraries()[kind]
        for v in hardening_violations(library, CHECKED.get(kind, set()))
    ]
    assert not found, "\n".join(found)


def undefined(library: Path) -> set[tuple[str, str, tuple[int, ...]]]:
    """(function, library's name in the version, version) of each imported function."""
    names = subprocess.run(
        ["nm", "-D", "--undefined-only", library], check=True, capture_output=True, text=True
    ).stdout
    found = re.findall(r" (\w+)@+(GLIBC|GLIBCXX|CXXABI)_([\d.]+)", names)
    return {(name, of, tuple(map(int, version.split(".")))) for name, of, version in found}


def brought_along(folder: Path) -> set[str]:
    """The functions that the release wheel binds to an older version, or defines itself."""
    portable = ROOT / "cmake" / "portable"
    names = {n for path in portable.rglob("*.map") for n in re.findall(r"(\w+);", path.read_text())}
    sources = sorted(portable.glob("added*.cc"))
    subprocess.run(["g++", "-std=c++17", "-c", *sources], cwd=folder, check=True)
    listed = subprocess.run(
        ["nm", "--defined-only", *folder.glob("*.o")], check=True, capture_output=True, text=True
    ).stdout
    return names | {line.split()[-1] for line in listed.splitlines() if line}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_newer_than_the_wheel_s_systems_is_brought_along(kind: str, tmp_path: Path) -> None:
    """The wheel is for manylinux_2_28: glibc 2.28, and the libstdc++ of GCC 8."""
    newest = {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 25), "CXXABI": (1, 3, 11)}
    found = {
        name
        for library in libraries()[kind]
        for name, of, version in undefined(library)
        if version > newest[of]
    }
    assert found <= brought_along(tmp_path)


# A function with an array, and one that prints into it.
HARDENED = [
    "-O2",
    "-fstack-protector-strong",
    "-U_FORTIFY_SOURCE",
    "-D_FORTIFY_SOURCE=2",
    "-Wl,-z,now",
]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], []),
        (["-Wl,-z,lazy"], ["binds symbols when they are used"]),
        (["-Wl,-z,norelro"], ["has a writable table of symbols"]),
        (["-Wl,-z,execstack"], ["has an executable stack"]),
        (["-fno-stack-protector"], ["does not check its stack"]),
        (["-U_FORTIFY_SOURCE"], ["does not call __snprintf_chk"]),
        (["-O0"], ["does not call __snprintf_chk"]),
    ],
)
def test_a_library_that_lacks_hardening_is_found(
    tmp_path: Path, options: list[str], expected: list[str]
) -> None:
    source, library = tmp_path / "some.c", tmp_path / "some.so"
    source.write_text(
        "#include <stdio.h>\n"
        "int use(char*);\n"
        'int f(int x) { char text[16]; snprintf(text, 16, "%d", x); return use(text); }\n',
        encoding="utf-8",
    )
    command = ["gcc", "-w", "-shared", "-fPIC", *HARDENED, *options, source, "-o", library]
    subprocess.run(command, check=True)
    found = hardening_violations(library, {"__snprintf_chk"})
    assert [v.removeprefix("some.so ").partition(" (")[0] for v in found] == expected


def audit(extension: Path) -> subprocess.CompletedProcess[str]:
    options = ["--strict", "--verbose", "--assume-minimum-abi3", "3.10"]
    command = [sys.executable, "-m", "abi3audit", *options, str(extension)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def test_the_extension_stays_within_the_limited_api() -> None:
    (extension,) = libraries()["_C"]
    result = audit(extension)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    """A library that breaks every rule: exports, dependencies, run path, private CPython API."""
    source = tmp_path / "bad.cc"
    source.write_text(
        "#include <cmath>\n"
        'extern "C" void* _PyObject_GC_Malloc(unsigned long);\n'
        'extern "C" void* PyInit_bad() { return _PyObject_GC_Malloc(1); }\n'
        'extern "C" int unplanned() { return 1; }\n',
        encoding="utf-8",
    )
    library = tmp_path / "bad.abi3.so"
    flags = ["-shared", "-fPIC", "-Wl,--no-as-needed", "-lutil", "-latomic", "-Wl,-rpath,/opt/x"]
    subprocess.run(["g++", str(source), "-o", str(library), *flags], check=True)
    return library


def test_an_unplanned_export_is_found(compiled: Path) -> None:
    assert symbol_violations(compiled, {"PyInit_bad"}) == [
        "bad.abi3.so exports unplanned, unplanned"
    ]


def test_a_missing_export_is_found(compiled: Path) -> None:
    found = symbol_violations(compiled, {"PyInit_bad", "unplanned", "gone"})
    assert found == ["bad.abi3.so does not export gone"]


def test_an_unplanned_dependency_and_run_path_are_found(compiled: Path) -> None:
    found = dynamic_violations(compiled, {"libtorch_cpu.so"}, [])
    assert "bad.abi3.so does not need libtorch_cpu.so" in found
    assert any("needs libatomic" in violation for violation in found)
    assert any("run path ['/opt/x']" in violation for violation in found)


def test_private_python_api_is_found(compiled: Path) -> None:
    result = audit(compiled)
    assert result.returncode != 0
    assert "_PyObject_GC_Malloc" in result.stdout + result.stderr


def test_files_are_held_to_the_right_list() -> None:
    assert kind_of(Path("libtensor_bridge_torch_2_10.so")) == "torch_adapter"
    assert kind_of(Path("libtensor_bridge.so")) == "libtensor_bridge"
    assert kind_of(Path("libother.so")) is None


def test_an_erased_run_path_is_found(tmp_path: Path) -> None:
    library, folder = tmp_path / "lib.so", "/a/folder/of/a/build"
    command = ["gcc", "-shared", "-x", "c", "/dev/null", f"-Wl,-rpath,{folder}", "-o", str(library)]
    subprocess.run(command, check=True)
    assert not has_erased_path(library)
    built = library.read_bytes()
    assert built.count(folder.encode()) == 1
    library.write_bytes(built.replace(folder.encode(), bytes(len(folder))))
    assert has_erased_path(library)
