"""Times copies of 256 MB in both directions, and of a transposed tensor, against torch's own.

All numbers of one column come from one interleaved run on one thread, and each result is checked
before it is timed. Times include the release of the result.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence

import tensorflow as tf
import torch
from _report import Report, parse_options
from _timing import Contender, race
from bench_to_tf import check

import tensor_bridge

LEGEND = {
    "x.clone()": "torch's own copy",
    "x.contiguous()": "torch's own gathering of a transposed tensor",
    "to_torch": "tensor_bridge.to_torch(t, copy=True)",
    "to_tf": "tensor_bridge.to_tf(x, copy=True), or of what has to be copied",
    "DLPack pair": "torch gathers, and TensorFlow shares the result",
    "NumPy": "tf.convert_to_tensor(x.numpy())",
}
SHAPE = (8192, 8192)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints the tables, writes the JSON."""
    options = parse_options(__doc__, arguments)
    torch.set_num_threads(1)
    rounds = options.rounds(15)
    report = Report("copies", LEGEND, rounds=rounds, torch_threads=1)
    for label, contenders in _copies():
        for contender in contenders:
            check(contender)
        timings = race(contenders, rounds=rounds, slow_s=3)
        report.add_timings("256 MB", label, contenders, timings)
    return report.finish(options)


def _copies() -> Iterator[tuple[str, list[Contender]]]:
    t = tf.random.stateless_uniform(SHAPE, seed=(1, 2))
    x = torch.tensor(t.numpy())
    names: Mapping[str, object] = {
        "to_tf": tensor_bridge.to_tf,
        "to_torch": tensor_bridge.to_torch,
        "from_dlpack": tf.experimental.dlpack.from_dlpack,
        "to_dlpack": torch.utils.dlpack.to_dlpack,
        "convert": tf.convert_to_tensor,
        "x": x,
        "t": t,
    }
    yield (
        "copy=True",
        [
            Contender("x.clone()", "x.clone()", names, shared=None),
            Contender("to_torch", "to_torch(t, copy=True)", names, shared=None),
            Contender("to_tf", "to_tf(x, copy=True)", names, shared=False),
        ],
    )
    names = {**names, "x": x.t()}
    yield (
        "transposed",
        [
            Contender("x.contiguous()", "x.contiguous()", names, shared=None),
            Contender("to_tf", "to_tf(x)", names, shared=False),
            Contender("DLPack pair", "from_dlpack(to_dlpack(x.contiguous()))", names, shared=False),
            Contender("NumPy", "convert(x.numpy())", names, shared=False),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
