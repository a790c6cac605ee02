"""The checks: one function per subject, from facts to findings, each with its remedy."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TYPE_CHECKING

from tensor_bridge._frameworks import FROM_HERE, TENSORFLOW_RANGE, TORCH_RANGE
from tensor_bridge._loaded import version_pair
from tensor_bridge.doctor._facts import TENSORFLOW_DISTRIBUTIONS
from tensor_bridge.doctor._report import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tensor_bridge.doctor._facts import Facts, Trial


def _span(supported: tuple[tuple[int, int], tuple[int, int]]) -> tuple[str, str]:
    """A version range in words, and in pip's notation."""
    (major, first), (_, last) = supported
    return f"{major}.{first} to {major}.{last}", f">={major}.{first},<{major}.{last + 1}"


def other_project(facts: Facts) -> Iterator[Finding]:
    """PyPI's `tensor-bridge`, whose import name is the same."""
    version = facts.distributions.get("tensor-bridge")
    if version is not None:
        yield Finding(
            "error",
            "other project",
            f"tensor-bridge {version} is installed: another project with the same import name; "
            "each overwrites the other's files",
            "pip uninstall -y tensor-bridge tf-torch-tensor-bridge, then install the one again, "
            + FROM_HERE,
        )


def python(facts: Facts) -> Iterator[Finding]:
    """Interpreters that the extension was not built for."""
    if facts.free_threaded:
        yield Finding(
            "error",
            "python",
            f"Python {facts.python} is a free-threaded build; the extension module needs the GIL",
            "use the ordinary build of that Python",
        )


def installed(facts: Facts) -> Iterator[Finding]:
    """Both frameworks, once each, of a supported release."""
    ranges = {"tensorflow": TENSORFLOW_RANGE, "torch": TORCH_RANGE}
    for name, supported in ranges.items():
        words, specifier = _span(supported)
        install = f"pip install '{name}{specifier}'"
        if not facts.modules[name]:
            yield Finding(
                "error",
                name,
                f"{name} is not installed for this Python; tensor_bridge knows {words}",
                install,
            )
            continue
        version = getattr(facts, name)
        if version is None:
            continue  # installed without metadata: the trial tells
        # A newer torch is used through copies, which `sharing` tells of.
        too_new = name == "tensorflow" and version_pair(version) > supported[1]
        if version_pair(version) < supported[0] or too_new:
            yield Finding(
                "error", name, f"{name} {version} is installed; expected {words}", install
            )
    several = [name for name in TENSORFLOW_DISTRIBUTIONS if name in facts.distributions]
    # The plain package depends on a platform's own one; up to 2.15 on tensorflow-cpu-aws.
    if len(set(several) - {"tensorflow-intel", "tensorflow-cpu-aws"}) > 1:
        yield Finding(
            "warning",
            "several TensorFlows",
            f"{' and '.join(several)} are installed; they overwrite each other's files",
            f"pip uninstall -y {' '.join(several)}, then install one of them",
        )


def adapters(facts: Facts) -> Iterator[Finding]:
    """An adapter for the installed torch."""
    if not facts.adapters:
        yield Finding(
            "error",
            "adapter",
            "this installation has no torch adapter (libtensor_bridge_torch_*.so)",
            f"install it again, where torch is installed: {FROM_HERE}",
        )


def _how(trial: Trial) -> str:
    what = {
        "timeout": "hangs",
        "raised": f"fails with {trial.data.get('error')}",
    }.get(trial.end, f"ends with {trial.end}")
    last = f"; last words: {trial.log.splitlines()[-1]}" if trial.log else ""
    return (
        f"a process that imports {' and then '.join(trial.order)} {what} while {trial.stage}{last}"
    )


def trials(facts: Facts) -> Iterator[Finding]:
    """Imports in both orders, conversions in both directions."""
    failed = [trial for trial in facts.trials if trial.end != "done"]
    done = [trial for trial in facts.trials if trial.end == "done"]
    if failed and done:
        yield Finding(
            "warning",
            "import order",
            _how(failed[0]),
            f"import {' before '.join(done[0].order)}; that works here",
        )
    elif failed:
        remedy = (
            "update the driver, or hide the GPUs with CUDA_VISIBLE_DEVICES=-1"
            if failed[0].stage == "looking for GPUs"
            else "do what the message says; if there is none, install both frameworks again: "
            "pip install --force-reinstall tensorflow torch"
        )
        yield Finding("error", "conversion", _how(failed[0]), remedy)
    for trial in done:
        if trial.data.get("write") == "reaches TensorFlow":
            yield Finding(
                "error",
                "protection",
                "a write in torch reached TensorFlow's values",
                "do not convert with this installation: install tensor_bridge again, and report it",
            )
            return


def sharing(facts: Facts) -> Iterator[Finding]:
    """Values that are copied, but would be shared with other versions."""
    trial = facts.best_trial
    if trial is None or trial.end != "done":
        return
    version = trial.data["torch"]
    if trial.data["to_torch"] == "copied":
        yield Finding(
            "warning",
            "sharing",
            f"every conversion copies: {trial.data.get('reason', 'nobody said why')}",
            trial.data.get("remedy", "report this, with the output of tensor-bridge doctor --json"),
        )
    elif trial.data["to_tf"] == "copied":
        yield Finding(
            "warning" if version_pair(version) >= (2, 13) else "note",
            "sharing",
            f"to_tf copies with torch {version}: before 2.13 torch cannot be made to leave memory "
            "that TensorFlow holds; and two threads must not make the first write to a converted "
            "tensor at the same time",
            "to share in both directions: pip install 'torch>=2.13,<2.16'",
        )


def triton(facts: Facts) -> Iterator[Finding]:
    """TensorFlow's LLVM in triton's place."""
    version = facts.tensorflow or "0"
    if facts.modules["triton"] and (2, 19) <= version_pair(version) <= (2, 21):
        yield Finding(
            "warning",
            "triton",
            f"TensorFlow {version} loads its libraries globally: a process that imports it and "
            "then triton, as any optimizer of torch and torch.compile do, is aborted "
            "(tensorflow/tensorflow#124205)",
            "import tensor_bridge (or triton) before TensorFlow",
        )


def _distinct(libraries: list[str], pattern: str) -> list[str]:
    return sorted(path for path in libraries if re.match(pattern, PurePath(path).name))


def libraries(facts: Facts) -> Iterator[Finding]:
    """Libraries that the process has loaded twice."""
    loaded = sorted({path for trial in facts.trials for path in trial.data.get("libraries", [])})
    seconds = {
        "second TensorFlow": (
            r"libtensorflow(_framework|_cc)?\.so",
            1,
            "error",
            "load one TensorFlow only: the Python package has everything; drop libtensorflow from "
            "LD_LIBRARY_PATH and LD_PRELOAD, and link programs to the package's libraries",
        ),
        "OpenMP": (
            r"lib(gomp|iomp5|omp)\b",
            1,
            "warning",
            "two OpenMP runtimes take each other's threads, and may hang or abort: install "
            "frameworks from one source (pip or conda), not mixed",
        ),
        "protobuf": (
            r"libprotobuf",
            0,
            "warning",
            "frameworks from PyPI bring protobuf inside; a shared one is found first and may be of "
            "another release: install from one source, and remove it from LD_LIBRARY_PATH",
        ),
    }
    for check, (pattern, allowed, level, remedy) in seconds.items():
        found = _distinct(loaded, pattern)
        folders = {str(PurePath(path).parent) for path in found}
        # A TensorFlow is several files of one folder.
        count = len(folders) if check == "second TensorFlow" else len(found)
        if count > allowed:
            yield Finding(
                "error" if level == "error" else "warning",
                check,
                f"the process loads {', '.join(found)}",
                remedy,
            )
    ahead = [path for path in facts.on_library_path if path not in loaded]
    failed = any(trial.end != "done" for trial in facts.trials)
    for check, (pattern, *_, remedy) in seconds.items():
        found = _distinct(ahead, pattern)
        # If the trials finished without it, only TensorFlow could still be loaded.
        if found and (failed or check == "second TensorFlow"):
            yield Finding(
                "warning",
                check,
                f"LD_LIBRARY_PATH leads to {', '.join(found)}, which a process may load beside the "
                "packages' own",
                remedy,
            )
    preloaded = facts.environment.get("LD_PRELOAD", "")
    if "libtensorflow" in preloaded:
        yield Finding(
            "warning",
            "second TensorFlow",
            f"LD_PRELOAD brings {preloaded}; beside the Python package that is a second TensorFlow",
            "unset LD_PRELOAD",
        )


def openmp_override(facts: Facts) -> Iterator[Finding]:
    """The switch that hides the problem above."""
    if facts.environment.get("KMP_DUPLICATE_LIB_OK", "").upper() in ("TRUE", "1"):
        yield Finding(
            "warning",
            "OpenMP",
            "KMP_DUPLICATE_LIB_OK is set: two OpenMP runtimes are tolerated, with wrong results or "
            "hangs where they meet",
            "unset it, and install frameworks from one source",
        )


def gpus(facts: Facts) -> Iterator[Finding]:
    """Which GPUs each framework sees, and who takes their memory."""
    trial = facts.best_trial
    seen = trial.data.get("gpus") if trial is not None else None
    if not seen:
        return
    theirs, ours = len(seen["tensorflow"]), len(seen["torch"])
    if theirs != ours:
        few, many = ("tensorflow", "torch") if theirs < ours else ("torch", "tensorflow")
        yield Finding(
            "warning",
            "GPU visibility",
            f"{many} sees {max(theirs, ours)} GPU(s), {few} sees {min(theirs, ours)}: tensors on "
            "the others can only be copied through the host",
            f"install a build of {few} with CUDA (pip install 'tensorflow[and-cuda]'; torch's "
            "default build), or hide the GPUs from both with CUDA_VISIBLE_DEVICES",
        )
    if not theirs:
        return
    if ours and facts.environment.get("TF_FORCE_GPU_ALLOW_GROWTH", "").lower() not in ("true", "1"):
        yield Finding(
            "warning",
            "GPU memory",
            "TensorFlow takes nearly all memory of every GPU at its first operation and leaves "
            "torch none",
            "set TF_FORCE_GPU_ALLOW_GROWTH=true, or call "
            "tf.config.experimental.set_memory_growth(gpu, True) for each GPU before the first "
            "operation",
        )
    yield Finding(
        "note",
        "GPU",
        "conversion on GPUs was written from the sources of both frameworks and has not been "
        "proven on one",
        "compare values once before you rely on it (docs/concepts/gpu.md)",
    )


def fork(facts: Facts) -> Iterator[Finding]:
    """How worker processes start."""
    if facts.start_method == "fork":
        yield Finding(
            "note",
            "fork",
            "worker processes are forked; a child of a process that has used TensorFlow may read "
            "converted tensors, but hangs if it runs TensorFlow operations",
            "where workers use TensorFlow: multiprocessing.set_start_method('spawn'), "
            "DataLoader(..., multiprocessing_context='spawn')",
        )


CHECKS = (
    other_project,
    python,
    installed,
    adapters,
    trials,
    sharing,
    triton,
    libraries,
    openmp_override,
    gpus,
    fork,
)
