"""The layout of torch's classes on which an adapter relies, from a compiler's debug information.

    python tools/torch_layout.py 2.13 2.15      # differences; none if they can share an adapter

The layout has each class that the roots hold by value: its size, bases and fields with their
offsets, and the slots of virtual functions. Only headers are read (torch_wheels.py).
"""

from __future__ import annotations

import difflib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch_wheels

ROOTS = ("StorageImpl", "TensorImpl", "Allocator", "Scalar", "AutogradMetaInterface")
SOURCE = """
#include <c10/core/Scalar.h>
#include <c10/core/StorageImpl.h>
#include <c10/core/TensorImpl.h>
size_t used(c10::StorageImpl& s, c10::TensorImpl& t, c10::Allocator& a, c10::Scalar& x,
            c10::AutogradMetaInterface& g) {
  return s.nbytes() + t.numel() + sizeof(a) + x.toLong() + sizeof(g);
}
"""
CLASSES = ("DW_TAG_structure_type", "DW_TAG_class_type", "DW_TAG_union_type")


def text(die: Any, attribute: str) -> str:
    """The value of an attribute with a name, which may be in an earlier declaration."""
    if attribute in die.attributes:
        return str(die.attributes[attribute].value.decode())
    if "DW_AT_specification" in die.attributes:
        return text(die.get_DIE_from_attribute("DW_AT_specification"), attribute)
    return ""


def number(die: Any, attribute: str) -> int:
    """The number in an attribute, which is a number or an expression with it as first operand."""
    value = die.attributes[attribute].value if attribute in die.attributes else 0
    return value if isinstance(value, int) else int(value[1]) if len(value) > 1 else 0


def the_type(die: Any) -> Any:
    """The type of a field without typedefs and qualifiers; None for void."""
    while "DW_AT_type" in die.attributes:
        die = die.get_DIE_from_attribute("DW_AT_type")
        if die.tag not in ("DW_TAG_typedef", "DW_TAG_const_type", "DW_TAG_volatile_type"):
            return die
    return None


def lines_of(die: Any, queue: list[Any]) -> Iterator[str]:
    name = text(die, "DW_AT_name") or "(unnamed)"
    yield f"{name}: {number(die, 'DW_AT_byte_size')} bytes"
    for child in die.iter_children():
        where = number(child, "DW_AT_data_member_location")
        if child.tag in ("DW_TAG_inheritance", "DW_TAG_member"):
            of = the_type(child)
            if of is None or "DW_AT_external" in child.attributes:
                continue
            what = text(child, "DW_AT_name") or "base"
            yield f"{name} +{where} {what}: {of.tag[7:]} {text(of, 'DW_AT_name')}"
            if of.tag in CLASSES:
                queue.append(of)
        elif child.tag == "DW_TAG_subprogram" and "DW_AT_vtable_elem_location" in child.attributes:
            slot = number(child, "DW_AT_vtable_elem_location")
            yield f"{name} slot {slot}: {text(child, 'DW_AT_name')}"


def layout(minor: str) -> list[str]:
    """A line for each class, field and virtual function, sorted."""
    from elftools.elf.elffile import ELFFile

    include = torch_wheels.directory(minor) / "include"
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "layout.o"
        # Without this option, fields of classes whose key function is elsewhere are left out.
        command = ["g++", "-std=c++20", "-g", "-femit-class-debug-always", "-w", f"-I{include}"]
        command += ["-x", "c++", "-c", "-", "-o", str(made)]
        subprocess.run(command, input=SOURCE, text=True, check=True)
        with made.open("rb") as file:
            (unit, *_) = ELFFile(file).get_dwarf_info().iter_CUs()
            top = list(unit.get_top_DIE().iter_children())
            spaces = [die for die in top if die.tag == "DW_TAG_namespace"]
            queue = [
                die
                for die in [*top, *(die for space in spaces for die in space.iter_children())]
                if die.tag in CLASSES
                and text(die, "DW_AT_name") in ROOTS
                and "DW_AT_byte_size" in die.attributes
            ]
            found: dict[int, list[str]] = {}
            while queue:
                die = queue.pop()
                if die.offset not in found:
                    found[die.offset] = []
                    found[die.offset] += lines_of(die, queue)
    lines = sorted({line for each in found.values() for line in each})
    missing = [root for root in ROOTS if not any(line.startswith(f"{root}: ") for line in lines)]
    if missing:
        raise SystemExit(f"torch {minor}: the debug information of its headers lacks {missing}")
    return lines


def differences(minor: str, other: str) -> list[str]:
    return list(difflib.unified_diff(layout(minor), layout(other), minor, other, lineterm="", n=0))


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        raise SystemExit(__doc__)
    for minor in arguments:
        torch_wheels.provide(minor, check=False)
    found = differences(*arguments)
    print("\n".join(found), end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
