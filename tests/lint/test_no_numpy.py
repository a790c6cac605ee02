"""The package never imports NumPy, and calls nothing that uses it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from tree import files

MODULES = {"numpy", "ml_dtypes", "h5py"}
# The one exception: h5py imports NumPy itself, and reads the structure of Keras' weight files.
EXCEPTIONS = {"python/tensor_bridge/checkpoint/read/_hdf5.py": {"h5py"}}
# Attributes and names of torch, TensorFlow and Python whose use makes or takes an array.
NAMES = {
    "np",
    "numpy",
    "_numpy",
    "numpy_function",
    "as_numpy_iterator",
    "from_numpy",
    "as_numpy_dtype",
    "_as_numpy_dtype",
    "make_ndarray",
    "make_tensor_proto",
    "__array__",
    "__array_interface__",
    "__array_struct__",
    "__array_function__",
    "__array_ufunc__",
}
IMPORTERS = ("import_module", "__import__", "find_spec")
CPP = re.compile(r'numpy/|PyArray_|NPY_|__array|"numpy"|"from_numpy"|"as_numpy')


def python_violations(name: str, text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text, filename=name)):
        used: set[str] = set()
        if isinstance(node, ast.Import):
            used = {alias.name.split(".")[0] for alias in node.names} & MODULES
        elif isinstance(node, ast.ImportFrom) and not node.level:
            used = {(node.module or "").split(".")[0]} & MODULES
        elif isinstance(node, ast.Attribute):
            used = {node.attr} & NAMES
        elif isinstance(node, ast.Name):
            used = {node.id} & NAMES
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            used = {node.name} & NAMES
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # getattr(x, "numpy"), sys.modules["numpy"]
            used = {node.value} & (NAMES | MODULES)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(IMPORTERS):
            names = [a.value for a in node.args if isinstance(a, ast.Constant)]
            used = {str(name).split(".")[0] for name in names} & MODULES
        for what in used - EXCEPTIONS.get(name, set()):
            yield f"{name}:{node.lineno}: {what}"


def cpp_violations(name: str, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        code = line.split("//")[0]
        if CPP.search(code):
            yield f"{name}:{number}: {code.strip()}"


def test_the_package_does_not_touch_numpy() -> None:
    found = [v for name, text in files("python/**.py") for v in python_violations(name, text)]
    found += [v for name, text in files("src/**", "include/**") for v in cpp_violations(name, text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "import numpy",
        "import numpy as n",
        "import numpy.linalg",
        "from numpy import array",
        "from ml_dtypes import bfloat16",
        "def f():\n    import numpy",
        "t.numpy()",
        "np.zeros(3)",
        "t.__array__()",
        "getattr(t, 'numpy')()",
        "importlib.import_module('numpy')",
        "importlib.import_module('numpy.linalg')",
        "sys.modules['numpy']",
        "class A:\n    def __array__(self): ...",
        "torch.from_numpy",
        "ds.as_numpy_iterator()",
    ],
)
def test_numpy_in_python_is_found(text: str) -> None:
    assert list(python_violations("snippet.py", text))


@pytest.mark.parametrize(
    "text",
    ["#include <numpy/arrayobject.h>", 'PyImport_ImportModule("numpy")', "PyArray_Check(o)"],
)
def test_numpy_in_cpp_is_found(text: str) -> None:
    assert list(cpp_violations("snippet.cc", text))


def test_h5py_is_found_outside_its_file() -> None:
    (only,) = EXCEPTIONS
    assert not list(python_violations(only, "import h5py"))
    assert list(python_violations(only, "import numpy"))
    assert list(python_violations("python/tensor_bridge/checkpoint/read/_keras.py", "import h5py"))


def test_words_about_numpy_are_not_found() -> None:
    assert not list(python_violations("snippet.py", '"""Unlike t.numpy(), this shares."""\n# np.x'))
    assert not list(python_violations("snippet.py", "names == ['numpy.ndarray']"))
    assert not list(cpp_violations("snippet.cc", "int x;  // NumPy's __array__ copies"))
