"""features.json of a TFDS data set: the tree of its features. Not for: values (`_tfds_values`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, TypeAlias

from tensor_bridge.errors import RecordError

__all__ = ["Feature", "Features", "Leaf", "Repeated", "parse_features"]

# Dtypes that torch has, and strings; "object" is TFDS' older name of strings.
_DTYPES = frozenset(
    {
        *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
        *("float16", "bfloat16", "float32", "float64", "string"),
    }
)
_ENCODINGS = ("none", "bytes", "zlib")
# Larger sizes are treated as damage.
_MOST_ELEMENTS = 1 << 40
_MOST_DEFAULTS = 1 << 24
_DEPTH = 64

Shape: TypeAlias = "tuple[int | None, ...]"


@dataclass(frozen=True)
class Leaf:
    """A feature with values, which has no other features in it.

    Attributes:
      kind: TFDS' class, such as "Image".
      dtype: Name of the values' dtype.
      shape: Shape of a value; None for a size that varies. Images: height, width, channels.
      encoding: How a value is stored: "none" (as numbers), "bytes", "zlib", "image", "text", or
        "unsupported" if it cannot be read.
      num_classes: Number of classes of a ClassLabel or LabeledImage; None for others.
      names: Names of the classes, in order; () if the data set has none.
      optional: Whether records may lack the feature.
    """

    kind: str
    dtype: str
    shape: Shape
    encoding: str = "none"
    num_classes: int | None = None
    names: tuple[str, ...] = ()
    optional: bool = False


@dataclass(frozen=True)
class Features:
    """Features by name: FeaturesDict, Translation."""

    kind: str
    features: Mapping[str, Feature]

    def __getitem__(self, name: str) -> Feature:
        return self.features[name]


@dataclass(frozen=True)
class Repeated:
    """A repeated feature: Sequence, Video, TranslationVariableLanguages, Dataset.

    Attributes:
      kind: TFDS' class.
      feature: The feature that is repeated.
      length: The number of repetitions, or None if it varies.
    """

    kind: str
    feature: Feature
    length: int | None = None

    def __getitem__(self, name: str) -> Feature:
        if not isinstance(self.feature, Features):
            raise KeyError(name)
        return self.feature[name]


Feature: TypeAlias = "Leaf | Features | Repeated"


class _WrongFeatureError(Exception):
    """An error whose message does not name the file yet."""


def parse_features(text: bytes, path: str) -> Feature:
    """Parses features.json, in either of the two forms that TFDS has written.

    Args:
      text: The contents of the file.
      path: The file's name, for errors.

    Raises:
      RecordError: The file is damaged, or not such a file.
    """
    try:
        return _feature(json.loads(text), 0)
    except _WrongFeatureError as e:
        reason = str(e)
    except RecursionError:
        reason = "expected features nested less deeply"
    except (ValueError, UnicodeDecodeError) as e:
        reason = f"expected JSON: {e}"
    error = RecordError(f"{path}: {reason}")
    error.path = path
    raise error


# ---- fields ------------------------------------------------------------------------------------


class _Content:
    """The fields of a feature, in either form."""

    def __init__(self, fields: Any, what: str) -> None:
        if not isinstance(fields, dict):
            raise _WrongFeatureError(f"expected the fields of a {what}, got {_shown(fields)}")
        # protobuf writes camelCase in JSON, and reads both camelCase and snake_case.
        self._fields = {_snake(name): value for name, value in fields.items()}
        self._what = what

    def get(self, name: str) -> Any:
        return self._fields.get(name)

    def _wrong(self, name: str, expected: str) -> _WrongFeatureError:
        return _WrongFeatureError(
            f"{self._what}: expected {expected} as {name}, got {_shown(self._fields.get(name))}"
        )

    def dtype(self, default: str) -> str:
        given = self._fields.get("dtype") or default
        if not isinstance(given, str):
            raise self._wrong("dtype", "the name of a dtype")
        name = {"object": "string", "str": "string", "bytes": "string"}.get(given, given)
        if name not in _DTYPES:
            raise self._wrong("dtype", f"a dtype that torch has ({', '.join(sorted(_DTYPES))})")
        return name

    def shape(self, default: Shape) -> Shape:
        given = self._fields.get("shape")
        if isinstance(given, dict):
            given = given.get("dimensions", [])
        if given is None or (not given and default):
            return default
        if not isinstance(given, (list, tuple)):
            raise self._wrong("shape", "a list of sizes")
        sizes = tuple(self._size(size, "shape") for size in given)
        if prod(size for size in sizes if size) > _MOST_ELEMENTS or len(sizes) > _DEPTH:
            raise self._wrong("shape", "sizes that fit into memory")
        return sizes

    def size(self, name: str) -> int | None:
        return self._size(self._fields.get(name), name)

    def _size(self, given: Any, name: str) -> int | None:
        """-1 and null mean a size that varies; 64-bit numbers are strings."""
        if given is None:
            return None
        if isinstance(given, str) and given.removeprefix("-").isdecimal() and len(given) < 20:
            given = int(given)
        if not isinstance(given, int) or isinstance(given, bool) or not -1 <= given < 1 << 40:
            raise self._wrong(name, "a size")
        return None if given == -1 else given

    def flag(self, name: str) -> bool:
        given = self._fields.get(name, False)
        if not isinstance(given, bool):
            raise self._wrong(name, "true or false")
        return given

    def strings(self, name: str) -> list[str]:
        given = self._fields.get(name) or []
        if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
            raise self._wrong(name, "a list of strings")
        return given


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)


# ---- features ------------------------------------------------------------------------------------


def _feature(value: Any, depth: int) -> Feature:
    if depth > _DEPTH:
        raise _WrongFeatureError(f"expected features nested less than {_DEPTH} deep")
    if not isinstance(value, dict):
        raise _WrongFeatureError(f"expected a feature, got {_shown(value)}")
    if "type" in value:  # TFDS before 4.6: the class, and the content that the class wrote
        name, content = value["type"], value.get("content", {})
        if isinstance(content, str):
            content = json.loads(content)
    else:
        name, content = _of_message(value)
    if not isinstance(name, str) or not name:
        raise _WrongFeatureError(f"expected the name of a feature's class, got {_shown(name)}")
    kind = name.rpartition(".")[2]
    make = _KINDS.get(kind) if name.startswith("tensorflow_datasets.") else None
    if make is None:
        return Leaf(name, "string", (), "unsupported")
    return make(kind, content, depth)


def _of_message(value: dict[str, Any]) -> tuple[Any, Any]:
    """The class and the content of a feature in the JSON form of its protobuf message."""
    fields = {_snake(name): content for name, content in value.items()}
    name = fields.pop("python_class_name", None)
    for other in ("description", "value_range"):
        fields.pop(other, None)
    if len(fields) != 1:
        raise _WrongFeatureError(
            f"expected a feature with one kind of content, got {_shown(list(value))}"
        )
    ((field, content),) = fields.items()
    if field == "json_feature":
        if not isinstance(content, dict) or not isinstance(content.get("json"), str):
            raise _WrongFeatureError(f"expected JSON in a string, got {_shown(content)}")
        content = json.loads(content["json"])
    return name, content


def _tensor(kind: str, content: Any, depth: int) -> Feature:
    fields = _Content(content, kind)
    encoding = fields.get("encoding") or "none"
    if not isinstance(encoding, str) or encoding.lower() not in _ENCODINGS:
        raise _WrongFeatureError(
            f"{kind}: expected {', '.join(_ENCODINGS)} as encoding, got {_shown(encoding)}"
        )
    dtype = fields.dtype("int64" if kind == "Audio" else "float32")
    shape = fields.shape((None,) if kind == "Audio" else ())
    if fields.flag("lazy_decode"):
        return Leaf("Audio with lazy_decode", dtype, shape, "unsupported")
    optional = fields.flag("optional")
    if optional and (None in shape or prod(size or 0 for size in shape) > _MOST_DEFAULTS):
        raise _WrongFeatureError(
            f"{kind}: expected a known, small shape of an optional feature, got {shape}"
        )
    return Leaf(kind, dtype, shape, encoding.lower(), optional=optional)


def _text(kind: str, content: Any, depth: int) -> Feature:
    if _Content(content, kind).flag("use_encoder"):
        return Leaf("Text with an encoder", "string", (), "unsupported")
    return Leaf(kind, "string", ())


def _class_label(kind: str, content: Any, depth: int) -> Feature:
    return Leaf(kind, "int64", (), num_classes=_Content(content, kind).size("num_classes"))


def _box(kind: str, content: Any, depth: int) -> Feature:
    fields = _Content(content, kind)
    return Leaf(kind, fields.dtype("float32"), fields.shape((4,)))


def _image(kind: str, content: Any, depth: int) -> Feature:
    fields = _Content(content, kind)
    dtype = fields.dtype("uint8")
    shape = fields.shape((None, None, 3))
    if kind == "LabeledImage":
        label = fields.get("label")
        classes = _Content(label, "label").size("num_classes") if isinstance(label, dict) else None
        return _checked_image(Leaf(kind, dtype, shape, "image", num_classes=classes))
    return _checked_image(Leaf(kind, dtype, shape, "image"))


def _checked_image(leaf: Leaf) -> Leaf:
    channels = leaf.shape[-1] if len(leaf.shape) == 3 else None
    if len(leaf.shape) == 4:
        return replace(leaf, kind=f"{leaf.kind} of several frames (GIF)", encoding="unsupported")
    # 0 means as many channels as the file has.
    if channels not in (0, 1, 2, 3, 4, None) or len(leaf.shape) != 3:
        raise _WrongFeatureError(
            f"{leaf.kind}: expected height, width and channels, got {leaf.shape}"
        )
    if leaf.dtype not in ("uint8", "uint16", "float32"):
        raise _WrongFeatureError(
            f"{leaf.kind}: expected uint8, uint16 or float32, got {leaf.dtype}"
        )
    if leaf.dtype == "float32" and channels != 1:
        raise _WrongFeatureError(f"{leaf.kind}: expected one channel of float32, got {leaf.shape}")
    return leaf


def _video(kind: str, content: Any, depth: int) -> Feature:
    fields = _Content(content, kind)
    shape = fields.shape((None, None, None, 3))
    if len(shape) != 4:
        raise _WrongFeatureError(
            f"{kind}: expected frames, height, width and channels, got {shape}"
        )
    frame = _checked_image(Leaf("Image", fields.dtype("uint8"), shape[1:], "image"))
    return Repeated(kind, frame, shape[0])


def _dict(kind: str, content: Any, depth: int) -> Feature:
    if isinstance(content, dict) and list(content) == ["features"]:  # the protobuf form
        inner = content["features"]
        if isinstance(inner, dict) and "type" not in inner and "pythonClassName" not in inner:
            content = inner
    if not isinstance(content, dict):
        raise _WrongFeatureError(f"{kind}: expected features by name, got {_shown(content)}")
    return Features(kind, {name: _feature(inner, depth + 1) for name, inner in content.items()})


def _sequence(kind: str, content: Any, depth: int) -> Feature:
    fields = _Content(content, kind)
    return Repeated(kind, _feature(fields.get("feature"), depth + 1), fields.size("length"))


def _translation(kind: str, content: Any, depth: int) -> Feature:
    languages = _Content(content, kind).strings("languages")
    return Features(kind, {name: Leaf("Text", "string", ()) for name in languages})


def _variable_translation(kind: str, content: Any, depth: int) -> Feature:
    _Content(content, kind)
    text = Leaf("Text", "string", ())
    return Repeated(kind, Features("FeaturesDict", {"language": text, "translation": text}))


_KINDS: dict[str, Callable[[str, Any, int], Feature]] = {
    "FeaturesDict": _dict,
    "Tensor": _tensor,
    "Scalar": _tensor,
    "Audio": _tensor,
    "Text": _text,
    "ClassLabel": _class_label,
    "BBoxFeature": _box,
    "Image": _image,
    "LabeledImage": _image,
    "Video": _video,
    "Sequence": _sequence,
    "Dataset": _sequence,
    "Translation": _translation,
    "TranslationVariableLanguages": _variable_translation,
}


# ---- names of classes ----------------------------------------------------------------------------


def named(feature: Feature, names: Callable[[str], Sequence[str]], path: str = "") -> Feature:
    """Returns the feature with the names of classes filled in.

    Args:
      feature: The root of a tree of features.
      names: A function from a feature's name in file names to the names of its classes.
      path: The root's name in file names.
    """
    if isinstance(feature, Leaf):
        if feature.num_classes is None and feature.kind not in ("ClassLabel", "LabeledImage"):
            return feature
        return replace(feature, names=tuple(names(path)))
    if isinstance(feature, Repeated):
        return replace(feature, feature=named(feature.feature, names, path))
    return replace(
        feature,
        features={
            name: named(inner, names, file_name(name, path))
            for name, inner in feature.features.items()
        },
    )


def file_name(name: str, parent: str) -> str:
    """A feature's name in the names of TFDS' files."""
    name = name.replace("/", ".")
    return f"{parent}-{name}" if parent else name


def leaves(feature: Feature, path: str = "") -> Iterator[tuple[str, Leaf]]:
    """Yields each leaf with its path, names joined by "/"."""
    if isinstance(feature, Leaf):
        yield path, feature
    elif isinstance(feature, Repeated):
        yield from leaves(feature.feature, path)
    else:
        for name, inner in feature.features.items():
            yield from leaves(inner, f"{path}/{name}" if path else name)
