"""Times the conversion of a million TensorFlow strings to PyTorch and back, compared with NumPy.

All numbers of one column come from one interleaved run, and each result is checked before it is
timed. Times include the release of the result. Peak memory comes from separate processes.
"""

from __future__ import annotations

import ctypes
import gc
import random
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow as tf
import torch
from _report import Report, WrongResultError, parse_options
from _timing import Contender, race

import tensor_bridge
from tensor_bridge import StringTensor

COUNT = 1_000_000
# Numbers and sizes of strings: one, and totals from 1 kB to 1 GiB of short and of long strings.
TOTALS = (
    (1, 5),
    (1, 1000),
    (10, 100),
    (128, 8),
    (3, 20_000),
    (40, 1000),
    (10_000, 100),
    (433, 20_000),
    (8, 1 << 20),
    (64, 1 << 20),
    (13_000, 20_000),
    (256, 1 << 20),
)
LARGE_TOTALS = ((8_000_000, 128), (1024, 1 << 20))
TENSOR = "StringTensor"
LIST = "list"
NUMPY = "NumPy"
OBJECTS = "t.numpy()"
FLOOR = "bytes alone"
TEXT = "text"
NUMPY_TEXT = "NumPy text"
SHARED_TO_TF = "StringTensor back"
CONSTANT = "tf.constant"

LEGEND = {
    TENSOR: "tensor_bridge.to_torch(t): bytes and offsets",
    LIST: 'tensor_bridge.to_torch(t, strings="list"): a list of bytes',
    NUMPY: "t.numpy().tolist(), what people do today",
    OBJECTS: "t.numpy(): an array of bytes objects",
    FLOOR: "Struct(format).unpack(block): CPython makes the same bytes objects, from one block",
    TEXT: "tensor_bridge.to_torch(t).to_str(): a list of str",
    NUMPY_TEXT: "t.numpy().tolist(), each decoded",
    SHARED_TO_TF: "tensor_bridge.to_tf(x) of a StringTensor",
    CONSTANT: "tf.constant(l) of a list of bytes",
}
SIZES = (8, 22, 40)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints the tables, writes the JSON."""
    if arguments is None and sys.argv[1:2] == ["--peak"]:
        print(_peak(int(sys.argv[2])))
        return 0
    options = parse_options(__doc__, arguments)
    rounds = options.rounds(9)
    torch.set_num_threads(1)
    report = Report("strings", LEGEND, rounds=rounds, count=COUNT, torch_threads=1)
    for size in SIZES:
        t = _strings(size)
        groups = _contenders(t)
        for contender in (contender for group in groups.values() for contender in group):
            _check(contender, t)
        gc.freeze()  # a collection would traverse the lists of the other contenders
        for group, contenders in groups.items():
            timings = race(contenders, rounds=rounds, batch_s=0.001, slow_s=2)
            report.add_timings(group, f"{size} B", contenders, timings, count=COUNT)
        gc.unfreeze()
    for count, size in (*TOTALS, *(LARGE_TOTALS if options.large else ())):
        _total(report, count, size, options.rounds(101))
    for size in SIZES:
        command = [sys.executable, __file__, "--peak", str(size)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=120)
        report.add_value(
            "peak memory over the result", f"{size} B", TENSOR, float(done.stdout.split()[-1]), "1"
        )
    return report.finish(options)


def _total(report: Report, count: int, size: int, rounds: int) -> None:
    """A tensor of strings of any size against the array that TensorFlow makes of it."""
    t = tf.strings.join([tf.fill([count], b"x" * size), ""])  # each with its own memory
    contenders = [
        Contender(TENSOR, "to_torch(t)", {"to_torch": tensor_bridge.to_torch, "t": t}),
        Contender(OBJECTS, "t.numpy()", {"t": t}),
    ]
    if any(string != b"x" * size for string in tensor_bridge.to_torch(t).to_bytes()):
        raise WrongResultError(f"to_torch(t) of {count} strings returned other strings")
    timings = race(contenders, rounds=rounds, slow_s=3)
    report.add_timings("any size", f"{count:,} x {size:,} B", contenders, timings, count=count)


def _strings(size: int) -> tf.Tensor:
    """Distinct random text, made by TensorFlow: no Python objects are left from it."""
    letters = random.Random(size).choices(b"abcdefghijklmnop", k=COUNT + 4096)
    block = bytes(letters)
    return tf.constant([block[i : i + size] for i in range(COUNT)])


def _contenders(t: tf.Tensor) -> dict[str, list[Contender]]:
    to_torch, to_tf = tensor_bridge.to_torch, tensor_bridge.to_tf
    x = to_torch(t)
    listed = t.numpy().tolist()
    ours: Mapping[str, object] = {"to_torch": to_torch, "t": t}
    return {
        "a million strings": [
            Contender(TENSOR, "to_torch(t)", ours),
            Contender(LIST, "to_torch(t, strings='list')", ours),
            Contender(NUMPY, "t.numpy().tolist()", {"t": t}),
            Contender(FLOOR, "unpack(block)", _floor(listed)),
        ],
        "as text": [
            Contender(TEXT, "to_torch(t).to_str()", ours),
            Contender(NUMPY_TEXT, "[s.decode() for s in t.numpy().tolist()]", {"t": t}),
        ],
        "back": [
            Contender(SHARED_TO_TF, "to_tf(x)", {"to_tf": to_tf, "x": x}),
            Contender(CONSTANT, "constant(l)", {"constant": tf.constant, "l": listed}),
        ],
    }


def _floor(listed: Sequence[bytes]) -> dict[str, object]:
    """The floor for a list of bytes: the interpreter's own making and freeing of the objects."""
    form = struct.Struct(f"{len(listed[0])}s" * len(listed))
    return {"unpack": form.unpack, "block": b"".join(listed)}


def _check(contender: Contender, t: tf.Tensor) -> None:
    """Raises unless the result has the tensor's strings."""
    expected = t.numpy().tolist()
    result = contender.call()
    if isinstance(result, StringTensor):
        result = result.to_bytes()
    elif isinstance(result, tf.Tensor):
        result = result.numpy().tolist()
    elif isinstance(result[0], str):  # type: ignore[index]
        result = [text.encode() for text in result]  # type: ignore[attr-defined]
    elif isinstance(result, tuple):
        result = list(result)
    if result != expected:
        raise WrongResultError(f"{contender.statement} returned other strings")


# --- in a process of its own ------------------------------------------------------------------


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def _peak(size: int) -> float:
    """Peak resident memory that a conversion adds, divided by the bytes of its result."""
    tensor_bridge.to_torch(tf.constant([b"a", b"b"]))  # does lazy loading
    t = _strings(size)
    gc.collect()
    # Freed memory that malloc kept would hide the conversion's own.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    result = tensor_bridge.to_torch(t)
    return round((_status("VmHWM") - before) / result.nbytes, 3)


if __name__ == "__main__":
    sys.exit(main())
