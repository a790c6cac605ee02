"""dataset_info.json of a TFDS data set. Not for: features (`_tfds_features`), data (`_tfds`)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from string import Formatter
from typing import Any

from tensor_bridge import _regular_files
from tensor_bridge.errors import RecordError, RecordNotFoundError
from tensor_bridge.records._damage import damaged, not_found
from tensor_bridge.records._tfds_features import named, parse_features
from tensor_bridge.records._tfds_splits import Split

__all__ = ["TfdsInfo", "read_info"]

_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_FORMATS = ("tfrecord", "array_record")
_MOST_BYTES = 1 << 28
_MOST_SHARDS = 1 << 20


@dataclass(frozen=True)
class TfdsInfo:
    """The metadata of a TFDS data set.

    Attributes:
      name: Name of the data set.
      version: Its version, such as "1.0.0".
      description: A description for readers.
      citation: A citation for papers.
      file_format: "tfrecord" or "array_record".
      splits: The splits by name, each with `num_examples`, `shard_lengths`, `files`, `num_bytes`.
      features: The tree of the features. ``info.features["label"].names`` are the names of classes,
        or () if the data set has none.
      supervised_keys: The structure of an example with ``as_supervised=True``: nested tuples and
        dicts of paths of features; None if the data set does not define it.
    """

    name: str
    version: str
    description: str
    citation: str
    file_format: str
    splits: Mapping[str, Any]
    features: Any
    supervised_keys: Any


def _read(folder: str, name: str) -> bytes | None:
    """The contents of a file in the folder; None if there is no such file."""
    path = str(Path(folder, name))
    try:
        descriptor = _regular_files.open_regular(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except _regular_files.NotRegularError as e:
        raise damaged(path, str(e)) from None
    except (OSError, ValueError) as e:  # ValueError: a name that no file can have
        raise damaged(path, f"expected a file that can be opened: {e}") from None
    with os.fdopen(descriptor, "rb") as file:
        text = file.read(_MOST_BYTES + 1)
    if len(text) > _MOST_BYTES:
        raise damaged(path, f"expected at most {_MOST_BYTES} bytes, got more")
    return text


def read_info(folder: str) -> TfdsInfo:
    """Reads dataset_info.json, features.json and the names of classes.

    Args:
      folder: The folder of one version of a data set.

    Raises:
      RecordNotFoundError: There is no dataset_info.json, or no features.json.
      RecordError: They are damaged, or the data set has an unsupported format.
    """
    path = str(Path(folder, "dataset_info.json"))
    text = _read(folder, "dataset_info.json")
    if text is None:
        raise _no_info(folder)
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise damaged(path, f"expected JSON: {e}") from None
    if not isinstance(fields, dict):
        raise damaged(path, "expected an object of JSON")
    file_format = fields.get("fileFormat") or "tfrecord"
    if file_format not in _FORMATS:
        raise damaged(
            path,
            f"expected the file format tfrecord or array_record, got {file_format!r}; prepare the "
            'data set with file_format="tfrecord", or convert it with '
            "tfds convert_format --out_file_format=tfrecord",
        )
    features = _read(folder, "features.json")
    if features is None:
        raise not_found(
            str(Path(folder, "features.json")),
            "no such file; data sets prepared before TFDS 4 lack it; write it once with TFDS, with "
            "the features of the data set's documentation or code: "
            'tfds.features.FeaturesDict({"text": tfds.features.Text(), ...}).save_config(folder)',
        )
    tree = parse_features(features, str(Path(folder, "features.json")))

    def names(feature: str) -> list[str]:
        found = _read(folder, f"{feature}.labels.txt")
        if found is None:
            return []
        lines = found.decode("utf-8", "replace").split("\n")
        return [line.strip() for line in lines if line.strip()]

    return TfdsInfo(
        name=_text(fields, "name"),
        version=_text(fields, "version"),
        description=_text(fields, "description"),
        citation=_text(fields, "citation"),
        file_format=file_format,
        splits=_splits(fields, file_format, path),
        features=named(tree, names),
        supervised_keys=_supervised(fields.get("supervisedKeys"), path),
    )


def _no_info(folder: str) -> RecordNotFoundError:
    """The error for a folder without metadata; it names the data sets below the folder."""
    try:
        below = sorted(
            os.path.relpath(found, folder)
            for found, _, files in _two_levels(folder)
            if "dataset_info.json" in files
        )
    except OSError:
        below = []
    advice = f"; it has the data sets {', '.join(below[:10])}: name one of them" if below else ""
    return not_found(
        folder, f"expected the folder of one version of a data set, with dataset_info.json{advice}"
    )


def _two_levels(folder: str) -> Any:
    for found, folders, files in os.walk(folder):
        yield found, folders, files
        if len(PurePath(os.path.relpath(found, folder)).parts) >= 3:
            folders.clear()


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def _integer(value: Any, path: str, what: str) -> int:
    """Reads an integer; protobuf writes 64-bit integers as strings in JSON."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 20:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 62:
        raise damaged(path, f"expected a number as {what}, got {value!r:.60}")
    return value


def _splits(fields: dict[str, Any], file_format: str, path: str) -> dict[str, Split]:
    given = fields.get("splits") or []
    if not isinstance(given, list) or not all(isinstance(split, dict) for split in given):
        raise damaged(path, "expected a list of splits")
    splits = {}
    for split in given:
        name = _text(split, "name")
        lengths = split.get("shardLengths")
        if lengths is None and split.get("numShards"):
            raise damaged(
                path,
                f"split {name!r}: expected shardLengths; data sets prepared before TFDS 2 lack "
                "them: prepare this one again",
            )
        lengths = lengths or []
        if not name or not isinstance(lengths, list) or len(lengths) > _MOST_SHARDS:
            raise damaged(path, "expected splits with a name and a list of shardLengths")
        counts = tuple(_integer(length, path, "shardLengths") for length in lengths)
        size = _integer(split.get("numBytes", 0), path, "numBytes")
        template = split.get("filepathTemplate") or _TEMPLATE
        files = _files(template, _text(fields, "name"), name, file_format, len(counts), path)
        splits[name] = Split(name, counts, size, files)
    return splits


def _files(
    template: Any, dataset: str, split: str, file_format: str, count: int, path: str
) -> tuple[str, ...]:
    digits = max(5, len(str(count)))
    total = f"{count:0{digits}}"
    found = []
    for index in range(count):
        number = f"{index:0{digits}}"
        values = {
            "DATASET": dataset,
            "SPLIT": split,
            "FILEFORMAT": file_format,
            "SHARD_INDEX": number,
            "NUM_SHARDS": total,
            "SHARD_X_OF_Y": f"{number}-of-{total}",
        }
        file = _filled(template, values, path)
        parts = PurePath(file).parts
        if not file or PurePath(file).is_absolute() or ".." in parts or "\0" in file:
            raise damaged(path, f"expected names of files in the folder, got {file!r}")
        found.append(file)
    return tuple(found)


def _filled(template: Any, values: Mapping[str, str], path: str) -> str:
    """Fills in a template without str.format(), which would let the file read attributes."""
    if not isinstance(template, str):
        raise damaged(path, f"expected a template of names of files, got {template!r:.60}")
    filled = []
    try:
        for literal, name, form, conversion in Formatter().parse(template):
            filled.append(literal)
            if name is None:
                continue
            if name not in values or form or conversion:
                raise damaged(path, f"filepathTemplate: expected {', '.join(values)}, got {name!r}")
            filled.append(values[name])
    except ValueError as e:
        if isinstance(e, RecordError):
            raise
        raise damaged(path, f"filepathTemplate: {e}") from None
    return "".join(filled)


def _supervised(keys: Any, path: str, depth: int = 0) -> Any:
    """Reads supervisedKeys as nested tuples and dicts of names."""
    if (keys is None and not depth) or (isinstance(keys, str) and depth):
        return keys
    if isinstance(keys, dict) and depth < 16:
        if "input" in keys and "output" in keys:  # before TFDS 4
            found = (keys["input"], keys["output"])
            if all(isinstance(name, str) for name in found):
                return found
        if isinstance(keys.get("featureKey"), str):
            return keys["featureKey"]
        inner = keys.get("tuple")
        if isinstance(inner, dict):
            items = inner.get("items") or []
        else:
            items = keys.get("items")
        if isinstance(items, list):
            return tuple(_supervised(item, path, depth + 1) for item in items)
        named_items = keys.get("dict")
        if isinstance(named_items, dict):
            pairs = named_items.get("dict") or named_items
            if isinstance(pairs, dict):
                return {name: _supervised(item, path, depth + 1) for name, item in pairs.items()}
    raise damaged(path, f"expected supervisedKeys, got {keys!r:.60}")
