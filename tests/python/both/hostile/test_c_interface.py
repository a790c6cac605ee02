"""Every function of the C interface with null for every pointer, and other detectable misuse."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from pathlib import Path

import c_calls
import pytest
from c_header import HEADERS, functions, structs
from tree import SUPPORT

from tensor_bridge import capi, config

CALLS = Path(c_calls.__file__)
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}


def test_every_exported_function_has_an_entry() -> None:
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", config.library_dir() / "libtensor_bridge.so"],
        check=True,
        capture_output=True,
        text=True,
    )
    exported = {line.split()[-1] for line in listed.stdout.splitlines()}
    assert exported == set(c_calls.ENTRIES)
    assert exported == set(c_calls.FUNCTIONS)


def test_every_entry_has_an_argument_for_each_parameter() -> None:
    for name, entry in c_calls.ENTRIES.items():
        function = c_calls.FUNCTIONS[name]
        assert len(entry) == len(function.types), name
        for place, what in enumerate(entry):
            # Only a pointer may be null, not a number.
            if isinstance(what, int) or what.startswith("?"):
                assert (place in function.pointers) == isinstance(what, str), (name, place)


def places(kind: type[ctypes.Structure]) -> list[tuple[str, int, int]]:
    """Name, offset and size of each field."""
    fields = [(name, getattr(kind, name)) for name, *_ in kind._fields_]
    return [(name, field.offset, field.size) for name, field in fields]


def test_the_structs_of_capi_are_those_of_the_header() -> None:
    """The library writes the header's whole struct, even if ctypes allocated fewer bytes."""
    kinds = [kind for kind in vars(capi).values() if isinstance(kind, type(ctypes.Structure))]
    ours = {str(kind.__doc__).split("``")[1]: places(kind) for kind in kinds}
    assert {"tb_convert_options", "tb_convert_back_options", "tb_explanation"} <= set(ours)
    assert ours == {name: places(c_calls.STRUCTS[name]) for name in ours}
    longer = structs(
        c_calls.HEADER.replace("} tb_convert_options;", "int32_t x; } tb_convert_options;")
    )
    assert ours["tb_convert_options"] != places(longer["tb_convert_options"])


def test_what_may_be_null_is_documented() -> None:
    """The comment is above the function or its group; for options and out-places at the top."""
    for header in HEADERS:
        text = header.read_text(encoding="utf-8")
        silent = [
            name
            for block in text.split("\n\n")
            for name in functions(block)
            if any(
                re.match(r"\?(?!convert|tb_bundle_place)", str(what))
                for what in c_calls.ENTRIES[name]
            )
            and not re.search(r"\bnull\b", block, re.IGNORECASE)
        ]
        assert not silent


def test_declarations_are_taken_apart() -> None:
    found = functions(
        "typedef const void* (*callback)(int32_t abi);\n"
        "TB_EXPORT void a(void);\n"
        "TB_EXPORT tb_status b(struct X* x, int64_t n,\n    void (*f)(void*, int), callback g);\n"
        "TB_EXPORT const char* c(size_t size);\n"
    )
    assert [(name, f.status, f.pointers, len(f.types)) for name, f in found.items()] == [
        ("a", False, [], 0),
        ("b", True, [0, 2, 3], 4),
        ("c", False, [], 1),
    ]


@pytest.mark.alone
def test_null_and_misuse_give_a_status_in_every_combination(env: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, str(CALLS)], check=False, capture_output=True, text=True, env=env
    )
    lines = done.stdout.splitlines()
    wrong = [line for line in lines if line.startswith("wrong ")]
    assert not wrong, "\n".join(wrong)
    assert lines[-1:] == ["done"], f"exit {done.returncode}\n{lines[-1:]}\n{done.stderr[-2000:]}"
    called = {line.split()[1] for line in lines if line.startswith("call ")}
    assert called == set(c_calls.ENTRIES)
    # There are some hundreds of calls, among them each pointer separately and all together.
    assert "call tb_py_variable_to_torch without [0, 1, 3, 4]" in lines


@pytest.fixture
def env() -> dict[str, str]:
    import os

    return os.environ | QUIET | {"PYTHONPATH": str(SUPPORT)}
