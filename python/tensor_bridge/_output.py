"""Files that appear under their name when they are complete, or not at all.

Every file that the package writes is written here. While it is written it has no name, if the file
system supports that: no existing file is opened, and a killed process leaves nothing behind. At the
end the file is synced to the disk, and linked or renamed to its name in one step of the kernel.
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensor_bridge import _dense
from tensor_bridge._folder import Folder
from tensor_bridge.errors import InvalidOptionError

if TYPE_CHECKING:
    import torch

# In pieces, so that an interrupt is handled soon.
_PIECE = 64 << 20
_ATTEMPTS = 12  # the last pause takes up to 4 s


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Makes errors of the operating system name this file, not an internal one."""
    try:
        yield
    except FileNotFoundError as e:
        raise InvalidOptionError(
            f"{path}: expected a folder that exists, there is no {path.parent}; make it first"
        ) from e
    except OSError as e:
        raise OSError(e.errno, e.strerror, str(path)) from e


class Output:
    """A file that is being written.

    Attributes:
      path: Its name at the end.
      fd: Its descriptor, to write to.
    """

    def __init__(
        self, path: Path, folder: Folder, *, like: Sequence[str] = (), mode: int = 0o666
    ) -> None:
        """Makes the file in the folder of ``path``.

        Args:
          path: Its final name.
          folder: Its folder, open.
          like: The files whose modes it keeps; ``path`` itself by default.
          mode: The mode if it replaces no file, reduced by umask.
        """
        self.path = path
        self._folder = folder
        self._like = like or (path.name,)
        with naming(path):
            for old in self._replaced():
                # Never broader than the final mode: whoever opens the file can read later bytes.
                mode &= old.st_mode
            self.fd, self._name = folder.create(mode)

    def _replaced(self) -> list[os.stat_result]:
        found = map(self._folder.stat, self._like)
        return [old for old in found if old is not None and stat.S_ISREG(old.st_mode)]

    @property
    def size(self) -> int:
        """The bytes so far."""
        return os.fstat(self.fd).st_size

    def write(self, data: Any) -> None:
        """Appends any bytes-like object."""
        with naming(self.path), memoryview(data) as view:
            done = 0
            while done < view.nbytes:
                done += os.write(self.fd, view[done : done + _PIECE])

    def write_at(self, offset: int, data: bytes) -> None:
        """Writes a few bytes over others."""
        with naming(self.path):
            os.pwrite(self.fd, data, offset)

    def sync(self) -> None:
        """Waits until all bytes are on the disk; otherwise the name could get there first."""
        with naming(self.path):
            os.fsync(self.fd)

    @contextmanager
    def scratch(self) -> Iterator[Output]:
        """A temporary file for the time of the block, invisible to others."""
        new = Output(self.path, self._folder, mode=0o600)
        try:
            new._remove_name()
            yield new
        finally:
            new.close()

    def copy(self) -> Output:
        """A copy of the file, on the disk."""
        new = Output(self.path, self._folder, like=self._like)
        try:
            size, at = self.size, 0
            while at < size:
                at += os.sendfile(new.fd, self.fd, at, min(_PIECE, size - at))
            new.sync()
        except BaseException:
            new.close()
            raise
        return new

    @property
    def in_place(self) -> bool:
        """Whether the name ``path`` belongs to this file."""
        found = self._folder.stat(self.path.name)
        return found is not None and os.path.samestat(found, os.fstat(self.fd))

    def add(self) -> None:
        """Gives the file its name. FileExistsError if the name is taken."""
        with naming(self.path):
            self._take_mode()
            if self._name:
                self._folder.move(self._name, self.path.name)
            else:
                self._folder.give_name(self.fd, self.path.name)

    def ready(self) -> str:
        """A name from which the file can be renamed to its own."""
        with naming(self.path):
            self._take_mode()
            if not self._name:
                self._name = self._folder.free_name()
                self._folder.give_name(self.fd, self._name)
        return self._name

    def _take_mode(self) -> None:
        own = os.fstat(self.fd)
        modes = [self._mode_after(old, own) for old in self._replaced()]
        if modes:
            mode = 0o777
            for other in modes:
                mode &= other
            os.fchmod(self.fd, mode)

    def _mode_after(self, old: os.stat_result, own: os.stat_result) -> int:
        if old.st_uid != own.st_uid:
            # Somebody may have left a file there in order to read what will be written.
            return old.st_mode & own.st_mode
        if old.st_gid != own.st_gid:
            try:
                os.fchown(self.fd, -1, old.st_gid)
            except PermissionError:  # then its new group may do what all others may
                return old.st_mode & ~0o070 | (old.st_mode & 0o007) << 3
        return old.st_mode

    def swap(self) -> bytes:
        """Gives the file its name; returns the replaced bytes, none of a large or special file."""
        name = self.ready()
        while True:
            with naming(self.path):
                try:
                    if self._folder.exchange(name, self.path.name):
                        return self._folder.read(name)
                except FileNotFoundError:
                    pass
                else:
                    old = self._folder.read(self.path.name)
                    self._folder.replace([name], [self.path.name])
                    return old
                try:
                    self._folder.move(name, self.path.name)
                except FileExistsError:
                    continue
                return b""

    def take_back(self) -> None:
        """Removes the file's name; a file that another writer put there stays."""
        if not self.in_place:
            return
        # Moved first, then checked: between a check and a removal the name could change hands.
        aside = self._folder.free_name()
        self._folder.move(self.path.name, aside)
        moved = self._folder.stat(aside)
        if moved is not None and not os.path.samestat(moved, os.fstat(self.fd)):
            with naming(self.path):
                self._folder.move(aside, self.path.name)
        else:
            # Not removed: a file without any name left cannot get a new one.
            self._name = aside

    def close(self) -> None:
        """Closes the file. A file that has no name by then is gone."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        self._remove_name()

    def _remove_name(self) -> None:
        if self._name:
            self._folder.remove(self._name)
            self._name = ""


def refuse(path: Path, folder: Folder, overwrite: bool) -> None:
    """Refuses in advance a target that cannot or must not be replaced."""
    with naming(path):
        found = folder.stat(path.name)
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise InvalidOptionError(
            f"{path}: expected the name of a file, got a folder; name a file in it"
        )
    if found is not None and not overwrite:
        raise _exists(path)


def _exists(path: Path) -> InvalidOptionError:
    return InvalidOptionError(f"{path} exists; overwrite=True replaces it")


@contextmanager
def outputs(paths: list[Path], overwrite: bool) -> Iterator[list[Output]]:
    """Files of one folder to write; they get their names after the block, if it does not raise.

    Several files belong together: of several concurrent writers, one has all its files at the end.

    Raises:
      InvalidOptionError: A file exists and ``overwrite`` is off, or it is a folder.
    """
    with naming(paths[0]):
        folder = Folder(paths[0].parent)
    files: list[Output] = []
    with folder:
        try:
            for path in paths:
                refuse(path, folder, overwrite)
                files.append(Output(path, folder))
            yield files
            for file in files:
                file.sync()
            if overwrite:
                _replace(files, folder)
            else:
                add(files)
            folder.sync()
        finally:
            for file in files:
                file.close()


def add(files: list[Output]) -> None:
    """Gives all files their names, or none of them.

    Raises:
      InvalidOptionError: One of the names is taken.
    """
    if (taken := try_to_add(files)) is not None:
        raise _exists(taken)


def try_to_add(files: list[Output]) -> Path | None:
    """Gives all files their names; or none of them, and returns the name that is taken."""
    path = None
    try:
        for file in files:
            path = file.path
            file.add()
    except FileExistsError:
        take_back(files)
        return path
    except BaseException:
        take_back(files)
        raise
    return None


def take_back(files: list[Output]) -> None:
    """Removes the names of files that still have them."""
    for file in files:
        file.take_back()


def _replace(files: list[Output], folder: Folder) -> None:
    """Gives files their names, and replaces existing files.

    The kernel renames one file at a time, so two writers may each end up with some of their files.
    Each checks after renaming, and renames again in that case. There is no lock, which others could
    hold: the last writer sees the final state, and stops only if all files are its own.
    """
    for attempt in range(_ATTEMPTS):
        names = [file.ready() for file in files]
        with naming(files[0].path):
            folder.replace(names, [file.path.name for file in files])
        if _settled(files):
            return
        # At most two writers get here, each with a part. The one that waits less ends it.
        time.sleep(random.uniform(0, 0.002 * 2**attempt))
        if _settled(files):
            return
        for number, file in enumerate(files):
            files[number] = file.copy()
            file.close()
    raise OSError(errno.EBUSY, "other writers replace these files all the time", str(files[0].path))


def _settled(files: list[Output]) -> bool:
    """Whether all files have their names, or none does because another writer replaced all."""
    own = [file.in_place for file in files]
    return all(own) or not any(own)


def dense_bytes(x: torch.Tensor) -> tuple[torch.Tensor, memoryview]:
    """The elements row by row, as memory that lives as long as the tensor beside it.

    Nothing is copied if the tensor is on the CPU and contiguous; a protected one stays shared.
    """
    x = x.detach().cpu().contiguous().resolve_conj().resolve_neg()
    size = x.numel() * x.element_size()
    if size == 0:
        return x, memoryview(b"")
    array = (ctypes.c_ubyte * size).from_address(_dense.torch_address(x))
    return x, memoryview(array).cast("B")
