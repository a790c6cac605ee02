"""A real TensorFlow model's weights and outputs in PyTorch, without a copy and without a risk.

Loads the SavedModel inside the PyPI package guesslang, runs it in TensorFlow on this repository's
own source files, converts everything to PyTorch, checks and times it beside the two ways that
people use today, and shows what an in-place write does each way. Then reads the model's file and a
TFRecord file without TensorFlow, and differentiates through both frameworks. Fails if any check
fails.

    python examples/demo.py
"""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
import tempfile
import timeit
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import _demo_model  # before TensorFlow, whose log it quiets
import tensorflow as tf
import torch
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import tensor_bridge
from tensor_bridge import testing
from tensor_bridge.autograd import tf_to_torch

HERE = Path(__file__).resolve().parent
TIMING_ROUNDS = 25
BATCH_S = 0.001
NAME_WIDTH = 27

console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)


@dataclass
class Checks:
    """What was checked; the exit status depends on it."""

    passed: int = 0
    failures: list[str] = field(default_factory=list)

    def expect(self, condition: bool, claim: str) -> bool:
        """Counts a claim that must be true."""
        if condition:
            self.passed += 1
        else:
            self.failures.append(claim)
        return condition


@dataclass(frozen=True)
class Way:
    """One way to get a tensor into PyTorch: the statement that is run, checked and timed."""

    statement: str
    names: Mapping[str, object]

    def timer(self, source: tf.Tensor | tf.Variable, statement: str | None = None) -> timeit.Timer:
        """A timing loop in which every name is a local variable."""
        names = {**self.names, "t": source}
        setup = "; ".join(f"{name} = _{name}" for name in names)
        given = {f"_{name}": value for name, value in names.items()}
        return timeit.Timer(statement or self.statement, setup, globals=given)


def main() -> int:
    """Runs all parts of the demo."""
    checks = Checks()
    model = _demo_model.load_model()
    console.print(
        f"tensor_bridge {tensor_bridge.__version__}, TensorFlow {tf.__version__}, "
        f"torch {torch.__version__}, on the CPU"
    )
    outputs = run_model(model, checks)
    convert_all(model, outputs, checks)
    write_in_place(checks)
    read_files(model, outputs, checks)
    differentiate(model, outputs, checks)
    console.print()
    for failure in checks.failures:
        console.print(f"[bold red]FAILED[/]  {escape(failure)}")
    if checks.failures:
        console.print(f"{len(checks.failures)} checks failed, {checks.passed} passed")
        return 1
    console.print(f"[green]All {checks.passed} checks passed.[/]")
    return 0


# --- 1: the model runs in TensorFlow --------------------------------------------------------------


def run_model(model: _demo_model.Model, checks: Checks) -> dict[str, tf.Tensor]:
    """Lets the model guess the language of this repository's files; returns inputs and outputs."""
    heading("1. The model runs in TensorFlow, on this repository's source files")
    paths = _demo_model.source_files()
    texts = _demo_model.read_texts(paths)
    guesses = model.guess(texts)
    checks.expect(len(guesses) == len(paths) > 0, "the model answers for every source file")

    by_suffix: dict[str, Counter[str]] = {}
    for path, (language, _) in zip(paths, guesses, strict=True):
        by_suffix.setdefault(path.suffix, Counter())[language] += 1
    table = plain_table()
    for column in ("files", "", "guessed"):
        table.add_column(column, justify="right" if column == "files" else "left")
    for suffix, counts in sorted(by_suffix.items(), key=lambda item: -item[1].total()):
        guessed = ", ".join(f"{language} {count}" for language, count in counts.most_common())
        table.add_row(str(counts.total()), suffix, guessed)
    console.print(table)
    return {"texts (input)": texts, **dict(sorted(model.predict(texts).items()))}


# --- 2: weights and outputs in PyTorch ------------------------------------------------------------


def convert_all(model: _demo_model.Model, outputs: Mapping[str, tf.Tensor], checks: Checks) -> None:
    """Converts, checks and times every tensor, three ways."""
    heading("2. Its weights and outputs in PyTorch: nanoseconds a conversion, medians of this run")
    table = plain_table()
    table.add_column("tensor", no_wrap=True)
    table.add_column("dtype", no_wrap=True)
    table.add_column("shape", justify="right", no_wrap=True)
    for way in ("tensor_bridge", "DLPack", "NumPy"):
        table.add_column(way, justify="right", no_wrap=True)

    medians: list[tuple[bool, list[float]]] = []
    sources: dict[str, tf.Tensor | tf.Variable] = {
        short_name(variable.name): variable for variable in model.variables
    }
    sources |= outputs
    for name, source in sources.items():
        cells = [name, source.dtype.name, shape_text(source.shape)]
        explanation = tensor_bridge.explain(source)
        if source.dtype == tf.string:
            ours, numpy = check_strings(name, source, checks)
            cells += [
                f"[yellow]copied[/] {ours:>7,.0f}",
                "[red]aborts, see 3[/]",
                f"{numpy:>7,.0f}",
            ]
        else:
            verdicts = [
                check_result(name, source, label, way, checks)
                for label, way in ways(source).items()
            ]
            checks.expect(
                explanation.action == verdicts[0], f"{name}: explain() says what conversion does"
            )
            times = race([way.timer(source) for way in ways(source).values()])
            medians.append((isinstance(source, tf.Variable), times))
            cells += [
                f"[{'green' if how == 'shared' else 'yellow'}]{how}[/] {ns:>7,.0f}"
                for how, ns in zip(verdicts, times, strict=True)
            ]
        table.add_row(*cells, end_section=name == list(sources)[len(model.variables) - 1])
    console.print(table)

    console.print("DLPack  torch.utils.dlpack.from_dlpack(tf.experimental.dlpack.to_dlpack(t))")
    console.print("NumPy   torch.from_numpy(t.numpy()), at rank 0 torch.as_tensor(t.numpy())")
    console.print("        For a variable, t is v.read_value(); tensor_bridge takes v itself.")
    console.print(
        "        Strings become one block of bytes with offsets; NumPy's are bytes objects."
    )
    for kind, is_variable in (("variables", True), ("outputs", False)):
        ratios = [[ns / times[0] for ns in times] for of, times in medians if of is is_variable]
        _, dlpack, numpy = (statistics.median(column) for column in zip(*ratios, strict=True))
        console.print(
            f"{kind}: DLPack takes {dlpack:.1f} and NumPy {numpy:.1f} times as long as "
            "tensor_bridge (medians)"
        )

    logits = tensor_bridge.to_torch(outputs["logits"])
    probabilities = tensor_bridge.to_torch(outputs["probabilities"])
    agree = torch.allclose(torch.softmax(logits, dim=1), probabilities, atol=1e-6)
    checks.expect(agree, "torch's softmax of the shared logits gives the model's probabilities")
    checks.expect(
        testing.shares_memory(outputs["logits"], logits), "computing with a tensor keeps it shared"
    )
    console.print(
        "\ntorch.softmax(logits) in PyTorch gives the probabilities that TensorFlow computed: "
        f"{'yes' if agree else 'NO'}"
    )


def ways(source: tf.Tensor | tf.Variable) -> dict[str, Way]:
    """The statements for `source`, ours first; a variable must be read first the other ways."""
    t = "t.read_value()" if isinstance(source, tf.Variable) else "t"
    from_numpy = torch.from_numpy if source.shape.rank else torch.as_tensor
    return {
        "tensor_bridge": Way("to_torch(t)", {"to_torch": tensor_bridge.to_torch}),
        "DLPack": Way(
            f"from_dlpack(to_dlpack({t}))",
            {
                "from_dlpack": torch.utils.dlpack.from_dlpack,
                "to_dlpack": tf.experimental.dlpack.to_dlpack,
            },
        ),
        "NumPy": Way(f"from_numpy({t}.numpy())", {"from_numpy": from_numpy}),
    }


def check_result(
    name: str, source: tf.Tensor | tf.Variable, label: str, way: Way, checks: Checks
) -> str:
    """Checks that the bytes are the same; returns "shared" or "copied", by address."""
    results: list[torch.Tensor] = []
    Way(way.statement, {**way.names, "results": results}).timer(
        source, f"results.append({way.statement})"
    ).timeit(1)
    (result,) = results
    t = source.read_value() if isinstance(source, tf.Variable) else source
    expected = torch.as_tensor(t.numpy())
    same = (
        result.dtype == expected.dtype
        and result.shape == expected.shape
        and torch.equal(raw_bytes(result), raw_bytes(expected))
    )
    checks.expect(same, f"{name}, {label}: PyTorch has the same bytes")
    shared = testing.shares_memory(t, result)
    if label == "tensor_bridge":
        checks.expect(shared, f"{name}: shared with TensorFlow")
        checks.expect(testing.shares_memory(t, result), f"{name}: still shared after reading it")
    return "shared" if shared else "copied"


def raw_bytes(x: torch.Tensor) -> torch.Tensor:
    """A view of the bytes: equal values with other bytes (0.0 and -0.0) must not pass."""
    return x.reshape(-1).view(torch.uint8)


def check_strings(name: str, source: tf.Tensor, checks: Checks) -> tuple[float, float]:
    """Checks that every string is the same; returns nanoseconds, ours and NumPy's."""
    strings = tensor_bridge.to_torch(source)
    same = strings.tolist() == source.numpy().tolist()
    checks.expect(same, f"{name}: PyTorch has the same strings")
    ours = Way("to_torch(t)", {"to_torch": tensor_bridge.to_torch})
    ours_ns, numpy_ns = race([ours.timer(source), Way("t.numpy().tolist()", {}).timer(source)])
    return ours_ns, numpy_ns


def race(timers: Sequence[timeit.Timer]) -> list[float]:
    """Median nanoseconds a call of each, batches interleaved so that noise hits all alike."""
    numbers = []
    for timer in timers:
        timer.timeit(1)  # the first call loads what is lazy
        number = 1
        while (seconds := timer.timeit(number)) < BATCH_S / 4:
            number *= 2
        numbers.append(max(1, round(number * BATCH_S / seconds)))
    samples: list[list[float]] = [[] for _ in timers]
    for _ in range(TIMING_ROUNDS):
        for timer, number, values in zip(timers, numbers, samples, strict=True):
            values.append(timer.timeit(number) / number * 1e9)
    return [statistics.median(values) for values in samples]


# --- 3: what an in-place write does ---------------------------------------------------------------

# The code of each case, as `_demo_write.py` runs it.
STORIES = {
    "constant": (
        "to_torch(tf.constant(5.0)).add_(1)",
        "to_torch(tf.constant(1.0, tf.float32)).add_(1)",
    ),
    "gradient": ("to_torch(tape.gradient(loss, v)).zero_()",),
    "weight": ("to_torch(variable).zero_()",),
    "text": ('to_torch(tf.constant(["some text"])).bytes.zero_()',),
}


@dataclass(frozen=True)
class Outcome:
    """How a process of `_demo_write.py` ended: what it said, or what killed it."""

    before: dict[str, str]
    after: dict[str, str]
    death: str | None = None


def write_in_place(checks: Checks) -> None:
    """Writes into converted tensors, each way and each case in a process of its own."""
    heading("3. PyTorch writes in place: what TensorFlow says afterwards, in the same process")
    jobs = [(case, way) for case in STORIES for way in ("dlpack", "tensor_bridge")]
    # Two at a time: each loads both frameworks.
    status = console.status(f"running {len(jobs)} processes")
    with status, ThreadPoolExecutor(max_workers=2) as pool:
        outcomes = dict(zip(jobs, pool.map(lambda job: run_case(*job), jobs), strict=True))

    table = answer_table()
    table.add_row("", "expected", "DLPack way", "tensor_bridge", style="bold")
    console.print(table)
    for case, story in STORIES.items():
        console.print()
        for line in story:
            console.print(f"  [cyan]{escape(line)}[/]")
        console.print(
            compare(case, outcomes[case, "dlpack"], outcomes[case, "tensor_bridge"], checks)
        )
    console.print(
        "\nEach case and way has a process of its own; expected is what it says beforehand."
    )


def compare(case: str, theirs: Outcome, ours: Outcome, checks: Checks) -> Table:
    """Checks a case, and shows both outcomes side by side."""
    checks.expect(ours.death is None, f"{case}: the process lives on ({ours.death})")
    asked = ours.before or theirs.before
    wanted = asked
    if case != "text":  # there the DLPack way ends the process
        checks.expect(theirs.death is None, f"{case}: the comparison ran ({theirs.death})")
        checks.expect(theirs.before == ours.before, f"{case}: both ways begin alike")
    table = answer_table()
    for question, expected in asked.items():
        good = ours.after.get(question) == wanted[question]
        checks.expect(good, f"{case}: {question} gives {wanted[question]}")
        table.add_row(
            f"    {escape(question)}",
            escape(expected),
            answer(theirs, question, theirs.after.get(question) == expected),
            answer(ours, question, good),
        )
    return table


def run_case(case: str, way: str) -> Outcome:
    """Runs `_demo_write.py` and reads its answer."""
    done = subprocess.run(
        [sys.executable, str(HERE / "_demo_write.py"), case, way],
        capture_output=True,
        text=True,
        check=False,
        cwd=_demo_model.ROOT,
        timeout=300,
    )
    if done.returncode < 0:
        return Outcome({}, {}, f"killed by {signal.Signals(-done.returncode).name}")
    if done.returncode > 0:
        last = done.stderr.strip().splitlines()[-1:] or [""]
        return Outcome({}, {}, f"failed: {last[0]}")
    answer = json.loads(done.stdout.splitlines()[-1])
    return Outcome(answer["before"], answer["after"])


def answer(outcome: Outcome, question: str, good: bool) -> str:
    """A coloured cell."""
    text = outcome.death or outcome.after.get(question, "no answer")
    return f"[{'green' if good else 'bold red'}]{escape(text)}[/]"


# --- 4: files without TensorFlow ------------------------------------------------------------------


def read_files(model: _demo_model.Model, outputs: Mapping[str, tf.Tensor], checks: Checks) -> None:
    """Reads the model's file, and a TFRecord file of texts and guesses, in another process."""
    heading("4. The model's file and a TFRecord file, read in a process without TensorFlow")
    texts, labels = outputs["texts (input)"].numpy(), outputs["classes"][:, 0].numpy()
    with tempfile.TemporaryDirectory() as folder:
        path, result = f"{folder}/guesses.tfrecord", f"{folder}/result"
        with tf.io.TFRecordWriter(path) as writer:
            for text, label in zip(texts, labels, strict=True):
                writer.write(example(text=text, label=label).SerializeToString())
        size = Path(path).stat().st_size
        done = subprocess.run(
            [sys.executable, str(HERE / "_demo_files.py"), str(model.folder), path, result],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if not checks.expect(done.returncode == 0, f"the files are read ({done.stderr[-300:]})"):
            return
        said, found = json.loads(done.stdout.splitlines()[-1]), torch.load(result)
    checks.expect(not said["tensorflow"], "the files are read without TensorFlow")

    weights = {v.name.removesuffix(":0"): v for v in model.variables if v.dtype.is_floating}
    checks.expect(found["weights"].keys() == weights.keys(), "the file has the model's weights")
    for name, x in found["weights"].items():
        same = torch.equal(raw_bytes(x), raw_bytes(tensor_bridge.to_torch(weights[name])))
        checks.expect(same, f"{name}: the file has the bytes that TensorFlow loaded")
    checks.expect(found["text"].tolist() == texts.tolist(), "the records have every text")
    checks.expect(found["label"].tolist() == labels.tolist(), "the records have every guess")

    table = plain_table()
    for column in ("", "holds", "MB", "ms"):
        table.add_column(column, justify="right" if column in ("MB", "ms") else "left")
    stored = sum(x.nbytes for x in found["weights"].values())
    rows = (
        ("SavedModel", f"{len(found['weights'])} weights", stored, said["weights_ms"]),
        ("TFRecord file", f"{len(texts)} texts, {len(labels)} guesses", size, said["records_ms"]),
    )
    for name, holds, nbytes, milliseconds in rows:
        table.add_row(name, holds, f"{nbytes / 1e6:.1f}", f"{milliseconds:.0f}")
    console.print(table)


def example(**features: bytes) -> tf.train.Example:
    """Bytes features as a tf.train.Example."""
    stored = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        for name, value in features.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=stored))


# --- 5: a gradient through both -------------------------------------------------------------------


def differentiate(
    model: _demo_model.Model, outputs: Mapping[str, tf.Tensor], checks: Checks
) -> None:
    """Torch's loss over TensorFlow's layers: its gradient, beside that of TensorFlow alone."""
    heading("5. PyTorch's loss over the model's TensorFlow layers: one gradient through both")
    weights = {variable.name.removesuffix(":0"): variable for variable in model.variables}
    layers = ("dnn/hiddenlayer_0", "dnn/hiddenlayer_1", "dnn/logits")

    def logits(inputs: tf.Tensor) -> tf.Tensor:
        for layer in layers:
            inputs = inputs @ weights[f"{layer}/kernel"] + weights[f"{layer}/bias"]
            inputs = inputs if layer == layers[-1] else tf.nn.relu(inputs)
        return inputs

    inputs = tf.random.stateless_normal((64, 70), seed=(1, 2))
    classes = outputs["class_ids"][:64, 0]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits(inputs))
        loss = tf.reduce_mean(losses)
    expected = tensor_bridge.to_torch(tape.gradient(loss, inputs))

    x = tensor_bridge.to_torch(inputs).clone().requires_grad_()
    scores = tf_to_torch(logits)(x)
    torch.nn.functional.cross_entropy(scores, tensor_bridge.to_torch(classes)).backward()
    assert x.grad is not None
    agree = torch.allclose(x.grad, expected, rtol=1e-4, atol=1e-7)
    checks.expect(bool(expected.any()), "the gradient is not zero")
    checks.expect(agree, "the gradient through both frameworks is TensorFlow's")
    difference = ((x.grad - expected).norm() / expected.norm()).item()
    console.print(
        f"  [cyan]{escape('cross_entropy(tf_to_torch(logits)(x), classes).backward()')}[/]"
    )
    console.print(
        f"  x.grad is the gradient that TensorFlow alone computes: {'yes' if agree else 'NO'} "
        f"(relative difference {difference:.0e})"
    )


# --- display --------------------------------------------------------------------------------------


def heading(text: str) -> None:
    """A section's title."""
    console.print()
    console.print(f"[bold]{escape(text)}[/]")


def plain_table() -> Table:
    """A table without vertical rules, which fits 100 columns."""
    return Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)


def answer_table() -> Table:
    """A table of fixed widths, so that several stand under one another as one."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    table.add_column(width=40)
    for width in (13, 18, 22):
        table.add_column(width=width, justify="right")
    return table


def short_name(name: str) -> str:
    """The end of a variable's path, which tells the variables apart."""
    name = name.removesuffix(":0")
    return name if len(name) <= NAME_WIDTH else "\u2026" + name[1 - NAME_WIDTH :]


def shape_text(shape: Sequence[int]) -> str:
    """A shape as people write it."""
    return "x".join(str(size) for size in shape) or "scalar"


if __name__ == "__main__":
    sys.exit(main())
