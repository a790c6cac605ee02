"""Programs of random operations: drawing, replaying and shrinking them.

The result of an operation has the operation's number. An operation without its operands is skipped,
so any part of a program is a program: `shrink` relies on that.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from random_operations import Operation, Operations
from sharing_machine import Failure

Program = list[Operation]
Maker = Callable[[], Operations]


def grow(machine: Operations, seed: str, length: int, program: Program) -> None:
    """Draws operations, does them and adds them to the program; raises the first failure."""
    rng = random.Random(seed)
    number = 0
    while machine.ran < length:
        number += 1
        program.append(machine.draw(rng, number))
        ran = machine.ran
        machine.run(program[-1])
        if machine.ran == ran:
            program.pop()


def generate(make: Maker, seed: str, length: int) -> tuple[Program, Failure | None]:
    """A program of this length, or up to the operation that fails."""
    program: Program = []
    return program, _failure(make, lambda machine: grow(machine, seed, length, program))


def replay(make: Maker, program: Program) -> Failure | None:
    """The failure of a program, or None."""

    def run(machine: Operations) -> None:
        for operation in program:
            machine.run(operation)

    return _failure(make, run)


def _failure(make: Maker, run: Callable[[Operations], None]) -> Failure | None:
    machine = make()
    try:
        run(machine)
        machine.finish()
    except Failure as e:
        return Failure(e.what, str(e))
    finally:
        machine.close()
    return None


def shrink(program: Program, fails: Callable[[Program], bool]) -> Program:
    """A program that still fails, and that none of the steps here makes simpler."""
    size = len(program) // 2
    while size:
        i = 0
        while i < len(program):
            part = program[:i] + program[i + size :]
            if fails(part):
                program = part
            else:
                i += size
        size //= 2
    while (simpler := next(filter(fails, _simpler(program)), None)) is not None:
        program = simpler
    return program


# Arguments that are the numbers of other operations.
_OPERANDS = ("t", "x", "y", "start", "capsule", "variable", "text", "thing")


def _simpler(program: Program) -> Iterator[Program]:
    for i, (number, _, arguments) in enumerate(program):
        yield program[:i] + program[i + 1 :]
        # Replaces a value by the one that it was made from.
        for origin in _origins(program, operands(arguments)):
            after = [_renamed(later, number, origin) for later in program[i + 1 :]]
            if after != program[i + 1 :]:
                yield program[:i] + after
    for i, (number, name, arguments) in enumerate(program):
        for key in ("parts", "steps", "cuts"):
            for j in range(len(arguments.get(key, ()))):
                fewer = arguments[key][:j] + arguments[key][j + 1 :]
                yield [*program[:i], [number, name, arguments | {key: fewer}], *program[i + 1 :]]
        if arguments.get("elsewhere"):
            here = arguments | {"elsewhere": False}
            yield [*program[:i], [number, name, here], *program[i + 1 :]]
        if arguments.get("data"):
            zeros = arguments | {"data": ""}
            yield [*program[:i], [number, name, zeros], *program[i + 1 :]]


def operands(arguments: dict[str, Any]) -> list[int]:
    found = [arguments[name] for name in _OPERANDS if name in arguments]
    return found + arguments.get("parts", [])


def _origins(program: Program, made_of: list[int]) -> list[int]:
    """The numbers of all values from which something was made, the nearest first."""
    found: list[int] = []
    waiting = list(made_of)
    while waiting:
        number = waiting.pop(0)
        if number not in found:
            found.append(number)
            for other, _, arguments in program:
                if other == number:
                    waiting += operands(arguments)
    return found


def _renamed(operation: Operation, old: int, new: int) -> Operation:
    number, name, arguments = operation
    changed = {
        key: new if key in _OPERANDS and value == old else value for key, value in arguments.items()
    }
    if "parts" in arguments:
        changed["parts"] = [new if part == old else part for part in arguments["parts"]]
    return [number, name, changed]
