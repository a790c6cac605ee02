"""Every outcome of a few threads under three memory models; first_write.py has the questions.

A thread's program is a Python function, which is run once for every sequence of values that its
loads may return. Then the search tries all orders in which the events of those runs can take effect
on one memory such that each load finds the value that it returned. A model says which events of a
thread must take effect in program order:

    SC     all of them
    TSO    x86-64: all, except that a store may take effect after loads that follow it
    ARM    like ARMv8: accesses to one location; a load before what its value, address or, for
           stores, branches depend on; acquire, release and fences as Armv8-A defines them

A load takes the value of the thread's own latest store to the location, even before that store has
taken effect for others. There is one memory: a store takes effect for all other threads at once, as
both architectures promise. ARM differs from Armv8-A in two points: loads of one location stay in
order, even if they read the same store, and a read-modify-write is one event. Reordering by a
compiler is not modelled.

membarrier() is Linux's membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED): before it returns, every other
thread has passed a point of its program at which every earlier event has taken effect and no later
one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

NONE: frozenset[int] = frozenset()
SC, TSO, ARM = MODELS = ("SC", "TSO", "ARM")


@dataclass(frozen=True)
class Value:
    """The value that a load returned, and the loads that it depends on."""

    of: Any
    deps: frozenset[int] = NONE


def where(at: Any) -> tuple[str, frozenset[int]]:
    """A location's name and the loads it depends on. `at` is a name or (address, part)."""
    base, *parts = at if isinstance(at, tuple) else (at,)
    of = base if isinstance(base, Value) else Value(base)
    return ".".join([of.of, *parts]), of.deps


@dataclass(frozen=True)
class Event:
    kind: str  # R, W, RMW, lock, unlock, fence, barrier
    place: str = ""
    value: Any = None
    old: Any = None  # of RMW
    order: str = "relaxed"
    address: frozenset[int] = NONE
    data: frozenset[int] = NONE
    control: frozenset[int] = NONE

    reads = property(lambda self: self.kind in ("R", "RMW", "lock"))
    writes = property(lambda self: self.kind in ("W", "RMW", "lock", "unlock"))

    def __str__(self) -> str:
        return " ".join(str(x) for x in (self.kind, self.place, self.value) if x not in ("", None))


class Guess(Exception):
    """Raised for a load whose value is not chosen yet."""


@dataclass
class Thread:
    """Records the events of a program; each call is an event."""

    number: int
    threads: int
    guesses: list[Any]
    events: list[Event] = field(default_factory=list)
    control: frozenset[int] = NONE

    def _add(self, kind: str, at: Any = "", **more: Any) -> frozenset[int]:
        place, deps = where(at)
        event = Event(kind, place, address=deps, control=self.control, **more)
        self.events.append(event)
        return frozenset({len(self.events) - 1})

    def _guess(self, at: Any) -> Any:
        if not self.guesses:
            raise Guess(where(at)[0])
        return self.guesses.pop(0)

    def load(self, at: Any, order: str = "relaxed") -> Value:
        guess = self._guess(at)
        return Value(guess, self._add("R", at, value=guess, order=order))

    def store(self, at: Any, value: Any, order: str = "relaxed") -> None:
        value = value if isinstance(value, Value) else Value(value)
        self._add("W", at, value=value.of, data=value.deps, order=order)

    def change(self, at: str, old: Any, new: Any, order: str = "relaxed") -> None:
        """A read-modify-write of a location that is known to hold `old`."""
        self._add("RMW", at, value=new, old=old, order=order)

    def test(self, value: Value, wanted: Any) -> bool:
        """A branch."""
        self.control |= value.deps
        return bool(value.of == wanted)

    def lock(self) -> None:
        self._add("lock", "mutex", value=1, old=0, order="acquire")

    def unlock(self) -> None:
        self._add("unlock", "mutex", value=0, order="release")

    def fence(self, order: str = "full") -> None:
        self._add("fence", order=order)

    def membarrier(self) -> None:
        for other in set(range(self.threads)) - {self.number}:
            self._add("barrier", value=other)


Program = Callable[[Thread], Any]


def in_order(model: str, events: list[Event], i: int, j: int) -> bool:
    """Whether event i must take effect before event j, which follows it."""
    a, b = events[i], events[j]
    full = a.kind, b.kind
    if "barrier" in full:
        return a.kind != b.kind
    if model == SC or "full" in (a.order, b.order):
        return True
    if a.kind == "fence":
        return b.writes if a.order == "release" else True
    if b.kind == "fence":
        return True if b.order == "release" else a.reads
    if model == TSO:
        locked = {"RMW", "lock"} & set(full)
        return bool(locked) or not (a.writes and b.reads)
    acquires, releases = ("acquire", "acq_rel"), ("release", "acq_rel")
    return (
        (a.place == b.place and not (a.kind in ("W", "unlock") and b.kind == "R"))
        or i in b.address | b.data
        or (b.writes and i in b.control)
        or (b.writes and any(i in events[k].address for k in range(i + 1, j)))
        or (a.reads and a.order in acquires)
        or (b.writes and b.order in releases)
        or (a.order in releases and b.order in acquires)
    )


Run = tuple[list[Event], Any]


def runs_of(program: Program, number: int, threads: int, values: dict[str, set[Any]]) -> list[Run]:
    """The events and the result of a thread, for all values that its loads may return."""
    found: list[Run] = []
    open_guesses: list[list[Any]] = [[]]
    while open_guesses:
        guesses = open_guesses.pop()
        thread = Thread(number, threads, list(guesses))
        try:
            result = program(thread)
        except Guess as at:
            open_guesses += [[*guesses, v] for v in values.get(str(at), {0})]
        else:
            found.append((thread.events, result))
    return found


def programs_runs(programs: list[Program], start: dict[str, Any]) -> list[list[Run]]:
    values = {place: {value} for place, value in start.items()}
    while True:
        runs = [runs_of(p, n, len(programs), values) for n, p in enumerate(programs)]
        size = sum(map(len, values.values()))
        for event in (e for each in runs for events, _ in each for e in events if e.writes):
            values.setdefault(event.place, {start.get(event.place, 0)}).add(event.value)
        if sum(map(len, values.values())) == size:
            return runs


def is_possible(runs: tuple[Run, ...], start: dict[str, Any]) -> bool:
    """Whether each value that is read is also written. Most choices fail here."""
    written = {(e.place, e.value) for events, _ in runs for e in events if e.writes}
    read = {(e.place, e.value if e.kind == "R" else e.old) for ev, _ in runs for e in ev if e.reads}
    return all(start.get(place, 0) == v or (place, v) in written for place, v in read)


def guarded(runs: list[list[Run]]) -> set[str]:
    """Locations that all threads use only under the mutex."""
    used: set[str] = set()
    outside: set[str] = set()
    for events in (events for each in runs for events, _ in each):
        inside = False
        for event in events:
            inside = event.kind == "lock" or (inside and event.kind != "unlock")
            (used if inside else outside).add(event.place)
    return used - outside - {"mutex"}


def can_follow(runs: tuple[Run, ...], start: dict[str, Any], places: set[str]) -> bool:
    """Whether the guarded loads are possible in some order of the threads' critical sections."""
    sections: list[list[list[Event]]] = [[] for _ in runs]
    for mine, (events, _) in zip(sections, runs, strict=True):
        for event in events:
            if event.kind == "lock":
                mine.append([])
            elif event.place in places:
                mine[-1].append(event)

    def fits(at: tuple[int, ...], memory: dict[str, Any]) -> bool:
        if all(i == len(mine) for i, mine in zip(at, sections, strict=True)):
            return True
        for t, i in enumerate(at):
            after = run_through(sections[t][i], memory) if i < len(sections[t]) else None
            if after is not None and fits((*at[:t], i + 1, *at[t + 1 :]), after):
                return True
        return False

    return fits((0,) * len(runs), start)


def run_through(section: list[Event], memory: dict[str, Any]) -> dict[str, Any] | None:
    for event in section:
        if event.reads and memory.get(event.place, 0) != event.value:
            return None
        memory = memory | {event.place: event.value}
    return memory


def ends(model: str, runs: tuple[Run, ...], start: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Yields each final memory of these runs, and one order of events that leads to it."""
    all_events = [events for events, _ in runs]
    before = [
        [sum(1 << i for i in range(j) if in_order(model, events, i, j)) for j in range(len(events))]
        for events in all_events
    ]
    earlier = [
        [[i for i in range(j) if v[i].writes and v[i].place == v[j].place] for j in range(len(v))]
        for v in all_events
    ]
    done = tuple((1 << len(events)) - 1 for events in all_events)
    first = ((0,) * len(runs), frozenset(start.items()))
    todo: list[tuple[tuple[int, ...], frozenset[tuple[str, Any]], tuple[str, ...]]] = [(*first, ())]
    seen = {first}
    while todo:
        masks, items, path = todo.pop()
        memory = dict(items)
        if masks == done:
            yield memory, path
            continue
        for t, events in enumerate(all_events):
            for j, event in enumerate(events):
                if masks[t] >> j & 1 or before[t][j] & ~masks[t]:
                    continue
                value = memory.get(event.place, 0)
                if event.kind == "barrier":
                    other = masks[event.value]
                    if other & (other + 1):
                        continue
                elif event.kind == "R":
                    if earlier[t][j] and not masks[t] >> (own := earlier[t][j][-1]) & 1:
                        needs = events[own].address | events[own].data
                        if events[own].kind != "W" or any(not masks[t] >> n & 1 for n in needs):
                            continue
                        value = events[own].value
                    if value != event.value:
                        continue
                elif event.reads and value != event.old:
                    continue
                after = memory | {event.place: event.value} if event.writes else memory
                now = (*masks[:t], masks[t] | 1 << j, *masks[t + 1 :])
                state = (now, frozenset(after.items()))
                if state not in seen:
                    seen.add(state)
                    todo.append((*state, (*path, f"{t}: {event}")))


def find(
    model: str,
    programs: list[Program],
    start: dict[str, Any],
    wanted: Callable[[list[Any], dict[str, Any]], bool],
) -> list[str] | None:
    """An order of events after which `wanted(results, memory)` is true; None if there is none."""
    all_runs = programs_runs(programs, start)
    places = guarded(all_runs)
    for runs in itertools.product(*all_runs):
        if is_possible(runs, start) and can_follow(runs, start, places):
            for memory, path in ends(model, runs, start):
                if wanted([result for _, result in runs], memory):
                    return list(path)
    return None
