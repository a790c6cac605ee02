"""Times the conversion to TensorFlow, and round trips.

All numbers of one column come from one interleaved run, and each result is checked before it is
timed. Times include the release of the result.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence

import _peers
import tensorflow as tf
import torch
from _report import Options, Report, WrongResultError, parse_options
from _timing import Contender, Timing, race

import tensor_bridge
from tensor_bridge import testing

OURS = "tensor_bridge"
DLPACK = "DLPack pair"
CONVERT = "tf.convert_to_tensor"
NUMPY = "NumPy"

LEGEND = {
    OURS: "tensor_bridge.to_tf(x), both sides protected",
    DLPACK: "tf.experimental.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(x)), unprotected",
    CONVERT: "tf.convert_to_tensor(x), through NumPy; shares aligned memory, unprotected",
    NUMPY: "tf.convert_to_tensor(x.numpy()), a copy",
    **_peers.LEGEND,
}
SIZES = {"16 B": (4,), "4 MB": (1024, 1024), "256 MB": (8192, 8192)}
LARGE = {"4 GB": (32768, 32768)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints the tables, writes the JSON."""
    options = parse_options(__doc__, arguments)
    rounds = options.rounds(101)
    torch.set_num_threads(1)
    report = Report("to_tf", LEGEND, rounds=rounds, torch_threads=1)

    for label, shape in (SIZES | LARGE if options.large else SIZES).items():
        contenders = list(_conversions(shape))
        timings = _measure(contenders, options, rounds)
        report.add_timings("sizes", label, contenders, timings, nbytes=4 * math.prod(shape))
    for label, contenders in (*_first_share(), *_round_trips()):
        report.add_timings("small", label, contenders, _measure(contenders, options, rounds))
    return report.finish(options)


def _back() -> dict[str, object]:
    return {
        "to_tf": tensor_bridge.to_tf,
        "to_torch": tensor_bridge.to_torch,
        "from_dlpack": tf.experimental.dlpack.from_dlpack,
        "to_dlpack": torch.utils.dlpack.to_dlpack,
    }


def _there() -> dict[str, object]:
    return {
        "torch_from_dlpack": torch.utils.dlpack.from_dlpack,
        "tf_to_dlpack": tf.experimental.dlpack.to_dlpack,
    }


def _conversions(shape: tuple[int, ...]) -> Iterator[Contender]:
    """Every way into TensorFlow. Each has its own `x`, because ours marks the tensor."""
    names = {"x": torch.rand(shape), "from_dlpack": tf.experimental.dlpack.from_dlpack}
    more = {"to_dlpack": torch.utils.dlpack.to_dlpack, "convert": tf.convert_to_tensor}
    yield Contender(OURS, "to_tf(x)", _back() | {"x": torch.rand(shape)}, shared=True)
    yield Contender(DLPACK, "from_dlpack(to_dlpack(x))", names | more, shared=True)
    yield Contender(CONVERT, "convert(x)", names | more, shared=True)
    yield Contender(NUMPY, "convert(x.numpy())", names | more, shared=False)
    yield from _peers.to_tf(names["x"])


def _first_share() -> Iterator[tuple[str, list[Contender]]]:
    """A tensor that TensorFlow gets for the first time, including making the tensor."""
    names = _back() | {"make": torch.ones, "x": torch.ones(4)}
    yield (
        "a new tensor",
        [
            Contender(OURS, "to_tf(make(4))", names, shared=False),
            Contender(DLPACK, "from_dlpack(to_dlpack(make(4)))", names, shared=False),
            Contender("torch.ones(4) alone", "make(4)", names, shared=None),
        ],
    )


def _round_trips() -> Iterator[tuple[str, list[Contender]]]:
    t = tf.random.stateless_uniform((4,), seed=(1, 2))
    names = _back() | _there() | {"t": t, "x": tensor_bridge.to_torch(t)}
    pair = "from_dlpack(to_dlpack(torch_from_dlpack(tf_to_dlpack(t))))"
    yield (
        "round trip",
        [
            Contender(OURS, "to_tf(to_torch(t))", names, shared=True),
            Contender("to_torch(t) alone", "to_torch(t)", names, shared=None),
            Contender("to_tf(x) alone", "to_tf(x)", names, shared=True),
            Contender(DLPACK, pair, names, shared=True),
        ],
    )


def _measure(contenders: Sequence[Contender], options: Options, rounds: int) -> dict[str, Timing]:
    for contender in contenders:
        check(contender)
    return race(contenders, rounds=rounds, slow_s=1 / options.parts)


def check(contender: Contender) -> None:
    """Raises unless the result has `x`'s bytes, and shares them exactly if it should."""
    x, result = contender.names["x"], contender.call()
    assert isinstance(x, torch.Tensor)
    if isinstance(result, torch.Tensor):
        same = torch.equal(result, x)
    elif isinstance(result, tf.Tensor):
        same = torch.equal(torch.from_numpy(result.numpy()), x)
        shared = testing.shares_memory(result, x)
        if contender.shared is not None and shared != contender.shared:
            wanted = "shares" if contender.shared else "does not share"
            raise WrongResultError(f"{contender.statement}: expected a result that {wanted} memory")
    else:
        raise WrongResultError(f"{contender.statement} returned a {type(result).__name__}")
    if not same:
        raise WrongResultError(f"{contender.statement} returned other values")


if __name__ == "__main__":
    sys.exit(main())
