"""C and C++ programs of the docs, compiled and linked as an application of the SDK would be."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from made import environment, made
from pages import ROOT

COMPILERS = {
    "c": ["gcc", "-x", "c", "-std=c99", "-Wpedantic"],
    "cpp": ["g++", "-x", "c++", "-std=c++20"],
}


def package_dir(name: str) -> Path:
    """The folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def library_dir() -> Path:
    """Where libtensor_bridge.so is installed."""
    spec = importlib.util.find_spec("tensor_bridge._C")
    assert spec is not None
    assert spec.origin
    return Path(spec.origin).parent


def compile_source(
    source: str, language: str, name: str, *arguments: str, linked: Sequence[Path] = ()
) -> Path:
    """Runs the compiler on `source`, warnings as errors, in the folder that is returned.

    Args:
      source: The code.
      language: "c" or "cpp".
      name: The name of the folder in build/made.
      arguments: The compiler's arguments, besides our and the frameworks' headers.
      linked: Files of ours that the compiler reads besides the headers.
    """
    torch = package_dir("torch") / "include"
    system = [torch, torch / "torch/csrc/api/include", package_dir("tensorflow") / "include"]
    command = [*COMPILERS[language], "-Wall", "-Wextra", "-Werror", "-O0", f"-I{ROOT / 'include'}"]
    command += [argument for folder in system for argument in ("-isystem", str(folder))]
    command += arguments
    version = subprocess.run([command[0], "--version"], capture_output=True, text=True, check=True)

    def run(folder: Path) -> None:
        done = subprocess.run(
            command, cwd=folder, input=source, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    inputs = [source, *command, version.stdout, environment(), ROOT / "include", *linked]
    return made(name, inputs, run)


def compile_and_run(source: str, language: str, name: str) -> str:
    """Compiles and runs the program; returns its output."""
    torch = package_dir("torch") / "lib"
    tensorflow = package_dir("tensorflow")
    paths = [library_dir(), torch, tensorflow]
    folder = compile_source(
        source,
        language,
        name,
        "-",
        "-x",
        "none",
        str(library_dir() / "libtensor_bridge.so"),
        # The bridge finds the frameworks in the process: keep them although nothing refers to them.
        "-Wl,--no-as-needed",
        "-Wl,--allow-shlib-undefined",
        str(torch / "libc10.so"),
        str(torch / "libtorch_cpu.so"),
        str(tensorflow / "libtensorflow_framework.so.2"),
        *(f"-Wl,-rpath,{path}" for path in paths),
        "-o",
        "program",
        linked=[library_dir() / "libtensor_bridge.so"],
    )
    env = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    done = subprocess.run(
        [folder / "program"], capture_output=True, text=True, check=False, env=env, timeout=120
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
