"""Files that appear under their name when they are complete, or not at all."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensor_bridge import _convert
from tensor_bridge.errors import InvalidOptionError

if TYPE_CHECKING:
    import torch

__all__ = ["Output", "dense_bytes", "naming", "outputs"]


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Has errors of the operating system name this file, not one that nobody asked for."""
    try:
        yield
    except FileNotFoundError as e:
        raise InvalidOptionError(
            f"{path}: expected a folder that exists, there is no {path.parent}; make it first"
        ) from e
    except OSError as e:
        raise OSError(e.errno, e.strerror, str(path)) from e


class Output:
    """A file that is being written; ``path`` is its name at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with naming(path):
            self.fd = os.open(self._partial, flags, 0o666)

    def write(self, data: Any) -> None:
        """Appends any bytes-like object."""
        with naming(self.path), memoryview(data) as view:
            done = 0
            while done < view.nbytes:
                done += os.write(self.fd, view[done : done + (64 << 20)])

    def close(self) -> None:
        """Ends the writing; the name is still the partial one."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def publish(self) -> None:
        """Gives the file its name."""
        with naming(self.path):
            self._partial.replace(self.path)

    def discard(self) -> None:
        """Removes what there is."""
        self.close()
        self._partial.unlink(missing_ok=True)


@contextmanager
def outputs(paths: list[Path], overwrite: bool) -> Iterator[list[Output]]:
    """Files to write, which get their names in this order after the block, if it does not raise.

    Raises:
      InvalidOptionError: One exists, and ``overwrite`` is off.
    """
    for path in paths:
        if path.exists() and not overwrite:
            raise InvalidOptionError(f"{path} exists; overwrite=True replaces it")
    files: list[Output] = []
    try:
        for path in paths:
            files.append(Output(path))
        yield files
        for file in files:
            file.close()
        for file in files:
            file.publish()
    except BaseException:  # an interrupt too leaves nothing behind
        for file in files:
            file.discard()
        raise


def dense_bytes(x: torch.Tensor) -> tuple[torch.Tensor, memoryview]:
    """The elements row by row, as memory that lives as long as the tensor beside it.

    Nothing is copied if the tensor is on the CPU and contiguous; a protected one stays shared.
    """
    x = x.detach().cpu().contiguous().resolve_conj().resolve_neg()
    size = x.numel() * x.element_size()
    if size == 0:
        return x, memoryview(b"")
    array = (ctypes.c_ubyte * size).from_address(_convert.torch_address(x))
    return x, memoryview(array).cast("B")
