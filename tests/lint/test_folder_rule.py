"""The one-way rule: the includes that a folder may have, and the imports that a module may have.

The tables are the rule. Every folder and every module needs a row.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

import pytest
from tree import files

# --- C++ ----------------------------------------------------------------------------------------

# Folder -> the areas whose headers its files may include, besides the C and C++ libraries.
CPP_EDGES = {
    "include/tensor_bridge": {"sdk"},
    "src/core": {"sdk", "dlpack", "core"},
    "src/formats": {"sdk", "core", "formats"},
    "src/adapters": {"sdk", "dlpack", "core"},
    "src/adapters/tensorflow": {"sdk", "dlpack", "core", "adapters/tensorflow"},
    "src/adapters/torch": {"sdk", "dlpack", "core", "torch_abi", "adapters/torch", "torch"},
    # The public and private headers of the C interface only have declarations, so any layer may
    # include them.
    "src/bridge": {
        "sdk",
        "private",
        "dlpack",
        "core",
        "torch_abi",
        "adapters/tensorflow",
        "bridge",
    },
    "src/c_api": {
        "sdk",
        "dlpack",
        "core",
        "formats",
        "torch_abi",
        "adapters/tensorflow",
        "bridge",
        "c_api",
        "private",
    },
    # Only the C ABI, public and private, because _C can link nothing else of libtensor_bridge.so.
    "src/extension": {"sdk", "dlpack", "private", "extension", "CPython"},
}
# File -> what it may include beyond its folder.
CPP_EXTRA = {
    # Only core's declarations of a torch adapter, which need no linking.
    "src/extension/copying_torch.h": {"core", "torch_abi"},
    "src/extension/copying_torch.cc": {"core", "torch_abi"},
    # Only applications with libtorch include this header.
    "include/tensor_bridge/torch.h": {"torch"},
}
# How an include begins -> the area it belongs to. The first match counts.
CPP_AREAS = (
    ("tensor_bridge/", "sdk"),
    ("dlpack/", "dlpack"),
    ("core/", "core"),
    ("formats/", "formats"),
    ("adapters/tensorflow/", "adapters/tensorflow"),
    ("adapters/torch/", "adapters/torch"),
    ("adapters/torch_abi.h", "torch_abi"),
    ("bridge/", "bridge"),
    ("c_api/private_api.h", "private"),
    ("c_api/", "c_api"),
    ("extension/", "extension"),
    ("ATen/", "torch"),
    ("c10/", "torch"),
    ("caffe2/", "torch"),
    ("torch/", "torch"),
    ("tensorflow/", "tensorflow"),
    ("tsl/", "tensorflow"),
    ("xla/", "tensorflow"),
    ("cuda", "CUDA"),
    ("hip/", "CUDA"),
    ("Python.h", "CPython"),
    ("numpy/", "NumPy"),
    ("sys/", "system"),
    ("linux/", "system"),
)
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(["<])([^">]+)[">]', re.MULTILINE)


def area_of(opening: str, header: str) -> str:
    for prefix, area in CPP_AREAS:
        if header.startswith(prefix):
            return area
    # <vector>, <pthread.h>. A bare name in quotes would only be found beside the file.
    return "system" if opening == "<" and "/" not in header else "unknown"


def cpp_violations(name: str, text: str) -> Iterator[str]:
    folder = str(PurePosixPath(name).parent)
    if folder not in CPP_EDGES:
        yield f"{name}: no row for the folder {folder} in CPP_EDGES"
        return
    allowed = CPP_EDGES[folder] | CPP_EXTRA.get(name, set()) | {"system"}
    for opening, header in INCLUDE.findall(text):
        area = area_of(opening, header)
        if area not in allowed:
            yield f"{name}: includes {header} ({area}); {folder} may use {sorted(allowed)}"


def test_includes_follow_the_folder_rule() -> None:
    found = [
        violation
        for name, text in files("src/**", "include/**")
        for violation in cpp_violations(name, text)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("name", "include"),
    [
        ("src/core/layout.cc", "#include <ATen/ATen.h>"),
        ("src/core/layout.cc", '#include "tensorflow/c/tf_tensor.h"'),
        ("src/core/layout.cc", '#include "bridge/to_torch.h"'),
        ("src/core/layout.cc", "#include <Python.h>"),
        ("src/core/layout.cc", '#include "formats/bundle.h"'),
        ("src/formats/bundle.cc", '#include "adapters/tensorflow/tf_api.h"'),
        ("src/bridge/to_torch.cc", '#include "formats/bundle.h"'),
        ("src/core/layout.cc", '#include "layout.h"'),
        ("src/core/layout.cc", '#include "../bridge/to_torch.h"'),
        ("src/adapters/tensorflow/reader.cc", '#include "adapters/torch/maker.h"'),
        ("src/adapters/torch/maker.cc", '#include "adapters/tensorflow/tf_api.h"'),
        ("src/adapters/torch/maker.cc", "  #  include <Python.h>"),
        ("src/bridge/to_torch.cc", "#include <torch/torch.h>"),
        ("src/c_api/c_api.cc", "#include <Python.h>"),
        ("src/extension/module.cc", '#include "bridge/to_torch.h"'),
        ("src/extension/module.cc", '#include "c_api/barrier.h"'),
        ("src/extension/module.cc", "#include <numpy/arrayobject.h>"),
        ("include/tensor_bridge/c_api.h", '#include "core/layout.h"'),
        ("include/tensor_bridge/c_api.h", "#include <dlpack/dlpack.h>"),
        ("src/adapters/torch/maker.cc", "#include <cuda_runtime.h>"),
        ("src/somewhere/new.cc", ""),
    ],
)
def test_a_forbidden_include_is_found(name: str, include: str) -> None:
    assert list(cpp_violations(name, f"// A comment.\n{include}\n"))


def test_an_allowed_include_is_not_found() -> None:
    text = '#include "core/layout.h"\n\n#include <cstdint>\n#include <sys/mman.h>\n'
    assert not list(cpp_violations("src/core/layout.cc", text))
    assert not list(cpp_violations("include/tensor_bridge/torch.h", "#include <ATen/ATen.h>\n"))


# --- Python -------------------------------------------------------------------------------------

# Names, options and texts, which all conversions may use.
BASE = {"errors", "_printable", "_frameworks", "_loaded", "_load_order", "_triton"}
PLAIN = BASE | {"_refusals", "_devices", "_explanation", "_options"}
DENSE = PLAIN | {"_C", "_dtypes", "_dense"}
FILES = {"_command_line", "_exit_status", "_regular_files", "_stored_dtypes", "_folder", "_output"}
CONVERT = DENSE | {"composite", "_structures", "_convert"}
# Module (the first component under tensor_bridge) -> the modules of the package it may import.
PY_EDGES: dict[str, set[str]] = {
    "_C": {"_checked_types"},
    "_checked_types": {"composite"},
    "_printable": set(),
    "_command_line": {"_printable"},
    "errors": {"_printable"},
    "_loaded": set(),
    "_load_order": set(),
    "_triton": {"errors", "_loaded", "_load_order"},
    "_frameworks": {"errors", "config", "_loaded", "_triton"},
    "_copying": set(),
    "_after_import": set(),
    "_torch_compile": DENSE,
    "_torch_tables": {"_after_import", "composite", "_torch_compile"},
    "_refusals": BASE,
    "_explanation": BASE | {"_refusals"},
    "_devices": {"_C"},
    "_options": BASE | {"_C", "_devices", "_explanation", "_refusals"},
    "_dtypes": BASE | {"_C"},
    "_dense": PLAIN | {"_C", "_dtypes"},
    # Stored dtypes of both checkpoints and records.
    "_stored_dtypes": BASE | {"_C", "_dtypes"},
    "testing": DENSE,
    # composite: for StringTensor, which every interface makes of strings.
    "capi": PLAIN | {"composite", "config"},
    "config": {"errors", "_command_line"},
    "composite": DENSE | {"_structures"},
    "dlpack": DENSE,
    "_structures": set(),
    "_py_function": set(),
    "_lazy": set(),
    "_convert": DENSE | {"composite", "_structures"},
    "_previous": {"_C", "_refusals", "_structures", "errors"},
    "data": CONVERT | {"_py_function", "_lazy"},
    "_exit_status": set(),
    "_completion": set(),
    "_regular_files": set(),
    "_folder": set(),
    "_output": DENSE | {"_folder"},
    "checkpoint": CONVERT | {*FILES, "_lazy"},
    # data: a loader of records is a data.Loader.
    "records": CONVERT | {*FILES, "_lazy", "data"},
    "autograd": CONVERT | {"_py_function", "_lazy", "_torch_compile", "_checked_types"},
    # The doctor makes its trials in separate processes, like a user's program.
    "doctor": BASE | {"_C", "config", "__init__", "testing"},
    "cli": CONVERT
    | {
        "_command_line",
        "_completion",
        "_exit_status",
        "config",
        "data",
        "checkpoint",
        "autograd",
        "doctor",
        "records",
        "__init__",
    },
    "__main__": {"cli"},
}
# For modules with folders: each folder -> the folders and modules beside it that it may import.
PY_INNER: dict[str, set[str]] = {
    "checkpoint/read": set(),
    "checkpoint/write": {"read"},
    "checkpoint/into_module": {"read"},
    "autograd/tf_in_torch": {"_naming", "_tape", "_tokens"},
    "autograd/torch_in_tf": {"_naming", "_tape", "_tokens"},
}
# Imported only in functions; importing the package must load neither framework.
LAZY = {"torch", "tensorflow", "keras", "tf_keras"}


def module_of(name: str) -> str:
    return PurePosixPath(name).relative_to("python/tensor_bridge").parts[0].split(".")[0]


def imported(node: ast.AST, package: list[str]) -> Iterator[str]:
    """The full names that a statement imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = package[: len(package) - node.level + 1] if node.level else []
        stem = ".".join([*base, *([node.module] if node.module else [])])
        # `from tensor_bridge import errors` names a module by its alias.
        yield from (f"{stem}.{alias.name}" for alias in node.names)


def runs_on_import(tree: ast.Module) -> Iterator[ast.AST]:
    """The nodes outside functions and outside `if TYPE_CHECKING:`."""
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            pending.extend(node.orelse)
            continue
        pending.extend(ast.iter_child_nodes(node))


def python_violations(name: str, text: str) -> Iterator[str]:
    module = module_of(name)
    tree = ast.parse(text, filename=name)
    package = ["tensor_bridge", *PurePosixPath(name).relative_to("python/tensor_bridge").parts[:-1]]

    for node in runs_on_import(tree):
        for target in imported(node, package):
            if target.split(".")[0] in LAZY and not name.endswith(".pyi"):
                yield f"{name}: imports {target.split('.')[0]} when it is imported itself"

    if module == "__init__":  # re-exports everything
        return
    if module not in PY_EDGES:
        yield f"{name}: no row for {module} in PY_EDGES"
        return
    allowed = PY_EDGES[module] | {module}
    folder = "/".join(package[1:])
    if len(package) > 2 and folder not in PY_INNER:
        yield f"{name}: no row for {folder} in PY_INNER"
        return
    for node in ast.walk(tree):
        for target in imported(node, package):
            parts = target.split(".")
            if parts[0] != "tensor_bridge":
                continue
            if len(package) > 2 and parts[1:2] == [module]:
                beside = PY_INNER[folder] | {package[-1]}
                if parts[2:3] and parts[2] not in beside:
                    yield f"{name}: imports {target}; {folder} may use {sorted(beside)}"
            used = parts[1] if len(parts) > 1 else "__init__"
            if used == "__version__":
                continue
            if used not in PY_EDGES:
                used = "__init__"  # a public name, taken from the package itself
            if used not in allowed:
                yield f"{name}: imports {target}; {module} may use {sorted(allowed)}"


def test_imports_follow_the_module_rule() -> None:
    found = [
        violation
        for name, text in files("python/tensor_bridge/**.py", "python/tensor_bridge/**.pyi")
        for violation in python_violations(name, text)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("_dense.py", "from tensor_bridge.composite import ragged"),
        ("_dense.py", "from tensor_bridge import composite"),
        ("_dense.py", "def f():\n    from . import _convert"),
        ("errors.py", "from tensor_bridge import _frameworks"),
        ("errors.py", "from . import _C"),
        ("capi.py", "from tensor_bridge import _C"),
        ("capi.py", "from tensor_bridge import to_torch"),
        ("composite/ragged.py", "from .. import data"),
        ("composite/ragged.py", "import tensor_bridge._convert"),
        ("newcomer.py", "pass"),
        ("checkpoint/read/_keras.py", "from tensor_bridge.checkpoint.write import _save"),
        ("checkpoint/read/_keras.py", "from tensor_bridge.checkpoint.write._save import save"),
        ("checkpoint/new/_keras.py", "pass"),
        (
            "autograd/tf_in_torch/_nodes.py",
            "from tensor_bridge.autograd.torch_in_tf import _piece",
        ),
        ("_dense.py", "import torch"),
        ("__init__.py", "import tensorflow as tf"),
        ("_dense.py", "class A:\n    from torch import nn"),
        ("_dense.py", "try:\n    import torch\nexcept ImportError:\n    pass"),
    ],
)
def test_a_forbidden_import_is_found(name: str, text: str) -> None:
    assert list(python_violations(f"python/tensor_bridge/{name}", text))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("_dense.py", "from tensor_bridge import _C, errors"),
        ("_dense.py", "def f():\n    import torch"),
        ("_dense.py", "if TYPE_CHECKING:\n    import torch"),
        ("composite/ragged.py", "from . import _registry\nfrom .._dense import to_torch"),
        ("__init__.py", "from tensor_bridge._convert import convert"),
        ("checkpoint/write/_save.py", "from tensor_bridge.checkpoint.read import _crc"),
        ("checkpoint/_commands.py", "from tensor_bridge.checkpoint.write import _save"),
    ],
)
def test_an_allowed_import_is_not_found(name: str, text: str) -> None:
    assert not list(python_violations(f"python/tensor_bridge/{name}", text))
