"""The commands `tensor-bridge checkpoint ...`: ls, show, convert, diff, verify.

Each returns its `ExitStatus`. Errors are raised; the caller turns them into ERROR.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from tensor_bridge._command_line import padded, progress_bar, say
from tensor_bridge._exit_status import ExitStatus
from tensor_bridge._printable import printable
from tensor_bridge.checkpoint._compare import differences, pairs
from tensor_bridge.checkpoint.read._checkpoint import Checkpoint, load
from tensor_bridge.checkpoint.read._entry import Entry
from tensor_bridge.checkpoint.read._verification import Verification
from tensor_bridge.checkpoint.write._convert import convert
from tensor_bridge.composite import StringTensor
from tensor_bridge.errors import (
    CheckpointError,
    InvalidOptionError,
    TensorBridgeError,
    UnsupportedFileError,
)

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
# Keywords that messages recommend, and the command's options with the same effect.
_OPTIONS = {
    "overwrite=True": "--overwrite",
    "skip_strings=True": "--skip-strings",
    "max_shard_bytes": "--max-shard-size",
}


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Adds the commands; each sets ``run``, a function from the arguments to the exit status."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, text: str, run: Callable[[Any], int]) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument(
            "path", help="checkpoint prefix, folder, SavedModel, .keras, .h5, .pb or .tflite file"
        )
        sub.add_argument("--json", action="store_true", help="print JSON")
        sub.set_defaults(run=lambda arguments: _run(run, arguments))
        return sub

    ls = command("ls", "list the tensors of a checkpoint", _ls)
    ls.add_argument("--all", action="store_true", help="slots, counters and metadata too")
    show = command("show", "print tensors", _show)
    show.add_argument("name", nargs="+", help="names as ls prints them")
    to = command("convert", "write .safetensors, .pt or .pth", _convert)
    to.add_argument("target", help="the file to write")
    to.add_argument("--max-shard-size", type=_size, metavar="SIZE", help="such as 5GB")
    to.add_argument("--skip-strings", action="store_true", help="leave strings out")
    to.add_argument("--verify", action="store_true", help="compare checksums first")
    to.add_argument("--overwrite", action="store_true", help="replace files that exist")
    diff = command("diff", "compare two checkpoints; status 1 if they differ", _diff)
    diff.add_argument("other", help="the second checkpoint")
    command("verify", "compare all checksums; status 1 if something is damaged", _verify)


def _run(command: Callable[[Any], int], arguments: Any) -> int:
    try:
        return command(arguments)
    except TensorBridgeError as e:
        e.args = tuple(_as_options(a) if isinstance(a, str) else a for a in e.args)
        raise


def _as_options(message: str) -> str:
    for keyword, option in _OPTIONS.items():
        message = message.replace(keyword, option)
    return message


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+)\s*([KMGT]?)B?", text.strip().upper())
    if match is None:
        raise argparse.ArgumentTypeError(f"expected a size such as 5GB, got {text!r}")
    return int(match[1]) * _UNITS[match[2]]


def _row(entry: Entry) -> dict[str, Any]:
    how = entry.quantization
    return {
        "name": entry.name,
        "kind": entry.kind,
        "dtype": entry.dtype,
        "shape": list(entry.shape),
        "bytes": entry.nbytes,
        "file": entry.file,
        "offset": entry.offset,
        **({} if how is None else {"quantization": asdict(how)}),
    }


def _human(nbytes: int) -> str:
    """A size in the units of --max-shard-size: 1.5 kB are 1500 bytes."""
    size, unit = float(nbytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}"


def _naturally(entry: Entry) -> list[tuple[int, str]]:
    """Sorts w/2 before w/10."""
    return [(int(p), "") if p.isdecimal() else (0, p) for p in re.split(r"([0-9]+)", entry.name)]


def _ls(arguments: Any) -> int:
    checkpoint = load(arguments.path)
    entries = checkpoint.all_entries if arguments.all else list(checkpoint.entries.values())
    if checkpoint.format != "hdf5":  # whose entries are in the order of the model's layers
        entries.sort(key=_naturally)
    if arguments.json:
        say(json.dumps([_row(entry) for entry in entries]))
        return ExitStatus.DONE
    if not entries:
        say(checkpoint.summary)
        return ExitStatus.DONE
    rows = [("NAME", "DTYPE", "SHAPE", "SIZE", "KIND")]
    for e in entries:
        shape = "x".join(map(str, e.shape)) or "-"
        rows.append((e.name, e.dtype, shape, _human(e.nbytes), e.kind))
    *columns, sizes, kinds = (list(column) for column in zip(*rows, strict=True))
    shown = [*map(padded, columns), padded(sizes, right=True), *([kinds] if arguments.all else [])]
    say(*("  ".join(row) for row in zip(*shown, strict=True)))
    total = _human(sum(entry.nbytes for entry in entries))
    hidden = len(checkpoint.all_entries) - len(entries)
    more = f"; --all lists {hidden} more that are no variables" if hidden else ""
    say(f"{len(entries)} tensor{'' if len(entries) == 1 else 's'}, {total}{more}")
    return ExitStatus.DONE


def _find(checkpoint: Checkpoint, name: str) -> tuple[str, Any]:
    """The name and value of the entry that has this name, or that `ls` shows under it."""
    groups = (
        checkpoint,
        checkpoint.slots,
        checkpoint.counters,
        checkpoint.state,
        checkpoint.metadata,
    )
    for group in groups:
        if name in group:
            return name, group[name]
    shown = [(group, n) for group in groups for n in group if printable(n) == name]
    if len(shown) == 1:
        ((group, name),) = shown
        return name, group[name]
    return name, checkpoint[name]  # the KeyError with suggestions


def _plain(value: Any) -> Any:
    if isinstance(value, StringTensor):
        return value.to_str(errors="backslashreplace")
    return _json_values((value.dequantize() if value.is_quantized else value).tolist())


def _json_values(value: Any) -> Any:
    """The value for JSON, which lacks complex numbers and has NaN and Infinity only as text."""
    if isinstance(value, list):
        return [_json_values(item) for item in value]
    if isinstance(value, complex):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _show(arguments: Any) -> int:
    checkpoint = load(arguments.path)
    found = {}
    for name in arguments.name:
        try:
            true_name, value = _find(checkpoint, name)
            found[true_name] = value
        except KeyError as e:
            raise InvalidOptionError(e.args[0]) from None
    if arguments.json:
        plain = {name: _plain(value) for name, value in found.items()}
        say(json.dumps(plain, allow_nan=False))
        return ExitStatus.DONE
    for name, value in found.items():
        say(*f"{printable(name)}: {value}".split("\n"))
    return ExitStatus.DONE


def _convert(arguments: Any) -> int:
    with progress_bar("convert") as progress:
        paths = convert(
            arguments.path,
            arguments.target,
            max_shard_bytes=arguments.max_shard_size,
            skip_strings=arguments.skip_strings,
            verify=arguments.verify,
            overwrite=arguments.overwrite,
            progress=progress,
        )
    shown = [str(path) for path in paths]
    say(*([json.dumps(shown)] if arguments.json else shown))
    return ExitStatus.DONE


def _diff(arguments: Any) -> int:
    one, two = load(arguments.path), load(arguments.other)
    same = pairs(one, two)
    others = set(same.values())
    found = {name: f"only in {arguments.path}" for name in one if name not in same}
    found.update((name, f"only in {arguments.other}") for name in two if name not in others)
    with progress_bar("diff") as progress:
        found.update(differences(one, two, same, progress))
    if arguments.json:
        say(json.dumps(found))
    else:
        for name, text in found.items():
            other = same.get(name, name)
            say(f"{name}{f' and {other}' if other != name else ''}: {text}")
        _tell_pairs(same)
        if not (one or two):
            say("neither has variables: nothing was compared")
    if found:
        return ExitStatus.FOUND
    return ExitStatus.DONE if one else ExitStatus.NOTHING_COMPARED


def _tell_pairs(same: dict[str, str]) -> None:
    renamed = [f"{name} with {other}" for name, other in same.items() if name != other]
    if renamed:
        few = ", ".join(renamed[:3]) + (", ..." if len(renamed) > 3 else "")
        say(f"{len(renamed)} compared by their order in their layer: {few}")


def _verify(arguments: Any) -> int:
    problems: list[Exception] = []
    covered = Verification(0, 0)
    try:
        with progress_bar("verify") as progress:
            checkpoint = load(arguments.path)
            covered = checkpoint.checksums()
            problems.extend(checkpoint.problems(progress))
    except UnsupportedFileError:
        raise
    except CheckpointError as e:  # too damaged to be opened
        problems.append(e)
    if arguments.json:
        keys = ("file", "entry", "offset")
        rows = [{**{k: getattr(p, k, None) for k in keys}, "message": str(p)} for p in problems]
        counts = {"compared": covered.compared, "without_checksum": covered.without}
        say(json.dumps({**counts, "problems": rows}))
    else:
        for problem in problems:
            say(str(problem))
        if not problems:
            say(f"{covered}{_said(covered)}")
    if problems:
        return ExitStatus.FOUND
    return ExitStatus.DONE if covered.compared else ExitStatus.NOTHING_COMPARED


def _said(covered: Verification) -> str:
    if not covered.compared:
        return ": nothing could be compared, damage would not be seen"
    if covered.without:
        return "; no damage found in those, the others cannot be compared"
    return "; no damage found"
