"""Times the conversion of one TensorFlow tensor to PyTorch, compared with other ways.

All numbers of one column come from one interleaved run, and each result is checked before it is
timed. Times include the release of the result.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator, Mapping, Sequence

import _peers
import tensorflow as tf
import torch
from _report import Options, Report, WrongResultError, parse_options
from _timing import Contender, Timing, race

import tensor_bridge
from tensor_bridge import testing

OURS = "tensor_bridge"
DLPACK = "DLPack pair"
FROM_DLPACK = "torch.from_dlpack"
NUMPY = "NumPy"
DETACH = "detach"

LEGEND = {
    OURS: "tensor_bridge.to_torch(t), write protection included",
    DLPACK: "torch.utils.dlpack.from_dlpack(tf.experimental.dlpack.to_dlpack(t))",
    FROM_DLPACK: "torch.from_dlpack(t), unprotected like the pair",
    NUMPY: "torch.from_numpy(t.numpy()), a copy; torch.as_tensor(t.numpy()) at rank 0",
    DETACH: "x.detach() of a torch tensor, torch's floor for a tensor over existing memory",
    **_peers.LEGEND,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A float32 tensor of one shape."""

    label: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size of the tensor's data."""
        return 4 * math.prod(self.shape)


SIZES = (
    Case("0 B", (0,)),
    Case("16 B", (4,)),
    Case("4 KB", (1024,)),
    Case("64 KB", (128, 128)),
    Case("4 MB", (1024, 1024)),
    Case("256 MB", (8192, 8192)),
)
LARGE = Case("4 GB", (32768, 32768))
RANKS = tuple(Case(f"rank {rank}", (2,) * rank) for rank in range(5))
# Where the other libraries take part.
WITH_PEERS = ("16 B", "4 MB", "256 MB")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints the tables, writes the JSON."""
    options = parse_options(__doc__, arguments)
    rounds = options.rounds(101)
    # One thread; otherwise the rows of copies would time how torch's threads wait for each other.
    torch.set_num_threads(1)
    report = Report("to_torch", LEGEND, rounds=rounds, torch_threads=1)

    sizes = (*SIZES, LARGE) if options.large else SIZES
    for group, cases in (("sizes", sizes), ("ranks", RANKS)):
        for case in cases:
            contenders = list(_conversions(case))
            timings = _measure(contenders, options, rounds)
            report.add_timings(group, case.label, contenders, timings, nbytes=case.nbytes)

    # One run with all sizes, for the ratio of the largest to the smallest time. All have rank 1,
    # because shapes of more dimensions take longer to read.
    flat = [dataclasses.replace(case, shape=(math.prod(case.shape),)) for case in sizes]
    ours = [dataclasses.replace(_ours(case), name=case.label) for case in flat]
    report.add_timings("size does not matter", "rank 1", ours, _measure(ours, options, 2 * rounds))

    for label, contenders in _other_ways():
        report.add_timings("other", label, contenders, _measure(contenders, options, rounds // 2))
    return report.finish(options)


def _ours(case: Case) -> Contender:
    names = {"to_torch": tensor_bridge.to_torch, "t": _uniform(case.shape)}
    return Contender(OURS, "to_torch(t)", names, shared=True)


def _conversions(case: Case) -> Iterator[Contender]:
    """Every way to get `case` into torch, and torch's own floor."""
    ours = _ours(case)
    t = ours.names["t"]
    names = {"t": t}
    numpy = "torch_from_numpy(t.numpy())" if case.shape else "torch_as_tensor(t.numpy())"
    from_dlpack = {"from_dlpack": torch.from_dlpack, **names}
    yield ours
    yield Contender(DLPACK, "from_dlpack(to_dlpack(t))", _dlpack_pair() | names, shared=True)
    yield Contender(FROM_DLPACK, "from_dlpack(t)", from_dlpack, shared=True)
    yield Contender(NUMPY, numpy, _numpy_hop() | names, shared=False)
    # Not TensorFlow's memory: the floor must not depend on the origin of the tensor.
    yield Contender(DETACH, "x.detach()", {"x": _independent_copy(t), **names}, shared=False)
    if case.label in WITH_PEERS:
        yield from _peers.to_torch(t)


def _other_ways() -> Iterator[tuple[str, list[Contender]]]:
    """Keywords, the ctypes interface, variables, copies, and the cost of the first write."""
    to_torch = tensor_bridge.to_torch
    t = _uniform((4,))
    bridge = tensor_bridge.TensorBridge()
    ours: Mapping[str, object] = {"to_torch": to_torch, "bridge": bridge, "t": t}
    yield (
        "options, 16 B",
        [
            Contender("plain", "to_torch(t)", ours, True),
            Contender("on_write=raise", "to_torch(t, on_write='raise')", ours, True),
            Contender("on_write=alias", "to_torch(t, on_write='alias')", ours, True),
            Contender("copy=True", "to_torch(t, copy=True)", ours, False),
            Contender("ctypes", "bridge.to_torch(t)", ours, True),
        ],
    )

    # The checks compare with `t`: a variable shares the memory of its initial value.
    read = {"v": tf.Variable(t), "t": t}
    yield (
        "variable, 16 B",
        [
            Contender("plain", "to_torch(v)", {"to_torch": to_torch, **read}, True),
            Contender(
                DLPACK, "from_dlpack(to_dlpack(v.read_value()))", _dlpack_pair() | read, True
            ),
            Contender(NUMPY, "torch_from_numpy(v.numpy())", _numpy_hop() | read, False),
        ],
    )

    big = {"t": _uniform((1024, 1024)), "to_torch": to_torch}
    # Multiplying by 1 leaves the value that the checks expect.
    yield (
        "first write, 4 MB",
        [
            Contender("plain", "to_torch(t).mul_(1)", big, False),
            Contender(
                DLPACK, "from_dlpack(to_dlpack(t)).clone().mul_(1)", _dlpack_pair() | big, False
            ),
            Contender(NUMPY, "torch_from_numpy(t.numpy()).mul_(1)", _numpy_hop() | big, False),
        ],
    )


def _uniform(shape: tuple[int, ...]) -> tf.Tensor:
    """A tensor with its own buffer: random, so it is never one of TensorFlow's cached constants."""
    return tf.random.stateless_uniform(shape, seed=(1, 2))


def _independent_copy(t: tf.Tensor) -> torch.Tensor:
    return torch.as_tensor(t.numpy())  # that array is a copy already


def _dlpack_pair() -> dict[str, object]:
    return {
        "from_dlpack": torch.utils.dlpack.from_dlpack,
        "to_dlpack": tf.experimental.dlpack.to_dlpack,
    }


def _numpy_hop() -> dict[str, object]:
    return {"torch_from_numpy": torch.from_numpy, "torch_as_tensor": torch.as_tensor}


def _measure(contenders: Sequence[Contender], options: Options, rounds: int) -> dict[str, Timing]:
    for contender in contenders:
        _check(contender)
    return race(contenders, rounds=rounds, slow_s=1 / options.parts)


def _check(contender: Contender) -> None:
    """Raises unless the result has the tensor's bytes, and shares them exactly if it should."""
    t = contender.names["t"]
    result = contender.call()
    if not isinstance(result, torch.Tensor):
        raise WrongResultError(f"{contender.statement} returned a {type(result).__name__}")
    expected = _independent_copy(t)
    if result.dtype != expected.dtype or result.shape != expected.shape:
        raise WrongResultError(f"{contender.statement} returned {result.dtype} {result.shape}")
    if not torch.equal(result, expected):
        raise WrongResultError(f"{contender.statement} returned other values")
    if expected.numel() and testing.shares_memory(t, result) != contender.shared:
        wanted = "shares" if contender.shared else "does not share"
        raise WrongResultError(f"{contender.statement}: expected a result that {wanted} memory")


if __name__ == "__main__":
    sys.exit(main())
