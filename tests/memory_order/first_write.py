"""The first write to a shared storage, in every order of events that a processor allows.

    python tests/memory_order/first_write.py        # `make memory-order`; three minutes

torch's part follows c10::StorageImpl (2.13 to 2.15; TORCH has the lines that it was written from).
Our part follows Note [Order of a first write] in src/adapters/torch/copy_on_write_hook.cc. Each of
our rules is also left out once, to show that the search finds the error that the rule prevents.
Prints a table, and ends with 1 if a cell is not as expected.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from orders import ARM, MODELS, SC, TSO, Program, Thread, Value, find

Wanted = Callable[[list[Any], dict[str, Any]], bool]
Case = tuple[list[Program], dict[str, Any], Wanted]


@dataclass(frozen=True)
class Rules:
    """The rules of our side. For each of them a case leaves it out."""

    publishes: bool = True  # a release fence between the copy and the pointer to it
    waits: bool = True  # membarrier() between the pointer and torch's flag; not needed on x86-64
    looks_at_flag: bool = True  # to_tf reads torch's flag too, not only its hook
    marks: bool = True  # a second thread in the hook keeps to_tf from sharing
    counts: str = "acq_rel"  # the memory order of releasing a reference


# --- torch: c10/core/StorageImpl.h --------------------------------------------------------------

# Every run of white space is one blank here.
TORCH = (
    "if (materialize_fn_) { materialize_fn_(this); clear_materializer(); }",
    "void clear_materializer() { materialize_fn_ = nullptr; refresh_has_data_ptr_check(); }",
    "has_mutable_data_ptr_check_ = (materialize_fn_ != nullptr) || throw_on_mutable_data_ptr_ || "
    "warn_deprecated_on_mutable_data_ptr_ || throw_on_immutable_data_ptr_;",
    "maybe_materialize(); } return data_ptr_.mutable_get();",
    "data_ptr_ = std::move(data_ptr); refresh_has_data_ptr_check();",
)


def materialize(t: Thread, rules: Rules, new: str, parts: str = "") -> None:
    """has_mutable_data_ptr_check_, maybe_materialize(), clear_materializer()."""
    if t.test(t.load("flag"), 1) and t.test(t.load("hook"), 1):
        copy_on_write(t, rules, new, parts)
        t.store("hook", 0)
        t.store("flag", 0)


def mutable_data(t: Thread, rules: Rules, new: str, parts: str = "") -> Value:
    materialize(t, rules, new, parts)
    return t.load("pointer")


def mutable_data_ptr(t: Thread, rules: Rules, new: str, parts: str = "") -> Value:
    """mutable_data_ptr<T>(), which uses storage_initialized()'s pointer if the flag is not set."""
    pointer = t.load("pointer")
    if not t.test(t.load("flag"), 1):
        return pointer
    if t.test(t.load("hook"), 1):
        copy_on_write(t, rules, new, parts)
        t.store("hook", 0)
        t.store("flag", 0)
    return t.load("pointer")


# --- ours: copy_on_write_hook.cc ----------------------------------------------------------------


def move_onto(t: Thread, rules: Rules, new: str, parts: str) -> None:
    old = t.load("pointer")
    for part in parts:
        t.store((new, part), t.load((old, part)))
    if rules.publishes:
        t.fence("release")
    t.store("pointer", new)
    if rules.waits:
        t.membarrier()
    t.store("owner", "moved")
    t.store("flag", t.load("hook"))


def copy_on_write(t: Thread, rules: Rules, new: str, parts: str) -> None:
    t.lock()
    owner = t.load("owner")
    if t.test(owner, "shared"):
        if not t.test(t.load("references", "acquire"), 1):
            move_onto(t, rules, new, parts)
        else:
            t.store("owner", "moved")
    elif t.test(owner, "moved") and rules.marks:
        t.store("owner", "contended")
    t.unlock()


def share(t: Thread, rules: Rules) -> Value | None:
    """shareStorage() of a storage that has moved: the address that TensorFlow gets."""
    shared = None
    t.lock()
    moved = t.test(t.load("owner"), "moved") and t.test(t.load("hook"), 0)
    if moved and (not rules.looks_at_flag or t.test(t.load("flag"), 0)):
        shared = t.load("pointer")
        t.store("references", 2)
        t.store("owner", "shared")
        t.store("hook", 1)
        t.store("flag", 1)
    t.unlock()
    return shared


# --- cases --------------------------------------------------------------------------------------

START = {"flag": 1, "hook": 1, "pointer": "tf", "owner": "shared", "references": 2, "mutex": 0}
BYTES = {"tf.a": 7, "tf.b": 7}


Pointer = Callable[[Thread, Rules, str, str], Value]


def writer(
    rules: Rules, new: str, part: str, parts: str, pointer: Pointer = mutable_data
) -> Program:
    def program(t: Thread) -> None:
        t.store((pointer(t, rules, new, parts), part), new)

    return program


def two_writers(rules: Rules, pointer: Pointer = mutable_data) -> Case:
    """Both writes reach the same copy, and neither reaches TensorFlow's memory."""

    def wrong(_: list[Any], m: dict[str, Any]) -> bool:
        at = m["pointer"]
        kept = m["tf.a"] == m["tf.b"] == 7
        return not kept or (m.get(f"{at}.a"), m.get(f"{at}.b")) != ("x", "y")

    programs = [writer(rules, "x", "a", "ab"), writer(rules, "y", "b", "ab", pointer)]
    return programs, START | BYTES, wrong


def reader_beside(rules: Rules) -> Case:
    """A reader of another element finds its value, in the old or the new memory."""

    def reader(t: Thread) -> Any:
        return t.load((t.load("pointer"), "b")).of

    return [writer(rules, "x", "a", "ab"), reader], START | BYTES, lambda r, _: r[1] != 7


def share_beside(writers: int) -> Callable[[Rules], Case]:
    """After to_tf has shared memory, a write of the same thread does not reach it."""

    def case(rules: Rules) -> Case:
        def one(new: str) -> Program:
            return lambda t: materialize(t, rules, new)

        def sharer(t: Thread) -> bool:
            given = share(t, rules)
            return given is not None and given.of == mutable_data(t, rules, "z").of

        return [sharer, *map(one, "xy"[:writers])], START, lambda r, _: r[0]

    return case


def given_back(rules: Rules) -> Case:
    """TensorFlow's last reader has read before a write in place."""

    def reader(t: Thread) -> Any:
        read = t.load("tf.a").of
        t.change("references", 2, 1, rules.counts)
        return read

    return [writer(rules, "x", "a", "a"), reader], START | BYTES, lambda r, _: r[1] != 7


RIGHT = Rules()
PLAIN = replace(RIGHT, waits=False)
NEVER: set[str] = set()
# A question, its programs and rules, and the models under which the wrong result is reachable.
PROTOCOL: list[tuple[str, Case, set[str]]] = [
    ("two first writes", two_writers(RIGHT), NEVER),
    ("  without the wait", two_writers(PLAIN), {ARM}),
    # An error of torch on every processor: see the note.
    ("  one by mutable_data_ptr<T>()", two_writers(RIGHT, mutable_data_ptr), {*MODELS}),
    ("a reader beside a first write", reader_beside(RIGHT), NEVER),
    ("  without the fence", reader_beside(replace(RIGHT, publishes=False)), {ARM}),
    ("to_tf beside a first write", share_beside(1)(RIGHT), NEVER),
    (
        "  without a look at the flag",
        share_beside(1)(replace(RIGHT, looks_at_flag=False)),
        {*MODELS},
    ),
    ("to_tf beside two first writes", share_beside(2)(RIGHT), NEVER),
    ("  without the wait", share_beside(2)(PLAIN), {ARM}),
    ("  without the mark", share_beside(2)(replace(RIGHT, marks=False)), {*MODELS}),
    ("the last reference of TensorFlow", given_back(RIGHT), NEVER),
    ("  given back without order", given_back(replace(RIGHT, counts="relaxed")), {ARM}),
]


def both_zero(results: list[Any], _: dict[str, Any]) -> bool:
    return results == [0, 0]


def store_buffering(fenced: bool) -> Case:
    def one(mine: str, other: str) -> Program:
        def program(t: Thread) -> Any:
            t.store(mine, 1)
            if fenced:
                t.fence()
            return t.load(other).of

        return program

    return [one("x", "y"), one("y", "x")], {}, both_zero


def load_buffering(dependent: bool) -> Case:
    def one(mine: str, other: str) -> Program:
        def program(t: Thread) -> Any:
            found = t.load(other)
            t.store(mine, Value(1, found.deps) if dependent else 1)
            return found.of

        return program

    return [one("x", "y"), one("y", "x")], {}, lambda r, _: r == [1, 1]


def message(between: Callable[[Thread], None], order: str, reading: str) -> Case:
    """A flag is stored after data. The other thread sees the flag but not the data."""

    def sends(t: Thread) -> None:
        t.store("data", 1)
        between(t)
        t.store("flag", "data", order)

    def receives(t: Thread) -> Any:
        flag = t.load("flag", reading if reading == "acquire" else "relaxed")
        if reading == "branch":
            t.test(flag, "data")
        return flag.of, t.load(Value("data", flag.deps) if reading == "address" else "data").of

    return [sends, receives], {"flag": ""}, lambda r, _: r[1] == ("data", 0)


def four_threads(dependent: bool) -> Case:
    """Two readers see two independent stores in different orders."""

    def reads(first: str, second: str) -> Program:
        def program(t: Thread) -> Any:
            found = t.load(first)
            deps = found.deps if dependent else frozenset()
            return found.of, t.load(Value(second, deps)).of

        return program

    stores: list[Program] = [lambda t: t.store("x", 1), lambda t: t.store("y", 1)]
    return [*stores, reads("x", "y"), reads("y", "x")], {}, lambda r, _: r[2:] == [(1, 0)] * 2


def one_location() -> Case:
    def reads(t: Thread) -> Any:
        return t.load("x").of, t.load("x").of

    return [lambda t: t.store("x", 1), reads], {}, lambda r, _: r[1] == (1, 0)


def nothing(_: Thread) -> None:
    pass


CLASSIC: list[tuple[str, Case, set[str]]] = [
    ("store buffering", store_buffering(False), {TSO, ARM}),
    ("  with fences", store_buffering(True), NEVER),
    ("message passing", message(nothing, "relaxed", "plain"), {ARM}),
    ("  release and acquire", message(nothing, "release", "acquire"), NEVER),
    ("  release and a branch", message(nothing, "release", "branch"), {ARM}),
    ("  release and an address", message(nothing, "release", "address"), NEVER),
    ("  membarrier and plain loads", message(Thread.membarrier, "relaxed", "plain"), NEVER),
    ("load buffering", load_buffering(False), {ARM}),
    ("  with dependent stores", load_buffering(True), NEVER),
    ("independent readers", four_threads(False), {ARM}),
    ("  with dependent loads", four_threads(True), NEVER),
    ("two loads of one location", one_location(), NEVER),
]


def main() -> int:
    failed = False
    print(f"{'reachable?':34}" + "".join(f"{model:>6}" for model in MODELS))
    for name, case, expected in [*CLASSIC, *PROTOCOL]:
        found = {model: find(model, *case) for model in (SC, TSO, ARM)}
        cells = "".join(f"{'yes' if found[model] else 'no':>6}" for model in MODELS)
        print(f"{name:34}{cells}", flush=True)
        for model in MODELS:
            if bool(found[model]) != (model in expected):
                failed = True
                print(f"  {model}: not as expected", *(found[model] or []), sep="\n    ")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
