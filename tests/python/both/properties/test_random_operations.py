"""Long random programs over everything that shares or copies, compared with a model.

`support/sharing_model.py` has the rules, `support/random_programs.py` defines programs. A program
that fails is shrunk and printed as a line for `found_programs.jsonl`, whose programs run every
time.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import needs
import pytest
import tensorflow as tf
import torch
from dense_operations import torch_tensor
from random_operations import Operations
from random_programs import Maker, Program, generate, grow, replay, shrink
from sharing import from_bytes, tf_bytes, torch_bytes
from sharing_machine import Failure, Library
from sharing_model import Rules, owners

import tensor_bridge
from tensor_bridge.testing import live_owners

pytestmark = [
    needs.torch_since(13, "its tensors are copied to TensorFlow"),
    needs.tensorflow_since(21, "nobody compared the model with it"),
    pytest.mark.filterwarnings("ignore"),
]

LENGTH = 200
FOUND = Path(__file__).with_name("found_programs.jsonl")


def fails_so(make: Maker, program: Program, failure: Failure) -> bool:
    """Whether the program fails in the same way."""
    found = replay(make, program)
    return found is not None and found.what == failure.what


def report(make: Maker, seed: str, program: Program, failure: Failure) -> str:
    """The text of a failure: what failed, and the line to keep."""
    again = fails_so(make, program, failure)
    if again:
        program = shrink(program, lambda part: fails_so(make, part, failure))
    line = json.dumps({"found": failure.what, "program": program})
    return (
        f"seed {seed!r}: {failure}\n"
        + (
            ""
            if again
            else "It does not fail when it is run again: threads, or what went before.\n"
        )
        + f"When it is mended, add to {FOUND.name}:\n{line}"
    )


def check(folder: Path, seed: str, operations: int, library: Library | None = None) -> int:
    """Runs programs. Returns how often torch took over TensorFlow's memory in place."""
    made: list[Operations] = []

    def make() -> Operations:
        made.append(Operations(folder, library))
        return made[-1]

    for i in range(operations // LENGTH):
        program, failure = generate(make, f"{seed} {i}", LENGTH)
        if failure is not None:
            pytest.fail(report(make, f"{seed} {i}", program, failure), pytrace=False)
    return sum(machine.taken_over for machine in made)


def test_random_operations(tmp_path: Path) -> None:
    assert check(tmp_path, "ordinary", 5_000) > 0


LINES = [json.loads(line) for line in FOUND.read_text().splitlines()]


@pytest.mark.parametrize("line", LINES, ids=[line["found"] for line in LINES])
def test_what_was_found_once(line: dict[str, Any], tmp_path: Path) -> None:
    failure = replay(lambda: Operations(tmp_path), line["program"])
    assert failure is None, f"{line['found']}: {failure}"


def test_the_exception_for_slices_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, TensorFlow has fixed it: delete `Rules.tensorflow_writes`."""
    monkeypatch.setattr(Rules, "tensorflow_writes", staticmethod(lambda node, sliced: False))
    failure = replay(lambda: Operations(tmp_path), LINES[0]["program"])
    assert failure is not None
    assert failure.what == "TensorFlow wrote where others look"


# ---- many ----------------------------------------------------------------------------------------


@pytest.fixture
def seed(capsys: pytest.CaptureFixture[str]) -> str:
    """A new seed each time, printed at once, because a crash leaves nothing else."""
    chosen = os.environ.get("RANDOM_OPERATIONS_SEED") or os.urandom(4).hex()
    with capsys.disabled():
        print(f"RANDOM_OPERATIONS_SEED={chosen}", flush=True)
    return chosen


@pytest.mark.exhaustive
@pytest.mark.alone
def test_a_million_random_operations(seed: str, tmp_path: Path) -> None:
    check(tmp_path, seed, 1_000_000)


THREADS = 8


def common_values() -> list[tuple[int, Any, bytes]]:
    """Tensors that all threads share and that no thread writes to."""
    content = bytes(range(64)) * 4
    made = [
        from_bytes(content, (16, 4), tf.float32),
        from_bytes(content, (256,), tf.uint8),
        torch_tensor(content, (4, 16), "int32"),
        torch_tensor(content, (2, 64), "int16"),
    ]
    return [(1_000_000 + i, value, content) for i, value in enumerate(made)]


def check_in_threads(folder: Path, seed: str, length: int) -> None:
    """Runs a program in each thread, over its own values and common values."""
    values = common_values()
    before = live_owners()
    machines = []
    for i in range(THREADS):
        (folder / str(i)).mkdir(exist_ok=True)
        machines.append(Operations(folder / str(i), alone=False))
        machines[-1].add_common(values)
    programs: list[Program] = [[] for _ in machines]
    failures: list[tuple[int, Failure]] = []
    start = threading.Barrier(THREADS)

    def work(i: int) -> None:
        start.wait(250)
        try:
            grow(machines[i], f"{seed} {i}", length, programs[i])
        except Failure as e:
            failures.append((i, Failure(e.what, str(e))))

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(250)
        assert not thread.is_alive(), f"seed {seed!r}: a thread is stuck"

    def alone(i: int) -> Operations:
        machine = Operations(folder / str(i), alone=False)
        machine.add_common(values)
        return machine

    if failures:
        i, failure = failures[0]
        for machine in machines:
            machine.close()
        text = report(lambda: alone(i), f"{seed} {i}", programs[i], failure)
        pytest.fail(text, pytrace=False)
    machines[0].before = before
    machines[0].check_owners(sum(owners(machine.alive()) for machine in machines))
    for machine in machines:
        machine.finish()
    for _, value, content in values:
        found = torch_bytes(value) if isinstance(value, torch.Tensor) else tf_bytes(value)
        assert found == content, f"seed {seed!r}"
    machines[0].check_owners(0)


def test_random_operations_in_threads(tmp_path: Path) -> None:
    check_in_threads(tmp_path, "ordinary", 60)


@pytest.mark.exhaustive
@pytest.mark.alone
def test_many_random_operations_in_threads(seed: str, tmp_path: Path) -> None:
    length = 100
    for i in range(200_000 // THREADS // length):
        check_in_threads(tmp_path, f"{seed} {i}", length)


# ---- faults of the library that must be found ----------------------------------------------------


class Unprotected(Library):
    """A write reaches TensorFlow."""

    def to_torch(self, interface: str, t: Any, **options: Any) -> Any:
        if options.get("on_write") == "copy" and isinstance(t, tf.Tensor):
            options["on_write"] = "alias"
        return super().to_torch(interface, t, **options)


class AlwaysCopies(Library):
    """to_torch copies silently."""

    def to_torch(self, interface: str, t: Any, **options: Any) -> Any:
        copy = True if options.get("copy") is None and not options.get("live") else options["copy"]
        return super().to_torch(interface, t, **options | {"copy": copy})


class NeverCopies(Library):
    """copy=True is ignored."""

    def to_tf(self, interface: str, x: Any, **options: Any) -> Any:
        return super().to_tf(interface, x, **options | {"copy": options.get("copy") or None})


class Unwatched(Library):
    """TensorFlow shares torch's memory, and a write does not move torch."""

    def to_tf(self, interface: str, x: Any, **options: Any) -> Any:
        plain = isinstance(x, torch.Tensor) and x.is_contiguous() and x.dtype == torch.float32
        if plain and x.numel() and not options.get("copy"):
            return tf.experimental.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(x))
        return super().to_tf(interface, x, **options)


class WrongStrides(Library):
    """A tensor that is not row-major is read as if it were."""

    def to_tf(self, interface: str, x: Any, **options: Any) -> Any:
        if isinstance(x, torch.Tensor) and not x.is_contiguous() and 0 not in x.stride():
            strides = torch.empty(x.shape, device="meta").stride()
            x = x.as_strided(x.shape, strides)
        return super().to_tf(interface, x, **options)


class WritesAfterRaise(Library):
    """on_write="raise" copies."""

    def to_torch(self, interface: str, t: Any, **options: Any) -> Any:
        if options.get("on_write") == "raise":
            options["on_write"] = "copy"
        return super().to_torch(interface, t, **options)


class ForgetsReadOnly(Library):
    """Memory that DLPack marks READ_ONLY is writable."""

    def from_dlpack(self, x: Any, **options: Any) -> Any:
        if options.get("on_write") == "copy":
            options["on_write"] = "alias"
        return super().from_dlpack(x, **options)


class NeverReleases(Library):
    """A buffer is never released."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def to_torch(self, interface: str, t: Any, **options: Any) -> Any:
        x = super().to_torch(interface, t, **options)
        if isinstance(x, torch.Tensor) and x.shape == (3, 5):
            self.kept.append(x.untyped_storage())
        return x


class KeepsPrevious(Library):
    """A tensor keeps the memory that it moved away from."""

    def release_previous(self, x: Any) -> int:
        return 0


class AssignsCopies(Library):
    def assign(self, variable: Any, x: Any, copy: bool | None) -> None:
        super().assign(variable, x, True if copy is None else copy)


class LosesAString(Library):
    def to_tf(self, interface: str, x: Any, **options: Any) -> Any:
        result = super().to_tf(interface, x, **options)
        if isinstance(x, tensor_bridge.StringTensor) and len(x.shape) == 1 and x.shape[0] > 1:
            return tf.concat([result[:1], result[:-1]], 0)
        return result


class SwapsEntries(Library):
    """A checkpoint returns another entry of the same shape."""

    def load(self, path: Any) -> Any:
        loaded = super().load(path)
        names = list(loaded)
        return dict(zip(names, [loaded[name] for name in reversed(names)], strict=True))


FAULTS = [
    Unprotected, AlwaysCopies, NeverCopies, Unwatched, WrongStrides, WritesAfterRaise,
    ForgetsReadOnly, NeverReleases, KeepsPrevious, AssignsCopies, LosesAString, SwapsEntries,
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_and_shrunk(fault: Callable[[], Library], tmp_path: Path) -> None:
    library = fault()

    def make() -> Operations:
        return Operations(tmp_path, library)

    drawn = (generate(make, f"fault {i}", 50) for i in range(100))
    program, failure = next((found for found in drawn if found[1] is not None), ([], None))
    assert failure is not None
    small = shrink(program, lambda part: fails_so(make, part, failure))
    assert 1 < len(small) <= 5
    assert fails_so(make, small, failure)
    assert replay(lambda: Operations(tmp_path), small) is None, "it also fails without the fault"
