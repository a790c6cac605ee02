"""Writes C++ stubs for the functions of CUDA that a framework needs and a library of the rig lacks.

    stubs.py ERROR NAMES OBJECT LIBRARY... > stubs.cc

Each stub reports its first call, and returns ERROR. NAMES is a regular expression. torch's
libraries import CUDA's functions by version. TensorFlow's library defines each function itself;
that function opens CUDA's library and calls the function there. Functions that OBJECT defines are
left out.
"""

from __future__ import annotations

import re
import subprocess
import sys


def symbols(path: str, *options: str) -> set[str]:
    """The names in a symbol table, with `@` and a version if they have one."""
    done = subprocess.run(["nm", *options, path], check=True, capture_output=True, text=True)
    return {line.split()[-1] for line in done.stdout.splitlines()}


def wanted(library: str) -> set[str]:
    """The functions of CUDA that a framework's library needs."""
    if "tensorflow" in library:
        return symbols(library, "-D", "--defined-only")
    imported = symbols(library, "-D", "--undefined-only")
    return {name.partition("@")[0] for name in imported if "@" in name}


def main(error: str, names: str, object_file: str, *libraries: str) -> None:
    """Writes the stubs to standard output."""
    all_wanted = {name for library in libraries for name in wanted(library)}
    print('#include "device/errors.h"\n#include "device/violations.h"\n\nextern "C" {')
    for name in sorted(all_wanted - symbols(object_file, "--defined-only")):
        if re.match(names, name):
            body = f'gpu_emulator::missingFunction("{name}"); return {error};'
            print(f"EMU_EXPORT int {name}() {{ {body} }}")
    print('}  // extern "C"')


if __name__ == "__main__":
    main(*sys.argv[1:])
