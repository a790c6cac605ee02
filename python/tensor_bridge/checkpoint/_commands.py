"""The commands `tensor-bridge checkpoint ...`: ls, show, convert, diff, verify.

Each returns its exit status: 0 for success, 1 for what was found (differences, damage). Errors are
raised; what runs the command makes 2 of them.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from tensor_bridge.checkpoint.read._checkpoint import Checkpoint, load
from tensor_bridge.checkpoint.read._entry import Entry
from tensor_bridge.checkpoint.write._convert import convert
from tensor_bridge.composite import StringTensor
from tensor_bridge.errors import InvalidOptionError, TensorBridgeError

__all__ = ["add_commands"]

# Elements compared at a time: what they take as float64 is far below a tensor.
_PART = 1 << 22
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Adds the commands; each sets ``run``, a function from the arguments to the exit status."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, text: str, run: Callable[[Any], int]) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("path", help="checkpoint prefix, folder, SavedModel, .keras or .h5 file")
        sub.add_argument("--json", action="store_true", help="print JSON")
        sub.set_defaults(run=run)
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


def _ls(arguments: Any) -> int:
    checkpoint = load(arguments.path)
    entries = checkpoint.all_entries if arguments.all else list(checkpoint.entries.values())
    if arguments.json:
        print(json.dumps([_row(entry) for entry in entries]))
        return 0
    rows = [
        (e.name, e.dtype, "x".join(map(str, e.shape)) or "-", str(e.nbytes), e.kind)
        for e in entries
    ]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(4)]
    for name, dtype, shape, size, kind in rows:
        line = (
            f"{name:<{widths[0]}}  {dtype:<{widths[1]}}  {shape:<{widths[2]}}  {size:>{widths[3]}}"
        )
        print(line + (f"  {kind}" if arguments.all else ""))
    total = sum(entry.nbytes for entry in entries)
    print(f"{len(entries)} tensors, {total} bytes")
    return 0


def _find(checkpoint: Checkpoint, name: str) -> Any:
    for group in (
        checkpoint,
        checkpoint.slots,
        checkpoint.counters,
        checkpoint.state,
        checkpoint.metadata,
    ):
        if name in group:
            return group[name]
    return checkpoint[name]  # the KeyError with suggestions


def _plain(value: Any) -> Any:
    if isinstance(value, StringTensor):
        return value.to_str(errors="backslashreplace")
    values = (value.dequantize() if value.is_quantized else value).tolist()
    return json.loads(json.dumps(values, default=str))


def _show(arguments: Any) -> int:
    checkpoint = load(arguments.path)
    found = {}
    for name in arguments.name:
        try:
            found[name] = _find(checkpoint, name)
        except KeyError as e:
            raise InvalidOptionError(e.args[0]) from None
    if arguments.json:
        print(json.dumps({name: _plain(value) for name, value in found.items()}))
        return 0
    for name, value in found.items():
        print(f"{name}: {value}")
    return 0


@contextmanager
def _bar(text: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on a terminal, where rich is installed."""
    if not sys.stderr.isatty():
        yield None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn
    except ModuleNotFoundError:
        yield None
        return
    columns = (text, BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(text, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _convert(arguments: Any) -> int:
    with _bar("convert") as progress:
        paths = convert(
            arguments.path,
            arguments.target,
            max_shard_bytes=arguments.max_shard_size,
            skip_strings=arguments.skip_strings,
            verify=arguments.verify,
            overwrite=arguments.overwrite,
            progress=progress,
        )
    print(json.dumps([str(p) for p in paths]) if arguments.json else "\n".join(map(str, paths)))
    return 0


def _scales(x: Any) -> Any:
    """What turns the integers of a quantized tensor into real numbers."""
    import torch

    if x.qscheme() == torch.per_tensor_affine:
        return x.q_scale(), x.q_zero_point()
    scales, zero_points = x.q_per_channel_scales(), x.q_per_channel_zero_points()
    return scales.tolist(), zero_points.tolist(), x.q_per_channel_axis()


def _difference(one: Any, two: Any) -> str | None:
    import torch

    if isinstance(one, StringTensor) or isinstance(two, StringTensor):
        same = type(one) is type(two) and one.tolist() == two.tolist()
        return None if same else "strings differ"
    if one.dtype != two.dtype:
        return f"{one.dtype} and {two.dtype}"
    if one.shape != two.shape:
        return f"shapes {tuple(one.shape)} and {tuple(two.shape)}"
    if one.is_quantized:
        if _scales(one) != _scales(two):
            return "scales or zero points differ"
        one, two = one.int_repr(), two.int_repr()
    # By bytes: NaN is equal to itself.
    flat = [x.reshape(-1).view(torch.uint8) for x in (one, two)]
    if torch.equal(*flat):
        return None
    wide = torch.complex128 if one.is_complex() else torch.float64
    count, most = 0, 0.0
    for parts in zip(*(x.reshape(-1).split(_PART) for x in (one, two)), strict=True):
        a, b = (x.to(wide) for x in parts)
        count += int((a != b).sum())
        most = max(most, float((a - b).abs().nan_to_num(nan=0.0).max()))
    return f"{count} of {one.numel()} values differ, by at most {most:g}"


def _diff(arguments: Any) -> int:
    one, two = load(arguments.path), load(arguments.other)
    found = {name: f"only in {arguments.path}" for name in one if name not in two}
    found.update({name: f"only in {arguments.other}" for name in two if name not in one})
    common = [name for name in one if name in two]
    total = sum(one.entries[name].nbytes for name in common)
    with _bar("diff") as progress:
        done = 0
        for name in common:
            text = _difference(one[name], two[name])
            if text is not None:
                found[name] = text
            done += one.entries[name].nbytes
            if progress is not None:
                progress(done, total)
    if arguments.json:
        print(json.dumps(found))
    else:
        for name, text in found.items():
            print(f"{name}: {text}")
    return 1 if found else 0


def _verify(arguments: Any) -> int:
    try:
        with _bar("verify") as progress:
            problems = list(load(arguments.path).problems(progress))
    except TensorBridgeError as e:
        if not hasattr(e, "entry"):  # no damage: a missing package or path
            raise
        problems = [e]
    if arguments.json:
        keys = ("file", "entry", "offset")
        rows = [{**{k: getattr(p, k, None) for k in keys}, "message": str(p)} for p in problems]
        print(json.dumps(rows))
    else:
        for problem in problems:
            print(problem)
        if not problems:
            print("no damage found")
    return 1 if problems else 0
