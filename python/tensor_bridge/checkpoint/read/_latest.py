"""The file ``checkpoint`` of a folder, which names the latest of its checkpoints.

It is a CheckpointState as protobuf's text (tensorflow/python/checkpoint/checkpoint_management.py).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from tensor_bridge.checkpoint.read._files import first_bytes, is_there

# It contains a few names; a larger file is something else.
_MAX_SIZE = 1 << 20
_MAX_PATH = 4096  # Linux' own
# An unterminated string is a token too: trying again at each quote in it would take forever.
_TOKEN = re.compile(rb"""#[^\n]*|"(?:[^"\\\n]|\\.)*"?|'(?:[^'\\\n]|\\.)*'?|\w+|[^\s\w]""")
_ESCAPE = re.compile(
    rb"\\(?:(?P<octal>[0-7]{1,3})|[xX](?P<hex>[0-9a-fA-F]{1,2})|(?P<one>[abfnrtv])|(?P<same>.))"
)
_ONE = dict(zip(b"abfnrtv", b"\a\b\f\n\r\t\v", strict=True))


def latest_prefixes(folder: Path) -> list[str]:
    """Returns where the latest checkpoint of a folder may be, the likeliest place first.

    If the stored path does not exist, because the folder was moved or comes from another machine,
    its last parts are searched for in the folder, more parts first.

    Returns:
      Prefixes; [] if there is no file ``checkpoint``, or it names none.

    Raises:
      CheckpointError: It is no regular file, or may not be read.
    """
    if not is_there(folder / "checkpoint"):
        return []
    named = os.fsdecode(_model_checkpoint_path(first_bytes(folder / "checkpoint", _MAX_SIZE)))
    if not named or "\0" in named or len(named) > _MAX_PATH:
        return []
    # Here a backslash is part of a name; on Windows it is a separator.
    tails = [*_tails(named.split("/")), *_tails(re.split(r"[\\/]", named))]
    first = named if named.startswith("/") else f"{folder}/{named}"
    return list(dict.fromkeys([first, *(f"{folder}/{tail}" for tail in tails)]))


def _tails(parts: list[str]) -> list[str]:
    # The last may be empty: Saver.save(session, "folder/") writes "folder/.index".
    *folders, name = parts
    parts = [*(part for part in folders if part not in ("", ".")), name]
    return ["/".join(parts[i:]) for i in range(len(parts)) if ".." not in parts[i:]]


def _model_checkpoint_path(text: bytes) -> bytes:
    """The value of that field; nothing if it is absent."""
    value = b""
    tokens = [token for token in _TOKEN.findall(text) if token[:1] != b"#"]
    for at, token in enumerate(tokens):
        if token == b"model_checkpoint_path" and tokens[at + 1 : at + 2] == [b":"]:
            value = b""
            # Adjacent strings are joined.
            for string in tokens[at + 2 :]:
                if string[:1] not in (b'"', b"'") or string[1:][-1:] != string[:1]:
                    break
                value += _ESCAPE.sub(_unescaped, string[1:-1])
    return value


def _unescaped(match: re.Match[bytes]) -> bytes:
    if match["octal"]:
        return bytes([int(match["octal"], 8) & 0xFF])
    if match["hex"]:
        return bytes([int(match["hex"], 16)])
    if match["one"]:
        return bytes([_ONE[match["one"][0]]])
    return match["same"]
