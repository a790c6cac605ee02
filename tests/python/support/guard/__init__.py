"""TensorFlow tensors over read-only pages, for tests that must see every write.

Python interface of `guard.cc`, which is compiled at first use. A tensor made here has its bytes in
read-only pages; a write (also of equal bytes) and an access after TensorFlow released the memory
are recorded with the name of the running operator, and then allowed. It is not a sandbox: system
calls that write into the pages fail with EFAULT and are not recorded.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

_SOURCE = Path(__file__).with_name("guard.cc")
_BUILD_FOLDER = Path(__file__).resolve().parents[4] / "build" / "tests-guard"
_MAX_FAULTS = 1 << 12
_KINDS = {1: "write", 2: "use after release"}


class Fault(NamedTuple):
    """One recorded access."""

    kind: str
    operator: str
    region: int
    offset: int


class GuardedTensor(NamedTuple):
    """A TensorFlow tensor and the region of read-only memory that holds its bytes."""

    tensor: tf.Tensor
    region: int
    address: int


class _FaultRecord(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_int32),
        ("region", ctypes.c_int32),
        ("op", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
        ("offset", ctypes.c_int64),
    )


def build() -> Path:
    """Compiles `guard.cc` unless the library is newer than it; safe in parallel test processes."""
    library = _BUILD_FOLDER / "libtb_guard.so"
    if library.exists() and library.stat().st_mtime > _SOURCE.stat().st_mtime:
        return library
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        raise RuntimeError("the write guard needs a C++ compiler: install g++, or set CXX")
    _BUILD_FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_BUILD_FOLDER) as folder:
        fresh = Path(folder) / library.name
        command = [*compiler.split(), "-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror"]
        command += ["-fPIC", "-shared", "-fvisibility=hidden", str(_SOURCE), "-o", str(fresh)]
        done = subprocess.run([*command, "-ldl"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"the write guard does not compile:\n{done.stderr}")
        fresh.replace(library)
    return library


class Guard:
    """The process's write detector. Get it from `guard()`."""

    def __init__(self, library: Path) -> None:
        # PyDLL: the functions that make a tensor run Python code and need the GIL.
        lib = ctypes.PyDLL(str(library))
        lib.tbg_error.restype = ctypes.c_char_p
        lib.tbg_region_address.restype = ctypes.c_void_p
        lib.tbg_eager_tensor.restype = ctypes.py_object
        lib.tbg_eager_tensor.argtypes = (
            ctypes.c_int,
            ctypes.POINTER(ctypes.c_int64),
            ctypes.c_int,
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.POINTER(ctypes.c_int),
        )
        self._lib = lib
        self._operators: list[str] = []
        self._records = (_FaultRecord * _MAX_FAULTS)()
        # EagerTensorFromHandle needs the eager context, which the first tensor makes.
        tf.constant(0.0)
        if lib.tbg_load() != 0:
            raise RuntimeError(lib.tbg_error().decode())

    def tensor(
        self, address: int, nbytes: int, dtype: tf.DType, shape: Sequence[int]
    ) -> GuardedTensor:
        """Makes an eager tensor whose memory is a read-only copy of `nbytes` at `address`."""
        dims = (ctypes.c_int64 * len(shape))(*shape)
        region = ctypes.c_int(-1)
        try:
            made: Any = self._lib.tbg_eager_tensor(
                dtype.as_datatype_enum, dims, len(shape), address, nbytes, ctypes.byref(region)
            )
        except ValueError as error:  # ctypes' word for a null PyObject* without a Python error
            raise RuntimeError(self._lib.tbg_error().decode()) from error
        return GuardedTensor(made, region.value, self._lib.tbg_region_address(region.value))

    @contextlib.contextmanager
    def armed(self) -> Iterator[Guard]:
        """Takes SIGSEGV for a while; faults outside guarded memory go to the previous handler."""
        if self._lib.tbg_arm() != 0:
            raise RuntimeError("SIGSEGV's handler could not be installed")
        try:
            yield self
        finally:
            if self._lib.tbg_disarm() != 0:
                raise RuntimeError("somebody else took SIGSEGV while the guard was armed")

    @contextlib.contextmanager
    def operator(self, name: str) -> Iterator[None]:
        """Names what runs inside: faults are recorded under `name`."""
        self._operators.append(name)
        self._lib.tbg_set_operator(len(self._operators) - 1)
        try:
            yield
        finally:
            self._lib.tbg_set_operator(-1)

    def is_armed(self) -> bool:
        """Whether SIGSEGV comes to the guard first right now."""
        return bool(self._lib.tbg_armed())

    def take_faults(self) -> list[Fault]:
        """The accesses recorded since the last call."""
        count = min(self._lib.tbg_take_faults(self._records, _MAX_FAULTS), _MAX_FAULTS)
        faults = []
        for record in self._records[:count]:
            name = self._operators[record.op] if record.op >= 0 else "outside any operator"
            faults.append(Fault(_KINDS[record.kind], name, record.region, record.offset))
        self._operators.clear()
        return faults

    def changed(self, guarded: GuardedTensor) -> bool:
        """Whether a tensor that TensorFlow still holds has other bytes than it was made with."""
        return bool(self._lib.tbg_region_changed(guarded.region))

    def take_changed_at_release(self) -> int:
        """The number of tensors that had changed when TensorFlow released them."""
        return int(self._lib.tbg_take_changed())

    def live_regions(self) -> int:
        """The number of guarded buffers that TensorFlow, or a sharer, still holds."""
        return int(self._lib.tbg_live_regions())

    def reclaim(self) -> None:
        """Unmaps released buffers: accesses to them were recorded, from now on they crash."""
        self._lib.tbg_reclaim()


@functools.cache
def guard() -> Guard:
    """The one guard of this process."""
    return Guard(build())
