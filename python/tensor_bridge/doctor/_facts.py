"""Facts about this installation, not judged, and without loading a framework."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tensor_bridge import _frameworks
from tensor_bridge.doctor import _trial

# Distributions that bring the module `tensorflow`.
TENSORFLOW_DISTRIBUTIONS = (
    "tensorflow",
    "tensorflow-cpu",
    "tensorflow-intel",
    "tensorflow-cpu-aws",
    "tensorflow-rocm",
    "tensorflow-gpu",
    "tf-nightly",
    "tf-nightly-cpu",
)
_OTHERS = ("torch", "triton", "protobuf", "optree", "tensor-bridge")
_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "KMP_DUPLICATE_LIB_OK",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "TF_FORCE_GPU_ALLOW_GROWTH",
)
_TIMEOUT = 180
_ORDERS = (("tensorflow", "torch"), ("torch", "tensorflow"))


@dataclass(frozen=True)
class Trial:
    """Both imports and a conversion each way, in one order.

    Attributes:
      order: the frameworks in the order of import.
      stage: the last stage that was entered.
      end: "done", "raised", "timeout", or a signal such as "signal 6".
      data: what was seen; after an exception, its "error".
      log: the last lines that the process wrote to stderr, if it did not finish.
    """

    order: tuple[str, ...]
    stage: str
    end: str
    data: dict[str, Any] = field(default_factory=dict)
    log: str = ""


@dataclass(frozen=True)
class Facts:
    """The facts that the checks judge."""

    python: str
    platform: str
    free_threaded: bool
    distributions: dict[str, str]
    adapters: tuple[str, ...]
    modules: dict[str, bool]
    environment: dict[str, str]
    start_method: str
    trials: tuple[Trial, ...]
    on_library_path: tuple[str, ...] = ()

    @property
    def best_trial(self) -> Trial | None:
        """The first trial that finished, otherwise the first one."""
        done = [trial for trial in self.trials if trial.end == "done"]
        return next(iter([*done, *self.trials]), None)

    @property
    def tensorflow(self) -> str | None:
        """Version of TensorFlow by its metadata."""
        found = (self.distributions.get(name) for name in TENSORFLOW_DISTRIBUTIONS)
        return next((version for version in found if version), None)

    @property
    def torch(self) -> str | None:
        """Version of torch by its metadata."""
        return self.distributions.get("torch")


def _distributions() -> dict[str, str]:
    found = {}
    for name in (*TENSORFLOW_DISTRIBUTIONS, *_OTHERS):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _present(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # a stub in sys.modules, a broken parent
        return False


def read_trial(order: tuple[str, ...], code: int | None, out: str, err: str) -> Trial:
    """A trial, from its process's exit code (None for a timeout) and its output."""
    stage, data, libraries = "starting Python", {}, []
    for line in out.splitlines():
        if line.startswith(_trial.STAGE):
            stage = line.removeprefix(_trial.STAGE)
        elif line.startswith(_trial.LOADED):
            libraries = json.loads(line.removeprefix(_trial.LOADED))
        elif line.startswith(_trial.RESULT):
            data = json.loads(line.removeprefix(_trial.RESULT))
    if code is None:
        end = "timeout"
    elif code < 0:
        end = f"signal {-code}"
    elif code or not data:
        end = f"exit {code}"
    else:
        end = "raised" if "error" in data else "done"
    # Libraries loaded before a crash often tell why it happened.
    data.setdefault("libraries", libraries)
    log = "" if end == "done" else "\n".join(err.splitlines()[-8:])
    return Trial(order, stage, end, data, log)


def run_trial(order: tuple[str, ...], timeout: float = _TIMEOUT) -> Trial:
    """Runs one trial."""
    # The trial must not take GPU memory that other processes need.
    env = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    # Removes the current folder, which `-c` puts first: it could hold an unrelated re.py. From
    # Python 3.11 on `-P` does the same. Not -m: importing the package loads the module already.
    code = "import sys; sys.path = [*filter(None, sys.path)]; "
    code += f"from {_trial.__name__} import main; main()"
    command = [sys.executable, "-c", code, *order]
    try:
        done = subprocess.run(
            command,
            env=os.environ | env,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        # The output so far comes as bytes, even in text mode.
        out, err = ((text or b"").decode(errors="replace") for text in (e.stdout, e.stderr))
        return read_trial(order, None, out, err)
    return read_trial(order, done.returncode, done.stdout, done.stderr)


def _start_method() -> str:
    # get_start_method() would fix the default, and set_start_method() then raises.
    chosen = multiprocessing.get_start_method(allow_none=True)
    return chosen or multiprocessing.get_all_start_methods()[0]


def _on_library_path() -> tuple[str, ...]:
    """Libraries that the loader finds before those of the Python packages."""
    folders = filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":"))
    files = (path for folder in folders for path in Path(folder).glob("lib*.so*"))
    # Resolved paths, because the libraries of a process are listed so.
    found = {path.resolve() for path in files if _trial.LIBRARIES.search(f"/{path.name}")}
    return tuple(sorted(map(str, found)))


def gather() -> Facts:
    """The facts of this machine. Takes as long as importing both frameworks twice."""
    modules = {name: _present(name) for name in ("tensorflow", "torch", "triton")}
    both = modules["tensorflow"] and modules["torch"]
    return Facts(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}".strip(),
        free_threaded=bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        distributions=_distributions(),
        adapters=_frameworks.adapters(),
        modules=modules,
        environment={name: os.environ[name] for name in _VARIABLES if name in os.environ},
        start_method=_start_method(),
        on_library_path=_on_library_path(),
        trials=tuple(run_trial(order) for order in _ORDERS) if both else (),
    )
