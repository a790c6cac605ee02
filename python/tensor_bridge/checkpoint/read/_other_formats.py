"""Names other file formats, and what to do with such a file. Not for: formats that are read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tensor_bridge.errors import UnsupportedFileError

_TORCH = "it is torch's own: torch.load(path, weights_only=True)"
# The first bytes of a file, its format, and what to do.
_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (
        b"version https://git-lfs.github.com/spec/",
        "a pointer of git-LFS, which stands for the file",
        "fetch the file itself: git lfs pull",
    ),
    (b"\x93NUMPY", "an array of NumPy (.npy)", "torch.from_numpy(numpy.load(path))"),
    (b"\x1f\x8b", "a file packed with gzip", "unpack it first: gunzip, or tar -xzf"),
    (b"BZh", "a file packed with bzip2", "unpack it first: bunzip2, or tar -xjf"),
    (b"\xfd7zXZ\0", "a file packed with xz", "unpack it first: unxz, or tar -xJf"),
    (b"\x28\xb5\x2f\xfd", "a file packed with zstd", "unpack it first: unzstd"),
    (b"7z\xbc\xaf\x27\x1c", "an archive of 7-Zip", "unpack it first: 7z x"),
    (b"Rar!", "an archive of RAR", "unpack it first: unrar x"),
    (b"\x80\x02", "a pickle, as older torch.save wrote", _TORCH),
    (b"GGUF", "a GGUF file", "the package gguf reads it"),
    (b"model_checkpoint_path:", "the list of a folder's checkpoints", "pass the folder"),
)
_PICKLE = re.compile(rb"\x80[\x00-\x05]")
_SAFETENSORS = re.compile(rb".{8}\{\s*(\"|\})", re.DOTALL)
_PAGE = re.compile(rb"\s*<(!doctype\s+html|html|\?xml)", re.IGNORECASE)
# ModelProto: ir_version, producer_name.
_ONNX = re.compile(rb"\x08[\x01-\x20]\x12[\x01-\x40](pytorch|tf2onnx|keras2onnx|onnx|skl2onnx)")
_ENDINGS: dict[str, tuple[str, str]] = {
    ".onnx": ("a model of ONNX", "onnx.load(path), or the package onnx2torch"),
    ".mlmodel": ("a model of Core ML", "the package coremltools reads it"),
}
_EXPECTED = (
    "expected a checkpoint of TensorFlow (its prefix or .index file), the folder of a SavedModel, "
    "Keras' .keras, .weights.h5 or .h5, a frozen graph (.pb) or a .tflite"
)


def refused_file(path: str, head: bytes) -> UnsupportedFileError:
    """The error for a file that begins with these bytes and is of no format that is read."""
    name, advice = _recognised(path, head)
    return _refused(path, name, advice)


def refused_archive(path: str, members: Sequence[str]) -> UnsupportedFileError:
    """The error for a zip file without Keras' weights."""
    if any(re.search(r"(^|/)data\.pkl$", member) for member in members):
        return _refused(path, "an archive of torch.save", _TORCH)
    if members and all(member.endswith(".npy") for member in members):
        return _refused(path, "arrays of NumPy (.npz)", "torch.from_numpy(numpy.load(path)[name])")
    if "config.json" in members:
        return _refused(path, "an archive of Keras without model.weights.h5", "save it again")
    inside = f"a zip file with {', '.join(members[:5])}" if members else "an empty zip file"
    return _refused(path, inside, "unpack it, and pass what is in it")


def _recognised(path: str, head: bytes) -> tuple[str, str]:
    if not head:
        return "an empty file", "fetch or write it again"
    if not head.strip(b"\0"):
        return (
            "a file that begins with zeros only",
            "fetch it again; a download may have ended early",
        )
    for beginning, name, advice in _BEGINNINGS:
        if head.startswith(beginning):
            return name, advice
    if _PICKLE.match(head):
        return "a pickle", "unpickle it, or torch.load(path), if you trust who wrote it"
    if head[257:262] == b"ustar":
        return "an archive of tar", "unpack it first: tar -xf"
    if _SAFETENSORS.match(head) and int.from_bytes(head[:8], "little") < 1 << 40:
        return "a file of safetensors", "safetensors.torch.load_file(path)"
    if _PAGE.match(head):
        return "a page of the web", "what was downloaded is not the file; look at it"
    if head.lstrip()[:1] in (b"{", b"["):
        return "JSON", "it describes a model without its weights; pass the file of the weights"
    ending = Path(path).suffix.lower()
    if _ONNX.match(head):
        ending = ".onnx"
    if ending in _ENDINGS:
        return _ENDINGS[ending]
    if re.search(r"\.data-\d{5}-of-\d{5}$", path):
        prefix = path.rpartition(".data-")[0]
        return "the data of a checkpoint without its index", f"put {prefix}.index beside it"
    return f"a file that begins with {head[:8]!r}", "save the model in one of those formats"


def unsupported(path: str, message: str) -> UnsupportedFileError:
    """The error for a file that is of no format that is read."""
    error = UnsupportedFileError(f"{path}: {message}")
    error.file = path
    return error


def _refused(path: str, name: str, advice: str) -> UnsupportedFileError:
    return unsupported(path, f"{_EXPECTED}, got {name}" + (f": {advice}" if advice else ""))
