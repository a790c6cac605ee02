"""Mutated checkpoints, read in a separate process. Not for: readers in C++ (tests/fuzz).

`run` starts the process, which makes file after file from seeds in a folder, reads all of each, and
reports the outcomes. This module is the process's script too, without TensorFlow and pytest.
"""

from __future__ import annotations

import json
import queue
import random
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
import traceback
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KINDS = ("joins", "hdf5", "archives", "json")
SECONDS = 10  # of the processor, for one file
MEGABYTES = 512  # for one file, of less than 1 MB
_HANGS = 120  # seconds without output, on a machine that is also doing other work

_NUMBERS = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, (1 << 63) - 1]
_TEXTS = ["", "\0", "a/b", "..", "/", "\u202e", "\ud800", "x" * 5000, "a/" * 500, "vars", "layers"]


@dataclass
class Outcome:
    """The result of a run.

    Attributes:
      counts: The number of files with each outcome.
      wrong: Forbidden outcomes, with the number of the file: raw errors, too slow, too large.
    """

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def run(kind: str, seeds: Path, folder: Path, count: int, seed: int) -> Outcome:
    """Reads ``count`` mutated files of a kind in processes of their own."""
    outcome, begin = Outcome(), 0
    while begin < count:
        begin = _watch(kind, seeds, folder, (begin, count, seed), outcome)
    return outcome


def _watch(
    kind: str, seeds: Path, folder: Path, numbers: tuple[int, int, int], outcome: Outcome
) -> int:
    """Watches a process until it ends; returns the number of the file to continue with."""
    at = numbers[0]
    arguments = [kind, str(seeds), str(folder), *map(str, numbers)]
    with subprocess.Popen(
        [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=_pass_on, args=(process.stdout, lines)).start()
        while True:
            try:
                line = lines.get(timeout=_HANGS)
            except queue.Empty:
                process.kill()
                outcome.wrong.append(f"{kind} {at}: hangs")
                return at + 1
            if not line:
                break
            said = json.loads(line)
            at = said["at"]
            outcome.counts.update(said["counts"])
            outcome.wrong += [f"{kind} {at}: {what}" for what in said["wrong"]]
            at += 1
    if process.returncode:
        outcome.wrong.append(f"{kind} {at}: ended with {process.returncode}")
        return at + 1
    return numbers[1]


def _pass_on(stream: Any, lines: queue.SimpleQueue[str]) -> None:
    for line in stream:
        lines.put(line)
    lines.put("")


# --- in the process ----------------------------------------------------------------------------


def mutated(good: bytes, rng: random.Random) -> bytes:
    """The bytes with a few parts changed, cut out, doubled or moved."""
    bad = bytearray(good)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        if not bad:
            break
        at, kind = rng.randrange(len(bad)), rng.random()
        if kind < 0.4:
            bad[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, bad[at] ^ 1 << rng.randrange(8)])
        elif kind < 0.7:
            size = rng.choice((1, 2, 4, 8))
            number = rng.choice([*_NUMBERS, rng.randrange(len(bad)), len(bad)])
            bad[at : at + size] = (number & (1 << 8 * size) - 1).to_bytes(size, "little")
        elif kind < 0.8:
            del bad[at : at + rng.choice((1, 4, 16, 256))]
        elif kind < 0.95:
            other, size = rng.randrange(len(bad)), rng.choice((1, 8, 32, 512))
            part = bad[other : other + size]
            bad[at : at + (len(part) if rng.random() < 0.7 else 0)] = part
        else:
            del bad[at:]
    return bytes(bad)


def _other_value(rng: random.Random, value: Any) -> Any:
    deep: Any = value
    for _ in range(rng.choice((3, 300, 3000))):
        deep = [deep] if rng.random() < 0.5 else {"config": deep, "class_name": "Sequential"}
    return rng.choice(
        [None, True, -1, 1 << 70, 1e308, [], {}, rng.choice(_TEXTS), deep, [value] * 50]
    )


def mutated_json(good: bytes, rng: random.Random) -> bytes:
    """A value, a key or a few bytes changed."""
    if rng.random() < 0.4:
        return mutated(good, rng)
    value = json.loads(good)
    for _ in range(rng.randint(1, 3)):
        at = value
        while isinstance(at, (dict, list)) and at:
            key = rng.choice(list(at)) if isinstance(at, dict) else rng.randrange(len(at))
            if rng.random() < 0.25 or not isinstance(at[key], (dict, list)):
                if isinstance(at, dict) and rng.random() < 0.3:
                    at[rng.choice(_TEXTS)] = at.pop(key)
                else:
                    at[key] = _other_value(rng, at[key])
                break
            at = at[key]
    try:
        return json.dumps(value).encode("utf-8", "replace")
    except RecursionError:
        return b"[" * rng.choice((500, 100_000)) + good


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _archive(good: bytes, rng: random.Random, path: Path) -> None:
    if rng.random() < 0.4:
        path.write_bytes(mutated(good, rng))
        return
    # With correct checksums and offsets, so that the content decides.
    source = path.with_suffix(".good")
    source.write_bytes(good)
    packing = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", packing) as new:
        changed = rng.choice(old.namelist())
        for name in old.namelist():
            data = old.read(name)
            if name == changed:
                data = mutated_json(data, rng) if name.endswith(".json") else mutated(data, rng)
            new.writestr(name, data)
    if rng.random() < 0.1:
        path.write_bytes(mutated(path.read_bytes(), rng))


def make(kind: str, seeds: Path, folder: Path, rng: random.Random) -> Path:
    """Makes one file or several; returns the path to load."""
    seed = rng.choice(sorted((seeds / kind).iterdir()))
    target = folder / "made"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    files = _files(seed)
    changed = rng.choice(sorted(files))
    for name, data in files.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name != changed:
            path.write_bytes(data)
        elif name.endswith(".keras"):
            _archive(data, rng, path)
        elif name.endswith(".json"):
            path.write_bytes(mutated_json(data, rng))
        else:
            path.write_bytes(mutated(data, rng))
    # The seed's folder names the path to load: "model.keras", "." for the folder itself.
    return target / re.sub(r"^\d+-", "", seed.name)


def read_all(path: Path, counts: Counter[str], wrong: list[str]) -> None:
    """Reads everything of a checkpoint; each refusal must be a typed error with its place."""
    from tensor_bridge import checkpoint
    from tensor_bridge._printable import printable
    from tensor_bridge.errors import CheckpointError, TensorBridgeError

    def tried(what: str, call: Any) -> Any:
        try:
            return call()
        except TensorBridgeError as e:
            cause = f" {type(e.__cause__).__name__}" if e.__cause__ is not None else ""
            counts[f"{what}: {type(e).__name__}{cause}"] += 1
            if isinstance(e, CheckpointError) and (not e.file or printable(e.file) not in str(e)):
                wrong.append(f"{what}: names no file: {e}")
        except BaseException:
            wrong.append(f"{what}: raw: {traceback.format_exc(limit=-3)}")
        return None

    loaded = tried("load", lambda: checkpoint.load(path))
    if loaded is None:
        return
    counts["loaded"] += 1
    tried("layers", lambda: loaded.layers)
    tried("backend", lambda: (loaded.backend, loaded.keras_version, loaded.summary))
    tried("variable_names", lambda: loaded.variable_names)
    for problem in tried("problems", lambda: list(loaded.problems())) or ():
        counts[f"problem: {type(problem).__name__}"] += 1
        if not isinstance(problem, TensorBridgeError):
            wrong.append(f"problem: raw: {problem!r}")
    for entry in loaded.all_entries:
        tried("extent", entry.extent)
        if tried("read", lambda entry=entry: entry.read(False)) is not None:
            counts["read"] += 1


def main(kind: str, seeds: str, folder: str, begin: str, end: str, seed: str) -> None:
    import torch

    torch.set_num_threads(1)
    # What asks for everything is to fail, not to end others.
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
    for at in range(int(begin), int(end)):
        rng = random.Random(f"{kind} {seed} {at}")
        path = make(kind, Path(seeds), Path(folder), rng)
        counts: Counter[str] = Counter()
        wrong: list[str] = []
        before, memory = time.process_time(), _peak()
        read_all(path, counts, wrong)
        if (taken := time.process_time() - before) > SECONDS:
            wrong.append(f"took {taken:.1f} s")
        if (grown := _peak() - memory) > MEGABYTES:
            wrong.append(f"took {grown} MB")
        print(json.dumps({"at": at, "counts": counts, "wrong": wrong}), flush=True)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


if __name__ == "__main__":
    main(*sys.argv[1:])
