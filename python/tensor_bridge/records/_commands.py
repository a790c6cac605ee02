"""The commands `tensor-bridge records ...`: ls, head, infer, verify, index.

Each returns its `ExitStatus`. Errors are raised, and the caller turns them into ERROR.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from tensor_bridge._command_line import padded, progress_bar, say
from tensor_bridge._exit_status import ExitStatus
from tensor_bridge.composite import Ragged, StringTensor
from tensor_bridge.errors import RecordError, RecordNotFoundError
from tensor_bridge.records._array_record import ArrayRecordFile, open_records
from tensor_bridge.records._damage import not_found
from tensor_bridge.records._features import SequenceFeatures
from tensor_bridge.records._index import index_of
from tensor_bridge.records._infer import infer, infer_from
from tensor_bridge.records._paths import expand, is_url
from tensor_bridge.records._record_file import RecordFile
from tensor_bridge.records._spec_parser import SpecParser

__all__ = ["add_commands"]

_AT_ONCE = 1024
# Names of files of records, as TFDS and most others choose them.
_NAMED = re.compile("tf.?rec|array.?record", re.IGNORECASE)
# Number of bytes and values of a feature that `head` shows.
_SHOWN = 48


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Adds the commands; each sets ``run``, a function from the arguments to the exit status."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, text: str, run: Callable[[Any], int]) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument(
            "path",
            nargs="+",
            help="TFRecord or ArrayRecord files, folders, patterns, URLs of fsspec",
        )
        sub.add_argument("--json", action="store_true", help="print JSON")
        sub.set_defaults(run=run)
        return sub

    command("ls", "list files with their number of records and of bytes", _ls)
    head = command("head", "print the first records", _head)
    head.add_argument("-n", type=_count, default=3, metavar="COUNT", help="how many; 3 by default")
    command("infer", "propose a spec for the records, as Python source", _infer)
    command("verify", "compare all checksums; status 1 if something is damaged", _verify)
    index = command("index", "write the place of each record, for RecordDataset(index=)", _index)
    index.add_argument("-o", "--output", required=True, metavar="FILE", help="the file to write")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {text!r}")
    return int(text)


def _size_of(path: str) -> int:
    # The size of a URL is not known, and only the progress bar needs it.
    return 0 if is_url(path) or not os.path.exists(path) else os.path.getsize(path)  # noqa: PTH202, PTH110


def _files(paths: list[str]) -> list[str]:
    """The files of paths and patterns. A folder stands for the files in it whose names say so."""
    return [file for path in expand(paths) for file in (_below(path) or [path])]


def _below(path: str) -> list[str]:
    if is_url(path) or not os.path.isdir(path):  # noqa: PTH112
        return []
    found = sorted(
        str(each) for each in Path(path).iterdir() if each.is_file() and _NAMED.search(each.name)
    )
    if not found:
        raise not_found(
            path,
            "no file in this folder has tfrecord or array_record in its name; name the files, for "
            f"example {shlex.quote(os.path.join(path, '*'))}",  # noqa: PTH118
        )
    return found


def _read(
    text: str, paths: list[str], **options: Any
) -> Iterator[tuple[str, RecordFile | ArrayRecordFile]]:
    """Yields each path and its file after reading the file to its end."""
    sizes = [_size_of(path) for path in paths]
    with progress_bar(text) as progress:
        for number, path in enumerate(paths):
            file = open_records(path, **options)
            while file.read(_AT_ONCE) is not None:
                if progress is not None:
                    at = sizes[number]
                    if isinstance(file, RecordFile) and not file.compression:
                        at = file.tell().offset
                    progress(sum(sizes[:number]) + at, sum(sizes))
            yield path, file


def _ls(arguments: Any) -> int:
    rows: list[dict[str, Any]] = []
    for path, file in _read("ls", _files(arguments.path), verify=False):
        stats = file.stats()
        rows.append(
            {
                "path": path,
                "records": stats.records,
                "bytes": stats.bytes,
                "format": "tfrecord" if isinstance(file, RecordFile) else "array_record",
                "compression": file.compression,
            }
        )
    if arguments.json:
        say(json.dumps(rows))
        return ExitStatus.DONE
    table = [("RECORDS", "BYTES", "FORMAT", "COMPRESSION", "PATH")]
    table += [
        (str(r["records"]), str(r["bytes"]), r["format"], r["compression"] or "-", r["path"])
        for r in rows
    ]
    records, sizes, formats, kinds, names = (list(column) for column in zip(*table, strict=True))
    numbers = padded(records, right=True), padded(sizes, right=True)
    columns = *numbers, padded(formats), padded(kinds), names
    say(*("  ".join(row) for row in zip(*columns, strict=True)))
    total = sum(r["records"] for r in rows)
    say(f"{_plural(len(rows), 'file')}, {_plural(total, 'record')}")
    return ExitStatus.DONE


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _head(arguments: Any) -> int:
    found: list[Any] = []
    for path in _files(arguments.path):
        batch = open_records(path).read(arguments.n - len(found))
        if batch is not None:
            found += [_parsed(record) for record in batch.to_bytes()]
        if len(found) >= arguments.n:
            break
    if arguments.json:
        say(json.dumps([_plain(value, None) for value in found], allow_nan=False))
        return ExitStatus.DONE
    for number, value in enumerate(found):
        say(f"record {number}")
        lines = _lines(value) if isinstance(value, dict) else [_shown(value)]
        say(*(f"  {line}" for line in lines))
    return ExitStatus.DONE


def _parsed(record: bytes) -> Any:
    """The values of an Example, or the record itself if it is not an Example."""
    try:
        spec = infer_from([record])
        return SpecParser(spec).parse_one(_batch_of(record))
    except RecordError:
        return record


def _batch_of(record: bytes) -> Any:
    from tensor_bridge.records._batch import RecordBatch

    return RecordBatch.of(record)


def _lines(values: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            if key != "lengths":
                yield from _lines(value, f"{key}/")
        else:
            yield f"{above}{key}: {_shown(value)}"


def _shown(value: Any) -> str:
    return json.dumps(_plain(value, _SHOWN), ensure_ascii=False)


def _plain(value: Any, most: int | None) -> Any:
    """The value in types that JSON has, cut to `most` values and bytes."""
    import torch

    if isinstance(value, Mapping):
        return {key: _plain(each, most) for key, each in value.items()}
    if isinstance(value, (bytes, bytearray)):
        text = bytes(value[:most]).decode("utf-8", "backslashreplace")
        return text if most is None or len(value) <= most else f"{text}... ({len(value)} bytes)"
    if isinstance(value, StringTensor):
        return _plain(value.tolist(), most)
    if isinstance(value, Ragged):
        return _plain(value.to_list(), most)
    if isinstance(value, torch.Tensor):
        if value.is_nested:
            return [_plain(row, most) for row in value.unbind()]
        dense = value.coalesce().values() if value.layout is torch.sparse_coo else value
        return _plain(dense.tolist(), most)
    if isinstance(value, list):
        cut = value if most is None else value[:most]
        more = [] if len(cut) == len(value) else [f"... ({len(value)} values)"]
        return [_plain(each, most) for each in cut] + more
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _infer(arguments: Any) -> int:
    spec = infer(_files(arguments.path))
    if not arguments.json:
        say(*str(spec).split("\n"))
        return ExitStatus.DONE
    if isinstance(spec, SequenceFeatures):
        made: Any = {"context": _described(spec.context), "sequence": _described(spec.sequence)}
    else:
        made = _described(spec)
    say(json.dumps(made))
    return ExitStatus.DONE


def _described(spec: Mapping[str, Any]) -> dict[str, Any]:
    described = {}
    for key, feature in spec.items():
        known = {item.name for item in fields(feature)}
        row = {"kind": type(feature).__name__, "dtype": feature.dtype}
        described[key] = {**row, **({"shape": feature.shape} if "shape" in known else {})}
    return described


def _verify(arguments: Any) -> int:
    problems: list[dict[str, Any]] = []
    compared = 0
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for path in _files(arguments.path):
            told.clear()
            try:
                for _, file in _read("verify", [path], on_error="skip"):
                    stats = file.stats()
                    compared += stats.records
                    if stats.skipped_records:
                        message = str(told[0].message).partition("; skipped, as on_error")[0]
                        problems.append(
                            {
                                "path": path,
                                "message": message,
                                "damaged_places": stats.skipped_records,
                                # Not known of ArrayRecord.
                                "damaged_bytes": stats.skipped_bytes or None,
                            }
                        )
            except RecordNotFoundError:
                raise
            except RecordError as e:
                problems.append({"path": path, "message": str(e)})
    if arguments.json:
        say(json.dumps({"compared": compared, "problems": problems}))
    else:
        for problem in problems:
            places = problem.get("damaged_places", 1)
            more = f" (the first of {places} places)" if places > 1 else ""
            say(f"{problem['message']}{more}")
        if not problems:
            none = ": nothing could be compared" if not compared else "; no damage found"
            say(f"{_plural(compared, 'record')} compared{none}")
    if problems:
        return ExitStatus.FOUND
    return ExitStatus.DONE if compared else ExitStatus.NOTHING_COMPARED


def _index(arguments: Any) -> int:
    paths = _files(arguments.path)
    sizes = [_size_of(path) for path in paths]
    with progress_bar("index") as progress:
        done = iter(range(len(paths)))

        def tell(_: str) -> None:
            if progress is not None:
                progress(sum(sizes[: next(done)]), sum(sizes))

        index = index_of(paths, arguments.output, progress=tell)
    if arguments.json:
        say(json.dumps({"output": arguments.output, "files": len(paths), "records": len(index)}))
    else:
        counts = f"{_plural(len(index), 'record')} of {_plural(len(paths), 'file')}"
        say(f"{arguments.output}: {counts}")
    return ExitStatus.DONE
