"""Where the C++ SDK of this installation is: headers, library, CMake package.

::

    cmake -S . -B build -Dtensor_bridge_DIR="$(python -m tensor_bridge.config --cmakedir)"

Loads neither framework.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from tensor_bridge.errors import FrameworkError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["cmake_dir", "include_dir", "library_dir"]


def library_dir() -> Path:
    """The folder of ``libtensor_bridge.so`` and of the torch adapters.

    Raises:
      FrameworkError: the package's libraries are missing.
    """
    # The libraries lie beside the extension module, in an editable installation too.
    spec = find_spec("tensor_bridge._C")
    if spec is None or spec.origin is None:
        raise FrameworkError(
            "the extension module tensor_bridge._C is missing; install tensor_bridge again",
            name="tensor_bridge._C",
        )
    return _with(Path(spec.origin).parent, "libtensor_bridge.so")


def _with(folder: Path, file: str) -> Path:
    if not (folder / file).is_file():
        raise FrameworkError(
            f"expected {folder / file} in this installation, but it is missing; install "
            "tensor_bridge again",
            name="tensor_bridge",
        )
    return folder


def include_dir() -> Path:
    """The folder to give a compiler: ``#include <tensor_bridge/tensor_bridge.h>``.

    Raises:
      FrameworkError: this installation has no headers.
    """
    return _with(library_dir() / "include", "tensor_bridge/tensor_bridge.h")


def cmake_dir() -> Path:
    """The folder of the CMake package, for ``tensor_bridge_DIR`` or ``CMAKE_PREFIX_PATH``.

    Raises:
      FrameworkError: this installation has no CMake package.
    """
    return _with(library_dir() / "cmake", "tensor_bridgeConfig.cmake")


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m tensor_bridge.config``: prints the folders that were asked for, one per line.

    Returns:
      0, or 1 if this installation lacks one of them.
    """
    from tensor_bridge._command_line import CommandParser, say

    parser = CommandParser(
        prog="python -m tensor_bridge.config", description="Where the C++ SDK of tensor_bridge is."
    )
    options = {
        "--cmakedir": (cmake_dir, "folder of the CMake package: -Dtensor_bridge_DIR=..."),
        "--includedir": (include_dir, "folder of the headers: -I..."),
        "--libdir": (library_dir, "folder of libtensor_bridge.so and the torch adapters"),
    }
    for option, (find, text) in options.items():
        parser.add_argument(option, action="append_const", const=find, dest="finds", help=text)
    finds = parser.parse_args(arguments).finds
    if not finds:
        parser.error(f"expected one of {', '.join(options)}")
    try:
        say(*[str(find()) for find in finds])
    except FrameworkError as e:
        say(f"tensor_bridge.config: {e}", error=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
