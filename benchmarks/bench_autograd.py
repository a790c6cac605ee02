"""Times the cost of a gradient across the frameworks, compared with each framework's own.

The parts are timed apart in one interleaved run: the wrapped function forward and backward, the
same function in its own framework, and the smallest operation of the other one (`clone`,
`tf.identity`). The overhead is what remains. A ResNet50 of Keras trains through `TfModule` and
under a tf.GradientTape. Gradients are compared before anything is timed. Writes the numbers, with
machine and versions, to `results/autograd.json`.

    python benchmarks/bench_autograd.py [--quick] [--output FOLDER]
"""

from __future__ import annotations

import datetime
import gc
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
import torch
from _machine import describe_machine, describe_versions
from _report import WrongResultError, options_parser, write_json
from rich.console import Console
from rich.table import Table

import tensor_bridge
from tensor_bridge.autograd import TfModule, _tape, tf_to_torch, torch_to_tf

# Name of a case, and its contenders: the overhead is the first one's time minus the others'.
SMALL = (
    ("TensorFlow in torch", "tf_to_torch", ("GradientTape", "clone")),
    ("tf.function in torch", "tf_to_torch(tf.function)", ("GradientTape, tf.function", "clone")),
    ("torch in TensorFlow", "torch_to_tf", ("autograd", "tf.identity")),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints the table, writes the JSON."""
    options = options_parser(__doc__).parse_args(arguments)
    machine, versions = describe_machine(), describe_versions()
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    small = race(small_contenders(), rounds=20 if options.quick else 400, calls=5)
    cases = []
    for case, ours, parts in SMALL:
        overhead = small[ours]["fastest_us"] - sum(small[part]["fastest_us"] for part in parts)
        cases.append(
            {"case": case, "ours": ours, "parts": list(parts), "overhead_us": round(overhead, 1)}
        )
    large = [resnet(graph, options.quick) for graph in (False, True)]
    table = Table("function of 8 x 8", "forward + backward", "its parts", "overhead")
    for row in cases:
        parts_us = [small[part]["fastest_us"] for part in row["parts"]]
        table.add_row(
            row["case"],
            f"{small[row['ours']]['fastest_us']:.0f} us",
            " + ".join(f"{us:.0f}" for us in parts_us),
            f"{row['overhead_us']:.0f} us",
        )
    console.print(table)
    table = Table(
        "ResNet50, training step", "TfModule", "GradientTape", "difference", "outside TensorFlow"
    )
    for row in large:
        table.add_row(
            row["case"],
            f"{row['ours_ms']:.0f} ms",
            f"{row['tape_ms']:.0f} ms",
            f"{row['difference']:+.2%}",
            f"{row['own_share']:.2%}",
        )
    console.print(table)
    report = {
        "schema": 1,
        "date": datetime.date.today().isoformat(),
        "machine": machine,
        "versions": versions,
        "small": small,
        "cases": cases,
        "resnet": large,
    }
    console.print(f"Written: {write_json(options.output, 'autograd', report)}")
    return 0


def small_contenders() -> dict[str, Callable[[], Any]]:
    """Forward and backward of tanh(x) * x in every way; each returns the gradient."""
    x, upstream = tf.random.normal([8, 8]), tf.ones([8, 8])
    leaf = tensor_bridge.to_torch(x, copy=True).requires_grad_()
    ones = torch.ones(8, 8)

    def taped(f: Callable[[Any], Any]) -> Callable[[], Any]:
        def step() -> Any:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x)
                y = f(x)
            return tape.gradient(y, x, output_gradients=upstream)

        return step

    def autograd(f: Callable[[Any], Any]) -> Callable[[], Any]:
        def step() -> Any:
            return torch.autograd.grad(f(leaf), leaf, ones)[0]

        return step

    def in_tf(x: Any) -> Any:
        return tf.tanh(x) * x

    def in_torch(x: Any) -> Any:
        return torch.tanh(x) * x

    function = tf.function(in_tf)
    contenders = {
        "tf_to_torch": autograd(tf_to_torch(in_tf)),
        "tf_to_torch(tf.function)": autograd(tf_to_torch(function)),
        "torch_to_tf": taped(torch_to_tf(in_torch)),
        "GradientTape": taped(in_tf),
        "GradientTape, tf.function": taped(function),
        "autograd": autograd(in_torch),
        "clone": autograd(torch.clone),
        "tf.identity": taped(tf.identity),
    }
    expected = contenders["autograd"]()
    for name, step in contenders.items():
        found = step()
        found = found if isinstance(found, torch.Tensor) else tensor_bridge.to_torch(found)
        same = name in ("clone", "tf.identity") or torch.allclose(found, expected, atol=1e-5)
        if not same:
            raise WrongResultError(name)
    return contenders


def race(
    contenders: dict[str, Callable[[], Any]], rounds: int, calls: int
) -> dict[str, dict[str, float]]:
    """Wall time of a call of each: a tf.function runs in other threads too."""
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    gc.disable()
    for number in range(rounds):
        for name, step in contenders.items():
            start = time.perf_counter()
            for _ in range(calls):
                step()
            samples[name].append((time.perf_counter() - start) / calls * 1e6)
        if number % 50 == 0:
            gc.collect()
    gc.enable()
    return {
        name: {
            "fastest_us": round(min(taken), 2),
            "median_us": round(statistics.median(taken), 2),
        }
        for name, taken in samples.items()
    }


def resnet(graph: bool, quick: bool) -> dict[str, Any]:
    """Forward and backward of a ResNet50 to all its parameters."""
    size, batch = (32, 2) if quick else (224, 16)
    model = keras.applications.ResNet50(
        weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3)
    )
    x = tf.random.normal([batch, size, size, 3])
    leaf = tensor_bridge.to_torch(x)
    module = TfModule(model, graph=graph)
    parameters = list(module.parameters())

    def forward(x: Any) -> Any:
        return model(x, training=True)

    call = tf.function(forward, autograph=False) if graph else forward

    def ours() -> Any:
        return torch.autograd.grad(module(leaf).sum(), parameters)

    def tape_step() -> Any:
        with tf.GradientTape() as tape:
            y = tf.reduce_sum(call(x))
        return tape.gradient(y, model.trainable_variables)

    for mine, theirs in zip(ours(), tape_step(), strict=True):
        if not torch.allclose(mine, tensor_bridge.to_torch(theirs), rtol=1e-2, atol=1e-2):
            raise WrongResultError("ResNet50")
    rounds = 2 if quick else 6
    taken = race({"ours": ours, "tape": tape_step}, rounds=rounds, calls=1)
    mine_us, tape_us = taken["ours"]["fastest_us"], taken["tape"]["fastest_us"]

    def update() -> None:
        with torch.no_grad():
            torch._foreach_mul_(parameters, 1.0)

    share = statistics.median(own_share(module, ours, update) for _ in range(rounds))
    return {
        "case": "tf.function" if graph else "eager",
        "batch": batch,
        "image": size,
        "ours_ms": round(mine_us / 1e3, 2),
        "tape_ms": round(tape_us / 1e3, 2),
        "difference": round(mine_us / tape_us - 1, 5),
        "own_share": round(share, 5),
    }


def own_share(module: Any, step: Callable[[], Any], update: Callable[[], None]) -> float:
    """The part of a step that is spent outside TensorFlow's forward and backward.

    Before the step every parameter is written, as by an optimizer, so TensorFlow gets all of them.

    Steps of this length vary by more than the overhead, so two steps cannot be compared, but the
    parts of one step can.
    """
    inside = 0.0

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal inside
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                inside += time.perf_counter() - start

        return call

    function, tape = module._function, _tape.api()
    fn, gradient = function.fn, tape.gradient
    function.fn, tape.gradient = timed(fn), timed(gradient)
    update()
    try:
        start = time.perf_counter()
        gradients = step()
        taken = time.perf_counter() - start
        del gradients  # releasing their memory is not part of the step
        return 1 - inside / taken
    finally:
        function.fn, tape.gradient = fn, gradient


if __name__ == "__main__":
    sys.exit(main())
