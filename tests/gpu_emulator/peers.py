"""Finds the ways of conversion that race on the emulated device. NOT A GPU.

    python tests/gpu_emulator/emulated_gpu.py --command lazy -- python tests/gpu_emulator/peers.py
    python tests/gpu_emulator/peers.py --table     # writes the table of docs/concepts/gpu.md

For each way it counts in ROUNDS rounds the violations that the race detector saw, the rounds with
wrong values, and the waits of the host for the device. The counts are kept in result.json.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULT = HERE / "result.json"
DOCS = HERE.parents[1] / "docs" / "concepts" / "gpu.md"
BEGIN, END = "<!-- begin peers: written by tests/gpu_emulator/peers.py -->", "<!-- end peers -->"
OURS = ("`to_torch(", "`to_tf(", "`loader(", "`torch.from_dlpack(exporter(")
ROUNDS = 10
SIZE = 1 << 16
BUSY = 20_000_000  # cycles for which torch's stream is kept busy


def ready(to_torch: Callable[[Any], Any]) -> bool:
    """TensorFlow has queued the values; torch reads them on another stream."""
    import tensorflow as tf
    import torch

    t = tf.fill([SIZE], 1.0)
    for _ in range(5):
        t = t + 1.0
    with torch.cuda.stream(torch.cuda.Stream()):
        y = to_torch(t) * 1
    torch.cuda.synchronize()
    return bool((y == 6.0).all())


def dropped(to_torch: Callable[[Any], Any]) -> bool:
    """torch has queued a read when the tensor is deleted; TensorFlow then uses its memory again."""
    import tensorflow as tf
    import torch

    t = tf.fill([SIZE], 2.0)
    x = to_torch(t)
    torch.cuda._sleep(BUSY)  # type: ignore[no-untyped-call]
    y = x * 1
    del x, t
    kept = [tf.fill([SIZE], -1.0) for _ in range(4)]
    torch.cuda.synchronize()
    del kept
    return bool((y == 2.0).all())


def written(to_torch: Callable[[Any], Any]) -> bool:
    """torch writes; TensorFlow's tensor keeps its values."""
    import tensorflow as tf
    import torch

    t = tf.fill([SIZE], 3.0)
    x = to_torch(t)
    x.mul_(2)
    torch.cuda.synchronize()
    del x
    return bool(tf.reduce_all(t == 3.0))


def back(to_tf: Callable[[Any], Any]) -> bool:
    """torch has queued a write; TensorFlow reads the tensor on its own stream."""
    import tensorflow as tf
    import torch

    x = torch.ones(SIZE, device="cuda")
    torch.cuda._sleep(BUSY)  # type: ignore[no-untyped-call]
    x.add_(3)
    t = to_tf(x)
    right = bool(tf.reduce_all(t * 1.0 == 4.0))
    torch.cuda.synchronize()
    return right


def elements(batches: Callable[[Any], Any]) -> bool:
    """A loop over a pipeline whose elements are read and dropped while the stream is busy."""
    import tensorflow as tf
    import torch

    with tf.device("CPU:0"):
        pipeline = tf.data.Dataset.range(6).map(lambda i: tf.fill([SIZE], tf.cast(i, tf.float32)))
        sums = []
        for x in batches(pipeline):
            torch.cuda._sleep(BUSY)  # type: ignore[no-untyped-call]
            sums.append(x.sum())
            del x
    return [float(s) for s in sums] == [float(i * SIZE) for i in range(6)]


def ways() -> dict[str, list[tuple[str, Callable[[], bool]]]]:
    """The rows of the table: what is tried, and the ways to do it."""
    import tensorflow as tf
    import torch

    import tensor_bridge
    from tensor_bridge.data import loader
    from tensor_bridge.dlpack import exporter

    def by_pair(t: Any) -> Any:
        return torch.from_dlpack(tf.experimental.dlpack.to_dlpack(t))

    def pair_back(x: Any) -> Any:
        return tf.experimental.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(x))

    def by_numpy(pipeline: Any) -> Any:
        return (torch.from_numpy(x).to("cuda") for x in pipeline.as_numpy_iterator())

    def by_numpy_pinned(pipeline: Any) -> Any:
        for x in pipeline.as_numpy_iterator():
            yield torch.from_numpy(x).pin_memory().to("cuda", non_blocking=True)

    to_torch = {
        "`to_torch(t)`": tensor_bridge.to_torch,
        "`torch.from_dlpack(exporter(t))`": lambda t: torch.from_dlpack(exporter(t)),
        "`torch.from_dlpack(to_dlpack(t))`": by_pair,
        "`torch.from_dlpack(t)`": torch.from_dlpack,
    }
    to_tf = {
        "`to_tf(x)`": lambda x: tensor_bridge.to_tf(x, device="GPU:0"),
        "`from_dlpack(torch's to_dlpack(x))`": pair_back,
    }
    loaders = {
        '`loader(ds, device="cuda")`': lambda ds: loader(ds, device="cuda"),
        '`as_numpy_iterator()`, `.to("cuda")`': by_numpy,
        "the same, pinned and `non_blocking=True`": by_numpy_pinned,
    }
    orders: list[tuple[str, Any, dict[str, Any]]] = [
        ("TensorFlow's values are still queued", ready, to_torch),
        ("dropped while torch's read is queued", dropped, to_torch),
        ("torch writes", written, to_torch),
        ("torch's values are still queued", back, to_tf),
        ("a loop over 6 elements", elements, loaders),
    ]
    return {
        what: [(way, lambda order=order, way=functions[way]: order(way)) for way in functions]
        for what, order, functions in orders
    }


def tried(attempt: Callable[[], bool]) -> dict[str, Any]:
    """The counts of ROUNDS rounds, or the error of the first round."""
    import emulator
    import torch

    emulator.take_violations()
    violations = wrong = waits = 0
    for _ in range(ROUNDS):
        try:
            with emulator.logged() as calls:
                right = attempt()
        except Exception as e:
            torch.cuda.synchronize()
            emulator.take_violations()
            return {"error": str(e).splitlines()[0]}
        violations += bool(emulator.take_violations())
        wrong += not right
        waits += len(emulator.host_waits(calls))
    return {"violations": violations, "wrong": wrong, "waits": waits / ROUNDS}


def measure() -> dict[str, Any]:
    """Measures all rows."""
    import emulator

    emulator.load()
    import tensorflow as tf

    found: dict[str, Any] = {}
    for what, attempts in ways().items():
        with tf.device("GPU:0"):
            found[what] = {way: tried(attempt) for way, attempt in attempts}
    return found


def table(peers: dict[str, Any]) -> str:
    """The table of the docs."""
    rows = [
        "| what is tried | way | rounds with a race | with wrong values | waits of the host |",
        "| --- | --- | --- | --- | --- |",
    ]
    for what, found in peers.items():
        for way, seen in found.items():
            if "error" in seen:
                cells = [f"refused: {seen['error']}", "", ""]
            else:
                counts = [f"{seen[key]} of {ROUNDS}" for key in ("violations", "wrong")]
                cells = [*counts, f"{seen['waits']:g}"]
            rows.append(f"| {' | '.join([what, way, *cells])} |")
    return "\n".join(rows)


def updated_docs() -> str:
    """The page with the table of the result."""
    text = DOCS.read_text("utf-8")
    peers = json.loads(RESULT.read_text("utf-8"))["peers"]["found"]
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    return pattern.sub(lambda _: f"{BEGIN}\n{table(peers)}\n{END}", text)


def main(arguments: list[str]) -> int:
    """Measures, or writes the table."""
    if arguments == ["--table"]:
        DOCS.write_text(updated_docs(), "utf-8")
        return 0
    import emulated_gpu

    found = measure()
    print(json.dumps(found, indent=2))
    print(table(found))
    emulated_gpu.keep(peers={"commit": emulated_gpu.commit(), "found": found})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
