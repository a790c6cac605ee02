"""Imports the frameworks and converts, in a separate process, which may crash or hang.

The arguments are the order of the imports. It prints a line for each stage that it enters, with the
libraries loaded so far, and a line with its observations; `_facts` reads them.
"""

from __future__ import annotations

import json
import os
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

STAGE = "tensor_bridge-stage "
LOADED = "tensor_bridge-loaded "
RESULT = "tensor_bridge-result "

# Libraries that a process should load once, and those that tell which adapter is in use.
LIBRARIES = re.compile(
    r"lib(tensorflow\w*|gomp|iomp5|omp|protobuf\w*|tensor_bridge\w*|_pywrap_tensorflow\w*)\b"
    r"[^/]*\.so[^/]*$"
)


def _stage(name: str) -> None:
    print(LOADED + json.dumps(_loaded_libraries()))
    print(STAGE + name, flush=True)


def _loaded_libraries() -> list[str]:
    maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    paths = {line.split(None, 5)[5] for line in maps if "/" in line}
    return sorted(path for path in paths if LIBRARIES.search(path))


def _gpus(torch: Any, tensorflow: Any) -> dict[str, list[str]]:
    there = torch.cuda.is_available()
    return {
        "torch": [
            torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count() if there else 0)
        ],
        "tensorflow": [gpu.name for gpu in tensorflow.config.list_physical_devices("GPU")],
    }


def _convert(torch: Any, tf: Any) -> dict[str, str]:
    """What happens to a tensor in each direction, and at a write."""
    import tensor_bridge
    from tensor_bridge import _frameworks, testing

    with tf.device("CPU:0"):
        t = tf.constant([1.0, 2.0, 3.0, 4.0])
    _stage("converting to torch")
    x = tensor_bridge.to_torch(t)
    seen = {"to_torch": "shared" if testing.shares_memory(t, x) else "copied"}
    if _frameworks.copying is not None:
        seen |= _frameworks.copying._asdict()
    assert x.tolist() == [1.0, 2.0, 3.0, 4.0]
    _stage("writing in torch")
    x.add_(1)
    intact = [float(v) for v in t] == [1.0, 2.0, 3.0, 4.0] and x.tolist() == [2.0, 3.0, 4.0, 5.0]
    seen["write"] = "stays in torch" if intact else "reaches TensorFlow"
    _stage("converting to TensorFlow")
    y = torch.ones(16)
    u = tensor_bridge.to_tf(y)
    seen["to_tf"] = "shared" if testing.shares_memory(u, y) else "copied"
    y.zero_()
    if [float(v) for v in u] != [1.0] * 16:
        seen["write"] = "reaches TensorFlow"
    return seen


def _run(order: list[str]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    frameworks = {}
    for name in order:
        _stage(f"import {name}")
        frameworks[name] = import_module(name)
        seen[name] = str(frameworks[name].__version__)
    torch, tensorflow = frameworks["torch"], frameworks["tensorflow"]
    _stage("looking for GPUs")
    seen["gpus"] = _gpus(torch, tensorflow)
    seen |= _convert(torch, tensorflow)
    _stage("looking at the loaded libraries")
    seen["libraries"] = _loaded_libraries()
    protobuf = sys.modules.get("google.protobuf")
    seen["protobuf"] = getattr(protobuf, "__version__", None)
    adapters = (re.search(r"libtensor_bridge_torch_(\d+)_(\d+)\.so", p) for p in seen["libraries"])
    seen["adapter"] = next((".".join(found.groups()) for found in adapters if found), None)
    return seen


def main() -> None:
    """Runs the trial in the order of the arguments, and ends the process."""
    try:
        print(RESULT + json.dumps(_run(sys.argv[1:])), flush=True)
    except Exception as e:  # whatever a broken installation raises
        print(RESULT + json.dumps({"error": f"{type(e).__name__}: {e}"}), flush=True)
    # Skips the frameworks' own exit handlers, which are not tested here.
    os._exit(0)
