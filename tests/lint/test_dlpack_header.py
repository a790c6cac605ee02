"""The choice of the build among the DLPack headers of torch, TensorFlow and tvm-ffi.

The compiler decides whether a real header is usable; generated headers are tried in every order.
"""

from __future__ import annotations

import importlib.util
import itertools
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from cmake_script import run_cmake
from tree import ROOT, files

FLAG = "DLPACK_FLAG_BITMASK_IS_COPIED"
TORCH = "torch/include/ATen/dlpack.h"
TENSORFLOW = "tensorflow/include/external/dlpack/include/dlpack/dlpack.h"
TVM_FFI = "tvm_ffi/include/dlpack/dlpack.h"
# Declarations that every header of a version has, as written in a header.
_COMMON = ["struct DLManagedTensorVersioned {};", "#define DLPACK_FLAG_BITMASK_READ_ONLY 1"]
_FLAG = [f"#define {FLAG} 2"]
_EXCHANGE = [
    "struct DLPackExchangeAPI { int managed_tensor_allocator;",
    "int managed_tensor_from_py_object_no_sync; int managed_tensor_to_py_object_no_sync;",
    "int dltensor_from_py_object_no_sync; int current_work_stream; };",
]


def made(major: int, minor: int, *lines: str) -> str:
    """A header with a version and these lines."""
    version = [f"#define DLPACK_MAJOR_VERSION {major}", f"#define DLPACK_MINOR_VERSION {minor}"]
    return "\n".join([*version, *lines, ""])


# Each header's text, and its minor version if it can be used.
HEADERS = {
    "0.8": ("#define DLPACK_VERSION 80\n", None),
    "0.9 in two numbers": (made(0, 9, *_COMMON, *_FLAG), None),
    "1.0": (made(1, 0, *_COMMON), None),
    "1.0 that speaks of the flag": (made(1, 0, *_COMMON, f"// \\sa {FLAG}"), None),
    "1.0 with the flag": (made(1, 0, *_COMMON, *_FLAG), 0),
    "1.1": (made(1, 1, *_COMMON, *_FLAG), 1),
    "1.2 without the exchange API": (made(1, 2, *_COMMON, *_FLAG), None),
    "1.3": (made(1, 3, *_COMMON, *_FLAG, *_EXCHANGE), 3),
    "1.10": (made(1, 10, *_COMMON, *_FLAG, *_EXCHANGE), 10),
    "2.0": (made(2, 0, *_COMMON, *_FLAG, *_EXCHANGE), None),
    "no header": ("an error page; [of] a proxy\n", None),
    "absent": (None, None),
}


def installed(package: str, header: str) -> Path:
    """A header of the environment that runs the tests."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations))).parent / header


def real_headers() -> dict[str, Path]:
    kept = ROOT / "tests" / "data" / "dlpack"
    return {
        "TensorFlow 2.16": kept / "tensorflow_2_16.txt",
        "torch 2.9": kept / "torch_2_9.txt",
        "this torch": installed("torch", TORCH),
        "this TensorFlow": installed("tensorflow", TENSORFLOW),
        "this tvm-ffi": installed("tvm_ffi", TVM_FFI),
    }


def choose(folder: Path, orders: list[tuple[Path, ...]]) -> list[str]:
    """The header that CMake chooses from each list; "" for none."""
    lines = ["include(wheels)"]
    for order in orders:
        headers = ";".join(map(str, order))
        lines += [f'tb_choose_dlpack("{headers}" chosen said)', 'message("<${chosen}>")']
    ok, text = run_cmake(folder, "\n".join(lines))
    assert ok, text
    return re.findall("<([^>]*)>", text)


def test_the_newest_header_that_can_be_used_is_taken_in_every_order(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"header_{i}.h" for i, name in enumerate(HEADERS)}
    for name, (text, _) in HEADERS.items():
        if text is not None:
            paths[name].write_text(text, encoding="utf-8")
    orders = [order for length in (1, 2, 3) for order in itertools.permutations(HEADERS, length)]
    taken = choose(tmp_path, [tuple(paths[name] for name in order) for order in orders])
    assert len(taken) == len(orders)
    for order, path in zip(orders, taken, strict=True):
        usable = [name for name in order if HEADERS[name][1] is not None]
        best = max(usable, key=lambda name: HEADERS[name][1] or 0, default=None)
        assert path == ("" if best is None else str(paths[best])), order


def test_of_equal_headers_the_first_is_taken(tmp_path: Path) -> None:
    text = HEADERS["1.3"][0]
    assert text is not None
    first, second = tmp_path / "a.h", tmp_path / "b.h"
    for path in (first, second):
        path.write_text(text, encoding="utf-8")
    assert choose(tmp_path, [(first, second), (second, first)]) == [str(first), str(second)]


def compiles(folder: Path, header: Path) -> bool:
    """Whether the sources whose names are not in every release of DLPack compile with a header."""
    target = folder / "include" / "dlpack" / "dlpack.h"
    target.parent.mkdir(parents=True)
    target.write_bytes(header.read_bytes())
    named = re.compile(r"\b(?:DLPACK_[FM]\w+|DLPackExchangeAPI)\b")
    sources = [ROOT / name for name, text in files("src/*.cc") if named.search(text)]
    assert len(sources) >= 3
    command = ["g++", "-std=c++17", "-fsyntax-only", "-w", "-DPy_LIMITED_API=0x030a0000"]
    command += [f"-I{ROOT / 'include'}", f"-I{ROOT / 'src'}", f"-isystem{folder / 'include'}"]
    command += [f"-isystem{sysconfig.get_path('include')}", *map(str, sources)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize("name", real_headers())
def test_a_header_is_taken_exactly_when_the_sources_compile_with_it(
    name: str, tmp_path: Path
) -> None:
    header = real_headers()[name]
    (taken,) = choose(tmp_path, [(header,)])
    assert (taken == str(header)) == compiles(tmp_path, header)


def test_of_the_real_headers_one_is_refused_in_spite_of_its_version() -> None:
    text = real_headers()["TensorFlow 2.16"].read_text(encoding="utf-8")
    assert "#define DLPACK_MAJOR_VERSION 1\n" in text
    assert FLAG not in text


def environment(folder: Path, **headers: str) -> None:
    """Packages with headers, as pip lays them out."""
    for slot, name in headers.items():
        path = folder / {"torch": TORCH, "tensorflow": TENSORFLOW, "tvm_ffi": TVM_FFI}[slot]
        path.parent.mkdir(parents=True)
        (folder / slot / "__init__.py").touch()
        text = HEADERS[name][0] if name in HEADERS else real_headers()[name].read_text("utf-8")
        assert text is not None
        path.write_text(text, encoding="utf-8")


def provide(folder: Path) -> tuple[bool, str]:
    """Configures like a build in that environment."""
    tensorflow = folder / "tensorflow"
    script = (
        f'set(Python_EXECUTABLE "{sys.executable}")\ninclude(wheels)\n'
        f'tb_provide_dlpack("{folder / "torch"}" "{tensorflow if tensorflow.exists() else ""}")\n'
    )
    return run_cmake(folder, script, PYTHONPATH=str(folder))


@pytest.mark.parametrize("torch", ["0.8", "1.0"])
def test_tvm_ffi_is_taken_beside_an_old_torch_and_an_old_tensorflow(
    tmp_path: Path, torch: str
) -> None:
    environment(tmp_path, torch=torch, tensorflow="TensorFlow 2.16", tvm_ffi="this tvm-ffi")
    ok, text = provide(tmp_path)
    assert ok, text
    copied = (tmp_path / "include/dlpack/dlpack.h").read_bytes()
    assert copied == real_headers()["this tvm-ffi"].read_bytes()


def test_where_none_can_be_used_the_remedy_comes_first_then_what_was_found_and_where(
    tmp_path: Path,
) -> None:
    environment(tmp_path, torch="0.8", tensorflow="TensorFlow 2.16", tvm_ffi="2.0")
    ok, text = provide(tmp_path)
    assert not ok
    found = [
        f"{tmp_path / TORCH}: DLPack 0.8 is not of version 1",
        f"{tmp_path / TENSORFLOW}: DLPack 1.0 without {FLAG}",
        f"{tmp_path / TVM_FFI}: DLPack 2.0 is not of version 1",
    ]
    places = [text.index(part) for part in ("pip install apache-tvm-ffi", *found)]
    assert places == sorted(places)
    assert "--no-build-isolation" in text
    assert not (tmp_path / "include/dlpack").exists()
