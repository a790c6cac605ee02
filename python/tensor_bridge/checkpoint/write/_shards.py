"""Several .safetensors files, and an index that names them, as Hugging Face's libraries read it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tensor_bridge._folder import Folder
from tensor_bridge._output import (
    Output,
    add,
    naming,
    refuse,
    take_back,
    try_to_add,
)


def index_path(path: Path) -> Path:
    """The index of the files that are written instead of ``path``."""
    return path.with_name(path.name + ".index.json")


@contextmanager
def shards(
    path: Path, count: int, overwrite: bool, index_of: Callable[[list[str]], bytes]
) -> Iterator[list[Output]]:
    """Files to write, whose index is written after the block; their ``path`` is final then.

    The index gets its name last; until then the files of a replaced index stay. So the new files
    get unused names, with an additional part if the usual names may be taken.

    Args:
      path: "name.safetensors", for "name-00001-of-00002.safetensors" and the like.
      count: How many files.
      overwrite: Whether an index may be replaced.
      index_of: The bytes of the index, from the names of the files.

    Raises:
      InvalidOptionError: One of the files exists, and ``overwrite`` is off.
    """
    last = index_path(path)
    with naming(path):
        folder = Folder(path.parent)
    with folder:
        paths = _paths(path, count, "")
        refuse(last, folder, overwrite)
        for name in paths if not overwrite else ():
            refuse(name, folder, overwrite)
        replaced = _named_by(folder.read(last.name), path)
        like = [last.name, *replaced]
        files: list[Output] = []
        try:
            files += (Output(name, folder, like=[*like, name.name]) for name in paths)
            files.append(Output(last, folder))
            *parts, index = files
            yield parts
            for file in parts:
                file.sync()
            if overwrite:
                _add_somewhere(parts, path, unusual=folder.stat(last.name) is not None)
            else:
                add(parts)
            index.write(index_of([file.path.name for file in parts]))
            index.sync()
            # Synced, so that on the disk too they precede the index that names them.
            folder.sync()
            if overwrite:
                replaced = _named_by(index.swap(), path)
            else:
                add([index])
            folder.sync()
            for old in replaced - {file.path.name for file in parts}:
                folder.remove(old)
        except BaseException:
            if files and not files[-1].in_place:
                take_back(files)
            raise
        finally:
            for file in files:
                file.close()


def _paths(path: Path, count: int, part: str) -> list[Path]:
    stem = path.name.removesuffix(".safetensors")
    names = (f"{stem}{part}-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count))
    return [path.with_name(name) for name in names]


def _add_somewhere(files: list[Output], path: Path, *, unusual: bool) -> None:
    """Gives files unused names."""
    while True:
        part = f"-{os.urandom(4).hex()}" if unusual else ""
        for file, name in zip(files, _paths(path, len(files), part), strict=True):
            file.path = name
        if try_to_add(files) is None:
            return
        unusual = True


def _named_by(index: bytes, path: Path) -> set[str]:
    """The files of an index that `shards` may have written; empty if it is not an index."""
    stem = re.escape(path.name.removesuffix(".safetensors"))
    ours = re.compile(stem + r"(-[0-9a-f]{8})?-\d{5}-of-\d{5}\.safetensors")
    try:
        names = json.loads(index)["weight_map"].values()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return set()
    return {name for name in names if isinstance(name, str) and ours.fullmatch(name)}
