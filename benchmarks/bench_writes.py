"""Times the first write to a converted tensor whose tf.Tensor is gone, and similar calls.

It is compared with the same call while TensorFlow holds the tensor, which copies, and with the call
on torch's own tensor. Every sample has a new tensor, made by the same work: TensorFlow makes one,
and its bytes are copied into a new torch tensor. So code and bytes are equally cold for all. All
numbers of one case come from one interleaved run, on one torch thread; values and addresses are
checked.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import io
import itertools
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf
import torch
from _report import Options, Report, WrongResultError, parse_options
from _timing import Timing
from torch import nn

import tensor_bridge
from tensor_bridge.data import loader

OWN = "torch's own"
GONE = "tf.Tensor gone"
HELD = "tf.Tensor held"
ALONE = "no loader"

LEGEND = {
    OWN: "a tensor that torch allocated, with the bytes of what TensorFlow made",
    GONE: "tensor_bridge's, and nobody else has the buffer: the write stays where it is",
    HELD: "the same, with a tf.Tensor over the buffer: the write moves the tensor onto a copy",
    ALONE: "torch's own batches, while TensorFlow makes none",
}
WAYS = (OWN, GONE, HELD)
SIZES = {"16 B": (4, 601), "1 MB": (2**18, 201), "64 MB": (2**24, 25)}
CALLS_COUNT, CALLS_ROUNDS = 2**22, 41
BATCHES, BATCH, FEATURES = 12, 256, 3 * 64 * 64

# Makes converted float32 vectors of TensorFlow with this number of elements.
Source = tuple[int, Iterator[torch.Tensor]]
# Makes the timed call from its tensor.
Prepare = Callable[[torch.Tensor], Callable[[], object]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints the tables, writes the JSON."""
    options = parse_options(__doc__, arguments)
    torch.set_num_threads(1)
    gc.disable()
    cuda = torch.cuda.is_available()
    report = Report("writes", LEGEND, torch_threads=1, pinning=cuda)
    for group, source in (("loader's element", elements), ("op's result", results)):
        for size, (count, rounds) in SIZES.items():
            for way, (timing, moved) in race(double, source(count), options.rounds(rounds)).items():
                if moved != (way == HELD):
                    raise WrongResultError(f"{group}, {size}, {way}: moved is {moved}")
                report.add_timing(f"first write, {group}", size, way, timing, moved=moved)
    for way, timing in training(options).items():
        report.add_timing("training loop", "a batch of 12 MB", way, timing)
    for call, prepare in calls().items():
        timings = race(prepare, elements(CALLS_COUNT), options.rounds(CALLS_ROUNDS))
        for way, (timing, moved) in timings.items():
            report.add_timing("calls, 16 MB", call, way, timing, moved=moved)
    if not cuda:
        report.console.print("Pinning was not measured: torch has no CUDA here.")
    return report.finish(options)


def elements(count: int) -> Source:
    """A loader's elements, without prefetching, so that nothing else runs during the timing."""
    numbers = tf.data.Dataset.range(1, 2**20)
    ds = numbers.map(lambda i: tf.fill([count], tf.cast(i, tf.float32)))
    return count, iter(loader(ds, prefetch=0))


def results(count: int) -> Source:
    """Results of an operation."""
    t = tf.random.stateless_uniform((count,), seed=(1, 2))
    return count, (tensor_bridge.to_torch(t + 1.0) for _ in itertools.count())


def double(x: torch.Tensor) -> Callable[[], object]:
    return lambda: x.mul_(2)


def race(prepare: Prepare, source: Source, rounds: int) -> dict[str, tuple[Timing, bool]]:
    """The time of a first call in each way, and whether it moved the tensor."""
    samples: dict[str, list[int]] = {way: [] for way in WAYS}
    moves: dict[str, set[bool]] = {way: set() for way in WAYS}
    for way in WAYS:
        check(way, prepare, source)
    gc.collect()
    for _ in range(rounds):
        for way in random.sample(WAYS, len(WAYS)):
            x, held = make(way, source)
            call, address = prepare(x), x.const_data_ptr()
            start = time.perf_counter_ns()
            result = call()
            samples[way].append(time.perf_counter_ns() - start)
            moves[way].add(x.const_data_ptr() != address)
            del x, held, call, result
    for way, seen in moves.items():
        if len(seen) != 1:
            raise WrongResultError(f"{way}: some calls moved the tensor, and some did not")
    return {way: (Timing.of(samples[way], 1), moves[way].pop()) for way in WAYS}


def make(way: str, source: Source) -> tuple[torch.Tensor, object]:
    """A new tensor, and the object that must live as long."""
    count, tensors = source
    own = torch.empty(count)
    address = own.data_ptr()
    theirs = next(tensors)
    ctypes.memmove(address, theirs.const_data_ptr(), 4 * count)  # past torch: its code stays cold
    if way == OWN:
        return own, None
    return theirs, tensor_bridge.to_tf(theirs) if way == HELD else None


def check(way: str, prepare: Prepare, source: Source) -> None:
    """Raises unless the call has the same effect as on a clone; also does lazy loading."""
    x, held = make(way, source)
    twin = x.clone()
    prepare(twin)()
    prepare(x)()
    if not torch.equal(x, twin):
        raise WrongResultError(f"{way}: other values than torch's own")
    del held


def calls() -> dict[str, Prepare]:
    """The calls that ask for a pointer to write through."""
    gradient = torch.full((CALLS_COUNT,), 0.5)
    compiled = torch.compile(lambda a: a.sin() + 1)

    def normalise(x: torch.Tensor) -> Callable[[], object]:
        return lambda: x.sub_(0.5).div_(0.25)

    def step(x: torch.Tensor) -> Callable[[], object]:
        parameter = nn.Parameter(x)
        parameter.grad = gradient
        return torch.optim.SGD([parameter], lr=0.5).step

    found: dict[str, Prepare] = {
        "x.sub_().div_()": normalise,
        "x.numpy()": lambda x: x.numpy,
        "x.data_ptr()": lambda x: x.data_ptr,
        "torch.save(x)": lambda x: functools.partial(torch.save, x, io.BytesIO()),
        "torch.compile": lambda x: functools.partial(compiled, x),
        "SGD().step()": step,
        "share_memory_()": lambda x: x.share_memory_,
    }
    return found | ({"pin_memory()": lambda x: x.pin_memory} if torch.cuda.is_available() else {})


def training(options: Options) -> dict[str, Timing]:
    """The time of a batch in an epoch that normalises its batches in place, by their source.

    torch's own batches exist before the epoch begins; the loader runs beside them nevertheless.
    """
    shape = ((1 + BATCHES) * BATCH, FEATURES)
    ds = tf.data.Dataset.from_tensor_slices(tf.random.stateless_uniform(shape, seed=(1, 2))).batch(
        BATCH
    )
    labels = torch.arange(BATCH) % 10

    def epoch(way: str) -> tuple[float, float]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(FEATURES, 64), nn.ReLU(), nn.Linear(64, 10))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        batches = iter(loader(ds))
        if way in (OWN, ALONE):
            own = [x.clone() for x in loader(ds)]
            batches = (x for x, _ in zip(own, batches, strict=True)) if way == OWN else iter(own)
        next(batches)  # the start of the pipeline is not part of the loop
        loss = torch.zeros(())
        start = time.perf_counter()
        for x in batches:
            held = tensor_bridge.to_tf(x) if way == HELD else None
            x.sub_(0.5).div_(0.25)
            loss = nn.functional.cross_entropy(model(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            del held
        return (time.perf_counter() - start) / BATCHES * 1e9, loss.item()

    ways = (*WAYS, ALONE)
    if len(losses := {epoch(way)[1] for way in ways}) != 1:
        raise WrongResultError(f"training on the same batches ended at losses of {losses}")
    samples: dict[str, list[float]] = {way: [] for way in ways}
    gc.collect()
    for _ in range(options.rounds(15)):
        for way in random.sample(ways, len(ways)):
            samples[way].append(epoch(way)[0])
    return {way: Timing.of(samples[way], BATCHES) for way in ways}


if __name__ == "__main__":
    sys.exit(main())
