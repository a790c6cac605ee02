"""The environment of the rig: CUDA builds of the frameworks, the emulated device, and the package.

Everything is under build/emulated-gpu. Nothing is installed into .venv or into the environment that
EMULATED_GPU_VENV names.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SCRATCH = ROOT / "build" / "emulated-gpu"
RIG = SCRATCH / "rig"
CRT = SCRATCH / "crt"
FRAMEWORKS = ("torch==2.14.1", "tensorflow==2.21.0")
GROUPS = ("build", "test", "helpers")
# Has headers that the runtime's headers include, and that its package lacks.
CRT_PACKAGE = "nvidia-cuda-crt==13.*"


def run(*command: str | Path, env: Mapping[str, str] | None = None) -> None:
    """Runs a command that must succeed, and shows its output."""
    print("+", *(str(word) for word in command), flush=True)
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | dict(env or {}))


def site_packages(venv: Path) -> Path:
    """The folder of an environment's packages."""
    (found,) = venv.glob("lib/python3*/site-packages")
    return found


def _once(stamp: Path) -> bool:
    """Whether a step is still to be done. The caller touches the stamp when it is done."""
    stamp.parent.mkdir(parents=True, exist_ok=True)
    return not stamp.exists()


def frameworks() -> Path:
    """The environment with the CUDA builds and the tools: EMULATED_GPU_VENV, or one made here."""
    given = os.environ.get("EMULATED_GPU_VENV")
    if given:
        return Path(given).resolve()
    venv = SCRATCH / "venv"
    stamp = venv / "complete"
    if _once(stamp):
        run(sys.executable, "-m", "venv", "--clear", venv)
        install = (venv / "bin" / "python", ROOT / "tools" / "install_group.py", *GROUPS)
        run(*install, "--", "--quiet", *FRAMEWORKS, "optree")
        stamp.touch()
    return venv


def crt_headers() -> Path:
    """NVIDIA's headers that cuda_runtime.h includes and that torch's requirements lack."""
    stamp = CRT / "complete"
    if _once(stamp):
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps")
        run(*pip, "--target", CRT, CRT_PACKAGE)
        stamp.touch()
    return CRT / "nvidia" / "cu13" / "include"


def build_rig(venv: Path) -> None:
    """Builds the emulated device in RIG."""
    site = site_packages(venv)
    tools = {"PATH": f"{venv / 'bin'}:{os.environ['PATH']}"}
    includes = f"{site / 'nvidia' / 'cu13' / 'include'};{crt_headers()}"
    run(
        *("cmake", "-G", "Ninja", "-S", HERE, "-B", RIG, "-Wno-dev"),
        f"-DEMU_TORCH_DIR={site / 'torch'}",
        f"-DEMU_TENSORFLOW_DIR={site / 'tensorflow'}",
        f"-DEMU_CUDA_INCLUDES={includes}",
        env=tools,
    )
    run("cmake", "--build", RIG, env=tools)


class Environment:
    """A Python that uses the frameworks' environment and has the package of one checkout.

    Args:
      name: Name of the folder in SCRATCH.
      venv: The result of `frameworks`.
      checkout: The checkout whose package is installed.
    """

    def __init__(self, name: str, venv: Path, checkout: Path = ROOT) -> None:
        self.folder = SCRATCH / name
        self.checkout = checkout
        self._base = venv
        self.python = self.folder / "bin" / "python"

    def install(self) -> None:
        """Builds the checkout, again if necessary, and installs its package."""
        stamp = self.folder / "complete"
        if _once(stamp) or stamp.read_text("utf-8") != str(self._base):
            base = self._base / "bin" / "python"
            run(base, "-m", "venv", "--clear", "--without-pip", self.folder)
            path = site_packages(self.folder) / "frameworks.pth"
            path.write_text(f"{site_packages(self._base)}\n", "utf-8")
            stamp.write_text(str(self._base), "utf-8")
        run(
            *(self.python, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps"),
            *("-C", f"build-dir={self.folder / 'build'}", self.checkout),
            env={"PATH": f"{self._base / 'bin'}:{os.environ['PATH']}"},
        )

    def variables(self, **emulated: str) -> dict[str, str]:
        """The environment variables of a process in the rig; `emulated` are CUDA_EMU_*."""
        own = {
            "CUDA_EMU_LIB": str(RIG / "lib"),
            "CUDA_EMU_SLEEP_SCALE": "0.1",
            "LD_LIBRARY_PATH": f"{RIG / 'lib'}:{RIG / 'empty'}",
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(HERE / "python"),
            "TENSOR_BRIDGE_REQUIRE_CUDA": "1",
            # oneDNN's kernels may differ more from those of a GPU.
            "TF_ENABLE_ONEDNN_OPTS": "0",
        }
        return (
            dict(os.environ) | own | {f"CUDA_EMU_{key}": value for key, value in emulated.items()}
        )
