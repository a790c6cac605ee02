"""The exported functions and structs of our C headers, for ctypes. Not for: other headers."""

from __future__ import annotations

import ctypes
import re
from typing import Any, NamedTuple

from tree import ROOT

HEADERS = (ROOT / "include/tensor_bridge/c_api.h", ROOT / "src/c_api/private_api.h")
_INTEGERS = {
    "int32_t": ctypes.c_int32,
    "tb_status": ctypes.c_int32,
    "tb_stored_format": ctypes.c_int32,
    "int64_t": ctypes.c_int64,
    "uint32_t": ctypes.c_uint32,
    "uint64_t": ctypes.c_uint64,
    "size_t": ctypes.c_size_t,
}


class Function(NamedTuple):
    """A declaration: its result type, and for each parameter its C text and ctypes type."""

    name: str
    returns: Any
    status: bool
    parameters: list[str]
    types: list[Any]

    @property
    def pointers(self) -> list[int]:
        """The positions of its pointers, including pointers to functions."""
        return [i for i, kind in enumerate(self.types) if kind is ctypes.c_void_p]


def text() -> str:
    """Both headers, without comments."""
    both = "".join(header.read_text(encoding="utf-8") for header in HEADERS)
    return re.sub(r"/\*.*?\*/", " ", both, flags=re.DOTALL)


def _split(parameters: str) -> list[str]:
    """Splits at the commas outside parentheses."""
    found, depth = [""], 0
    for letter in parameters:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            found.append("")
        else:
            found[-1] += letter
    return [] if found == ["void"] else [" ".join(each.split()) for each in found]


def _type(declared: str, callbacks: set[str]) -> Any:
    words = [word for word in re.findall(r"\w+", declared) if word not in ("const", "struct")]
    if "*" in declared or words[0] in callbacks:
        return ctypes.c_void_p
    return None if words[0] == "void" else _INTEGERS[words[0]]


def functions(header: str) -> dict[str, Function]:
    """The functions that the text of a header exports."""
    callbacks = set(re.findall(r"typedef [^;]*?\(\*(\w+)\)\(", header))
    found = {}
    for returns, name, parameters in re.findall(
        r"^TB_EXPORT\s+([^;(]*?)(\w+)\((.*?)\);", header, re.MULTILINE | re.DOTALL
    ):
        places = _split(parameters)
        found[name] = Function(
            name,
            _type(returns, callbacks),
            returns.strip() == "tb_status",
            places,
            [_type(place, callbacks) for place in places],
        )
    return found


def structs(header: str) -> dict[str, type[ctypes.Structure]]:
    """The structs whose fields a header gives."""
    found: dict[str, type[ctypes.Structure]] = {}
    for name, body in re.findall(r"^typedef struct (\w+) \{(.*?)\} \1;", header, re.M | re.DOTALL):
        fields = []
        for declared in filter(str.strip, body.split(";")):
            field, size = re.search(r"(\w+)(?:\[(\d+)\])?\s*$", declared).groups()  # type: ignore[union-attr]
            kind = ctypes.c_char * int(size) if size else _type(declared, set())
            fields.append((field, kind))
        found[name] = type(name, (ctypes.Structure,), {"_fields_": fields})
    return found
