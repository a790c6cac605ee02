"""Times conversions of GPU memory against torch's floor and the two-liners.

All numbers of one column come from one interleaved run; wall time, including the release of the
result. Without a GPU for both frameworks it says so and exits with 2.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

import tensorflow as tf
import torch
from _report import Report, parse_options
from _timing import Contender, race

import tensor_bridge

LEGEND = {
    "x.detach()": "torch's own floor for a new tensor over the same memory",
    "to_torch": "tensor_bridge.to_torch(t)",
    "to_torch, copy": "tensor_bridge.to_torch(t, copy=True)",
    "x.clone()": "torch's own copy, waited for",
    "DLPack pair": "torch and TensorFlow share; writes reach the other side",
    "NumPy": "over the host: torch.from_numpy(t.numpy()).cuda(), or the same backwards",
    "to_tf": "tensor_bridge.to_tf(x, device='GPU:0')",
}
SIZES = {"1 KB": 1 << 8, "1 MB": 1 << 18, "256 MB": 1 << 26}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints the tables, writes the JSON."""
    options = parse_options(__doc__, arguments)
    if not (torch.cuda.is_available() and tf.config.list_physical_devices("GPU")):
        print("no GPU for both frameworks", file=sys.stderr)
        return 2
    rounds = options.rounds(40)
    report = Report("gpu", LEGEND, rounds=rounds, gpu=torch.cuda.get_device_name())
    for label, count in SIZES.items():
        with tf.device("GPU:0"):
            t = tf.random.stateless_uniform([count], seed=(1, 2))
            contenders = _contenders(t, torch.rand(count, device="cuda"))
            for contender in contenders:
                contender.call()
            timings = race(contenders, rounds=rounds, slow_s=1.0)
        report.add_timings("GPU", label, contenders, timings)
    return report.finish(options)


def _contenders(t: tf.Tensor, x: torch.Tensor) -> list[Contender]:
    names: Mapping[str, object] = {
        "to_tf": tensor_bridge.to_tf,
        "to_torch": tensor_bridge.to_torch,
        "torch_of": torch.utils.dlpack.from_dlpack,
        "capsule_of": tf.experimental.dlpack.to_dlpack,
        "from_numpy": torch.from_numpy,
        "wait": torch.cuda.synchronize,
        "x": x,
        "t": t,
    }
    statements = {
        "x.detach()": "x.detach()",
        "to_torch": "to_torch(t)",
        "to_torch, copy": "to_torch(t, copy=True)",
        "x.clone()": "(x.clone(), wait())",
        "DLPack pair": "torch_of(capsule_of(t))",
        "NumPy": "from_numpy(t.numpy()).cuda()",
        "to_tf": "to_tf(x, device='GPU:0')",
    }
    return [Contender(name, statement, names) for name, statement in statements.items()]


if __name__ == "__main__":
    sys.exit(main())
