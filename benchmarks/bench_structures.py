"""Times structures of a thousand small tensors, both ways, against a single conversion.

All numbers of one column come from one interleaved run, and each result is checked before it is
timed. A time covers the whole structure, including the release of the result.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import tensorflow as tf
import torch
from _operations import nested
from _report import Report, WrongResultError, parse_options
from _timing import Contender, race

import tensor_bridge
from tensor_bridge import testing

LEAVES = 1000
OURS = "tensor_bridge"
MAP = "map_structure"
ONE = "one tensor"
LEGEND = {
    OURS: "tensor_bridge.to_torch(structure), tensor_bridge.to_tf(structure)",
    MAP: "tf.nest.map_structure with the DLPack pair, unprotected",
    ONE: "a single conversion, for scale",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints the tables, writes the JSON."""
    options = parse_options(__doc__, arguments)
    rounds = options.rounds(61)
    report = Report("structures", LEGEND, rounds=rounds, leaves=LEAVES)
    tensors = [tf.random.stateless_uniform((2, 2), seed=(i, 2)) for i in range(LEAVES)]
    to_dlpack, from_dlpack = tf.experimental.dlpack.to_dlpack, torch.utils.dlpack.from_dlpack

    def pair(t: tf.Tensor) -> torch.Tensor:
        return from_dlpack(to_dlpack(t))

    torch_to_dlpack = torch.utils.dlpack.to_dlpack
    tf_from_dlpack = tf.experimental.dlpack.from_dlpack

    def pair_back(x: torch.Tensor) -> tf.Tensor:
        return tf_from_dlpack(torch_to_dlpack(x))

    ways: tuple[tuple[str, Callable[..., object], Callable[..., object], list[object]], ...] = (
        ("to_torch", tensor_bridge.to_torch, pair, tensors),
        ("to_tf", tensor_bridge.to_tf, pair_back, [torch.rand(2, 2) for _ in tensors]),
    )
    for group, ours, theirs, leaves in ways:
        named = {f"layer_{i}/kernel": leaf for i, leaf in enumerate(leaves)}
        for case, structure in (
            ("list of 1,000", leaves),
            ("dict of 1,000", named),
            ("nested, 1,000", nested(named)),
        ):
            names = {"ours": ours, "s": structure, "map": tf.nest.map_structure, "pair": theirs}
            contenders = [
                Contender(OURS, "ours(s)", names),
                Contender(MAP, "map(pair, s)", names),
                Contender(ONE, "ours(s)", {"ours": ours, "s": leaves[0]}),
            ]
            for contender in contenders[:2]:
                _check(contender, structure)
            # A batch has several structures, because one would be near the clock's resolution.
            timings = race(contenders, rounds=rounds, batch_s=0.004)
            report.add_timings(group, case, contenders, timings, leaves=LEAVES)
    return report.finish(options)


def _check(contender: Contender, structure: object) -> None:
    """Raises unless every leaf shares the memory of the one in its place."""
    before, after = (tf.nest.flatten(s) for s in (structure, contender.call()))
    for source, result in zip(before, after, strict=True):
        t, x = (source, result) if isinstance(source, tf.Tensor) else (result, source)
        if type(t) is type(x) or not testing.shares_memory(t, x):
            raise WrongResultError(f"{contender.name}: not the same memory")


if __name__ == "__main__":
    sys.exit(main())
